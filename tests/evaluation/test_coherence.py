"""Coherence of poses against NumPy."""

import numpy as np
import pytest

from posediff_jax.data import procedural_motion
from posediff_jax.evaluation.coherence import segment_deviations, segment_std, symmetry_gap
from posediff_jax.skeleton import COCO_17, H36M_16, H36M_17, HUMANEVA_15, segments

POSES = np.random.default_rng(0).normal(size=(4, 6, 17, 3)).astype(np.float32)
# (child, parent) and pairs (left, right) of children, written down from the specification.
OFFICIAL = {
    (1, 0): "r", (2, 1): "r", (3, 2): "r", (4, 0): "l", (5, 4): "l", (6, 5): "l",
    (7, 0): "", (8, 7): "", (9, 8): "", (10, 9): "",
    (11, 7): "l", (12, 11): "l", (13, 12): "l", (14, 7): "r", (15, 14): "r", (16, 15): "r",
}  # fmt: skip
ANATOMICAL = {({11: (11, 8), 14: (14, 8)}.get(c, (c, p))): s for (c, p), s in OFFICIAL.items()}
LISTS = {"official": OFFICIAL, "anatomical": ANATOMICAL}


def lengths(poses, bones):
    return np.stack(
        [np.linalg.norm(poses[..., c, :] - poses[..., p, :], axis=-1) for c, p in LISTS[bones]], -1
    )


@pytest.mark.parametrize("bones", LISTS)
def test_segments_and_gap(bones):
    assert segments(H36M_17, bones=bones) == tuple(LISTS[bones])
    left, right = (np.array([s == side for s in LISTS[bones].values()]) for side in "lr")
    length = lengths(POSES, bones)
    expected = np.abs(length[..., left] - length[..., right]).mean(axis=-1)
    np.testing.assert_allclose(symmetry_gap(POSES, H36M_17, bones=bones), expected, rtol=1e-5)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("bones", LISTS)
def test_deviations(bones, ddof):
    expected = lengths(POSES, bones).std(axis=1, ddof=ddof)
    options = {"bones": bones, "ddof": ddof}
    np.testing.assert_allclose(segment_deviations(POSES, H36M_17, **options), expected, rtol=1e-4)
    np.testing.assert_allclose(
        segment_std(POSES, H36M_17, **options), expected.mean(axis=-1), rtol=1e-4
    )


def test_masked_frames_do_not_count():
    mask = np.ones((4, 6))
    mask[:, 4:] = 0
    poses = np.where(mask[..., None, None] > 0, POSES, np.nan)
    found = segment_std(poses, H36M_17, mask=mask)
    np.testing.assert_allclose(found, segment_std(POSES[:, :4], H36M_17), rtol=1e-5)


def test_a_rigid_body_is_coherent():
    """A real body has equal sides and keeps its bones; one longer shin is seen in both."""
    poses = procedural_motion(0, num_clips=1, frames=8)[0].poses[None]
    assert symmetry_gap(poses, H36M_17, bones="anatomical").max() < 1e-4
    assert segment_std(poses, H36M_17, bones="anatomical")[0] < 1e-4
    knee, ankle = 5, 6
    longer = poses.copy()
    longer[:, ::2, ankle] += 0.12 * (poses[:, ::2, ankle] - poses[:, ::2, knee])
    shin = np.linalg.norm(poses[0, 0, ankle] - poses[0, 0, knee])
    gap = symmetry_gap(longer, H36M_17, bones="anatomical")[0]
    np.testing.assert_allclose(gap[::2], 0.12 * shin / 6, rtol=1e-2)
    np.testing.assert_allclose(
        segment_std(longer, H36M_17, bones="anatomical", ddof=0), 0.06 * shin / 16, rtol=1e-2
    )


def test_other_skeletons():
    assert segments(H36M_16, bones="official")[9:13:3] == ((10, 7), (13, 7))
    for skeleton in (HUMANEVA_15, COCO_17):
        poses = POSES[..., : skeleton.num_joints, :]
        assert symmetry_gap(poses, skeleton, bones="anatomical").shape == (4, 6)
        with pytest.raises(ValueError, match=r"bones: 'official' is defined for \('h36m_17'"):
            symmetry_gap(poses, skeleton)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetry_gap(POSES[..., :16, :], H36M_17), r"poses: expected \(\.\.\., 17, 3\)"),
        (lambda: symmetry_gap(POSES, H36M_17, bones="stale"), "bones: expected one of"),
        (lambda: segment_std(POSES, H36M_17, ddof=2), "ddof: expected 0 or 1, got 2"),
        (lambda: segment_std(POSES[0, 0], H36M_17), r"poses: expected \(\.\.\., F, J, 3\)"),
        (lambda: segment_std(POSES, H36M_17, mask=np.ones((4, 5))), r"mask: expected \(4, 6\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
