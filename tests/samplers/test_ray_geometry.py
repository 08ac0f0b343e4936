"""Rays and translations against least squares by SciPy, NumPy and exact projections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares

from posediff_jax.samplers.ray_geometry import (
    clamp_confidence,
    snap_to_rays,
    solve_translation,
    unit_rays,
)

RNG = np.random.default_rng(0)
POSE = RNG.normal(size=(4, 17, 3)).astype(np.float32) * 0.3
TRUTH = np.array([[0.2, -0.3, 4.0], [1.0, 0.5, 7.0], [-0.5, 0.0, 2.5], [0, 0, 10]], np.float32)
POINTS = POSE + TRUTH[:, None]
RAYS = POINTS / POINTS[..., 2:]
NOISY = RAYS + np.append(RNG.normal(size=(4, 17, 2)) * 0.01, np.zeros((4, 17, 1)), -1).astype("f4")


def test_exact_rays_give_the_exact_translation():
    np.testing.assert_allclose(solve_translation(RAYS, POSE), TRUTH, atol=2e-5)


def test_minimises_the_stated_residual():
    """SciPy's minimum, rows weighted by c^2."""
    confidence = RNG.uniform(0.1, 1, (4, 17))
    with jax.enable_x64(True):
        ours = solve_translation(np.float64(NOISY), np.float64(POSE), confidence=confidence)
    for rays, pose, c, T in zip(NOISY, POSE, confidence, ours, strict=True):

        def residual(translation, rays=rays, pose=pose, c=c):
            X = np.float64(pose) + translation
            return (c[:, None] ** 2 * (X[:, :2] - X[:, 2:] * rays[:, :2])).ravel()

        np.testing.assert_allclose(least_squares(residual, np.ones(3)).x, T, atol=1e-6)


def test_each_item_is_fitted_alone():
    together = solve_translation(NOISY, POSE)
    alone = jax.vmap(lambda r, p: solve_translation(r, p))(NOISY, POSE)
    np.testing.assert_allclose(alone, together, rtol=1e-6)
    other = POSE.copy()
    other[0] *= 2
    np.testing.assert_array_equal(solve_translation(NOISY, other)[1:], together[1:])


def test_one_scale_for_all_confidences_changes_nothing():
    c = np.full((4, 17), 0.5, np.float32)
    np.testing.assert_allclose(
        solve_translation(NOISY, POSE, confidence=c), solve_translation(NOISY, POSE), rtol=1e-5
    )


def test_confidence_is_clamped():
    np.testing.assert_array_equal(
        clamp_confidence(np.float32([0, 1e-6, 0.3, 1.7])), np.float32([1e-4, 1e-4, 0.3, 1])
    )
    c = RNG.uniform(0, 2, (4, 17)).astype(np.float32)
    np.testing.assert_array_equal(
        solve_translation(NOISY, POSE, confidence=c),
        solve_translation(NOISY, POSE, confidence=np.clip(c, 1e-4, 1)),
    )


def test_a_pose_inside_out_is_put_in_front():
    """Rays that fit the mirrored pose at -T: the whole vector changes its sign."""
    behind = POSE - TRUTH[:, None]
    rays = behind / behind[..., 2:]
    np.testing.assert_allclose(solve_translation(rays, POSE), TRUTH, atol=2e-5)


def test_coincident_rays_are_flagged_alone():
    rays = RAYS.copy()
    rays[1] = [0.1, 0.2, 1.0]
    T = solve_translation(rays, POSE)
    assert np.isnan(T[1]).all()
    np.testing.assert_array_equal(T[0], solve_translation(RAYS, POSE)[0])


class TestSnap:
    directions = unit_rays(jnp.asarray(NOISY))

    def test_lands_on_the_rays(self):
        x = snap_to_rays(self.directions, POSE, TRUTH) + TRUTH[:, None]
        np.testing.assert_allclose(x / x[..., 2:], NOISY, atol=6e-6)

    def test_moves_at_right_angles(self):
        moved = snap_to_rays(self.directions, POSE, TRUTH) - POSE
        np.testing.assert_allclose(jnp.sum(moved * self.directions, axis=-1), 0, atol=6e-6)

    def test_once_is_enough(self):
        once = snap_to_rays(self.directions, POSE, TRUTH)
        np.testing.assert_allclose(snap_to_rays(self.directions, once, TRUTH), once, atol=6e-6)

    def test_a_pose_on_its_rays_stays(self):
        stays = snap_to_rays(unit_rays(jnp.asarray(RAYS)), POSE, TRUTH)
        np.testing.assert_allclose(stays, POSE, atol=6e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve_translation(RAYS, POSE[:, :16]), "rays, pose: expected the same"),
        (lambda: solve_translation(RAYS, POSE, confidence=RAYS), "weights: expected"),
        (lambda: snap_to_rays(RAYS, POSE[:, :16], TRUTH), "directions, pose: expected the same"),
        (lambda: snap_to_rays(RAYS, POSE, TRUTH[:, :2]), r"translation: expected \(\.\.\., 3\)"),
    ],
)
def test_bad_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
