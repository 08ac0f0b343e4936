"""HRST and HRTT against their walks written out, and against the closed form of the facts sheet."""

import numpy as np
import pytest

from posediff_jax.denoisers.hierarchy import (
    arrange_children,
    child_means,
    edit_logits,
    logit_map,
)
from posediff_jax.process.bones import bone_tree
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17

H36M = ((0, 1, 2, 3), (0, 4, 5, 6), (0, 7, 8, 9, 10), (0, 7, 8, 11, 12, 13), (0, 7, 8, 14, 15, 16))
MPI = (
    *((14, 8, 9, 10), (14, 11, 12, 13), (14, 15, 1, 0)),
    *((14, 15, 1, 2, 3, 4), (14, 15, 1, 5, 6, 7), (14, 15, 1, 16)),
)
TREES = [(bone_tree(H36M_17), H36M), (bone_tree(MPI_INF_3DHP_17), MPI)]


def walked(logits, chains, *, once=False):
    logits, seen = logits.copy(), set()
    for chain in chains:
        for i in range(len(chain) - 2):
            pp, p, c = chain[i : i + 3]
            if once and (pp, p, c) in seen:
                continue
            seen.add((pp, p, c))
            source = logits[..., pp, p].copy()
            logits[..., p, c] = (logits[..., p, c] + source) / 2
            logits[..., c, p] = (logits[..., c, p] + source) / 2
    return logits


@pytest.mark.parametrize(("tree", "chains"), TREES, ids=["h36m", "3dhp"])
@pytest.mark.parametrize("walk", ["released", "once"])
def test_the_map_is_the_walk(tree, chains, walk):
    logits = np.random.default_rng(0).normal(size=(2, 3, 17, 17)).astype(np.float32)
    ours = edit_logits(logits, tree, walk=walk)
    np.testing.assert_allclose(ours, walked(logits, chains, once=walk == "once"), atol=1e-6)


@pytest.mark.parametrize(
    ("target", "terms"),
    [
        ((7, 8), {(7, 8): 1 / 8, (0, 7): 7 / 8}),
        ((8, 7), {(8, 7): 1 / 8, (0, 7): 7 / 8}),
        ((8, 14), {(8, 14): 1 / 2, (7, 8): 1 / 16, (0, 7): 7 / 16}),
        (
            (16, 15),
            {(16, 15): 1 / 2, (14, 15): 1 / 4, (8, 14): 1 / 8, (7, 8): 1 / 64, (0, 7): 7 / 64},
        ),
        ((0, 1), {(0, 1): 1.0}),
        ((3, 16), {(3, 16): 1.0}),
    ],
)
def test_closed_form(target, terms):
    row = logit_map(H36M_17)[target[0] * 17 + target[1]]
    expected = np.zeros((17, 17))
    for (i, j), weight in terms.items():
        expected[i, j] = weight
    np.testing.assert_array_equal(row.reshape(17, 17), expected)


def test_another_walk():
    with pytest.raises(ValueError, match="walk: expected 'released' or 'once', got 'twice'"):
        logit_map(H36M_17, walk="twice")


def test_child_means():
    x = np.random.default_rng(0).normal(size=(2, 5, 17, 3)).astype(np.float32)
    y = child_means(x, H36M_17)
    np.testing.assert_allclose(y[..., 8, :], x[..., [8, 9, 11, 14], :].mean(-2), atol=1e-6)
    np.testing.assert_array_equal(y[..., 16, :], x[..., 16, :])


class TestLayout:
    def test_released(self):
        frames, joints = 5, 17
        m = np.random.default_rng(0).normal(size=(2, frames, joints, 3)).astype(np.float32)
        y = np.asarray(arrange_children(m, "released"))
        for k, j in np.ndindex(frames, joints):
            flat = j * frames + k
            np.testing.assert_array_equal(y[:, k, j], m[:, flat // joints, flat % joints])

    def test_joint(self):
        m = np.zeros((17, 17, 1))
        assert arrange_children(m, "joint") is m

    def test_as_many_frames_as_joints(self):
        with pytest.raises(ValueError, match=r"num_frames: with 17 frames.*child_layout='joint'"):
            arrange_children(np.zeros((17, 17, 1)), "released")

    def test_unknown(self):
        with pytest.raises(ValueError, match="child_layout: expected 'released' or 'joint'"):
            arrange_children(np.zeros((5, 17, 1)), "paper")
