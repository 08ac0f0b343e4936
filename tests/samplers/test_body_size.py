"""Size: the length of a skeleton, and depths at which a pose is as large as its keypoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.data.kinematics import forward_kinematics, random_body
from posediff_jax.samplers.body_size import (
    SKELETON_SHARE,
    extent_depth,
    extent_translation,
    skeleton_height,
)
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17

RNG = np.random.default_rng(0)
POSE = (RNG.normal(size=(17, 3)) * [0.25, 0.45, 0.05]).astype(np.float32)
USED = np.ones(17, bool)


def rays_of(points):
    return (points / points[..., 2:]).astype(np.float32)


def test_the_height_is_that_of_the_body_whatever_it_does():
    body = random_body(np.random.default_rng(3))
    upright = {"root_pitch": np.zeros(1)}
    seated = {"left_hip_flexion": np.array([90.0]), "right_knee_flexion": np.array([80.0])}
    legs = body.thigh + body.shin
    expected = legs + body.lumbar + body.thoracic + body.neck + body.head
    for angles in (upright, seated):
        pose = forward_kinematics(angles, body)
        np.testing.assert_allclose(skeleton_height(pose, H36M_17), expected, rtol=1e-5)


def test_the_share_is_that_of_mean_proportions():
    rng = np.random.default_rng(0)
    bodies = [random_body(rng) for _ in range(400)]
    poses = np.concatenate([forward_kinematics({"root_yaw": np.zeros(1)}, b) for b in bodies])
    shares = np.asarray(skeleton_height(poses, H36M_17)) / [b.stature for b in bodies]
    np.testing.assert_allclose(shares.mean(), SKELETON_SHARE, atol=0.003)


def test_a_skeleton_without_the_joints_is_refused():
    with pytest.raises(ValueError, match=r"poses: expected \(..., 17, 3\)"):
        skeleton_height(np.zeros((16, 3)), H36M_17)
    # Its tree has the head on the neck, its joints have these names.
    assert skeleton_height(POSE, MPI_INF_3DHP_17) > 0


class TestExtent:
    def test_a_flat_pose_is_found_where_it_is(self):
        flat = POSE * np.float32([1, 1, 0])
        T = np.float32([0.3, -0.2, 4.0])
        rays = rays_of(flat + T)
        np.testing.assert_allclose(extent_depth(rays, flat, used=USED), 4.0, rtol=1e-5)
        np.testing.assert_allclose(extent_translation(rays, flat, used=USED), T, atol=1e-5)

    def test_a_turn_in_the_image_changes_nothing(self):
        rays = rays_of(POSE + np.float32([0, 0, 5]))
        turn = np.float32([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
        depths = [extent_depth(rays, p, used=USED) for p in (POSE, POSE @ turn.T)]
        np.testing.assert_allclose(*depths, rtol=1e-5)

    def test_joints_that_are_not_used_may_be_anything(self):
        used = USED.copy()
        used[[3, 7]] = False
        rays = rays_of(POSE + np.float32([0, 0, 5]))
        broken = np.where(used[:, None], rays, np.nan)
        for f in (extent_depth, extent_translation):
            found = f(jnp.asarray(broken), POSE, used=used)
            rest = f(rays[used], POSE[used], used=USED[used])
            np.testing.assert_allclose(found, rest, rtol=1e-5)

    def test_one_joint_says_nothing(self):
        rays = rays_of(POSE + np.float32([0, 0, 5]))
        depth = jax.jit(extent_depth)(rays, POSE, used=np.arange(17) < 1)
        assert np.isnan(depth)
