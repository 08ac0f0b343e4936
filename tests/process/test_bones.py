"""Poses as bones: round trips, slots, mirroring, and bones of length zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.geometry import flip
from posediff_jax.process.bones import (
    Bones,
    bone_tree,
    compose,
    disentangle,
    flip_slots,
    from_slots,
    to_slots,
)
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17

TREES = [bone_tree(H36M_17), bone_tree(MPI_INF_3DHP_17)]
pytestmark = pytest.mark.parametrize("tree", TREES, ids=lambda t: t.name)


def pose_of(tree, lead=(2, 3)):
    pose = np.random.default_rng(0).normal(size=(*lead, 17, 3)).astype(np.float32)
    return pose - pose[..., tree.root, None, :]


def test_bones_by_hand(tree):
    pose = pose_of(tree)
    bones = disentangle(pose, tree)
    for i, (child, parent) in enumerate(tree.bones):
        vector = pose[..., child, :] - pose[..., parent, :]
        length = np.linalg.norm(vector, axis=-1, keepdims=True)
        np.testing.assert_allclose(bones.lengths[..., i, :], length, rtol=1e-6)
        np.testing.assert_allclose(bones.directions[..., i, :], vector / length, atol=1e-6)


def test_round_trip(tree):
    pose = pose_of(tree)
    np.testing.assert_allclose(compose(disentangle(pose, tree), tree), pose, atol=1e-5)


def test_a_slot_holds_the_bone_that_ends_in_its_joint(tree):
    bones = Bones(np.arange(48.0).reshape(16, 3), np.arange(16.0)[:, None])
    slots = to_slots(bones, tree)
    for i, (child, _) in enumerate(tree.bones):
        np.testing.assert_array_equal(slots.directions[child], bones.directions[i])
    np.testing.assert_array_equal(slots.lengths[tree.root], 0)
    for ours, expected in zip(from_slots(slots, tree), bones, strict=True):
        np.testing.assert_array_equal(ours, expected)
    root = Bones(np.full((1, 3), 7.0), np.full((1, 1), 8.0))
    filled = to_slots(bones, tree, root=root)
    np.testing.assert_array_equal(filled.directions[tree.root], 7)
    np.testing.assert_array_equal(filled.lengths[tree.root], 8)


def test_mirroring_slots_mirrors_the_pose(tree):
    pose = pose_of(tree)
    ours = flip_slots(to_slots(disentangle(pose, tree), tree), tree)
    expected = to_slots(disentangle(flip(pose, tree), tree), tree)
    np.testing.assert_allclose(ours.directions, expected.directions, atol=1e-6)
    np.testing.assert_allclose(ours.lengths, expected.lengths, atol=1e-6)


def test_bones_of_length_zero_have_finite_values_and_gradients(tree):
    def value(pose):
        bones = disentangle(pose, tree)
        return jnp.sum(bones.directions**2) + jnp.sum(bones.lengths)

    for pose in (np.zeros((17, 3), np.float32), pose_of(tree, ())):
        pose = pose.copy()
        pose[tree.bones[3][0]] = pose[tree.bones[3][1]]
        assert np.isfinite(jax.grad(value)(pose)).all()
        assert np.isfinite(np.concatenate(disentangle(pose, tree), axis=-1)).all()
