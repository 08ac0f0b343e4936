"""Score matching and augmentation of ZeDO's prior against formulas and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.process.sdes import VP, SubVP, perturb, score_from_noise
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems.score_prior import (
    augment_pose,
    draw_time,
    rotate_pose,
    score_matching_loss,
    turn_upright,
    vary_proportions,
)

POSE = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)


@pytest.mark.parametrize("sde", [SubVP(), VP()])
@pytest.mark.parametrize("weighting", ["sigma2", "likelihood"])
def test_loss_is_the_squared_score_error(sde, weighting):
    """Both weightings written with the score, as the papers do."""
    t = jnp.array([0.01, 0.3, 1.0])
    eps, z = jax.random.normal(jax.random.key(0), (2, 3, 17, 3))
    score, std = score_from_noise(sde, t, eps), sde.rates(t)[1][:, None, None]
    g = sde.diffusion(t)[:, None, None]
    error = score * std + z if weighting == "sigma2" else g * (score + z / std)
    half_sum, mean = (
        score_matching_loss(sde, t, eps, z, weighting=weighting, reduction=r)
        for r in ("half_sum", "mean")
    )
    np.testing.assert_allclose(half_sum, 0.5 * (error**2).sum(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(half_sum, mean * 51 / 2, rtol=1e-5)


def test_the_true_noise_has_no_loss():
    z = jnp.ones((4, 17, 3))
    np.testing.assert_array_equal(score_matching_loss(SubVP(), jnp.full(4, 0.1), z, z), 0)


def test_the_conditional_mean_has_the_least_loss():
    """For Gaussian data the exact noise estimate beats scaled ones."""
    sde, t, keys = SubVP(), jnp.full(4000, 0.3), jax.random.split(jax.random.key(0), 2)
    x0, z = 0.3 * jax.random.normal(keys[0], (4000, 2, 3)), jax.random.normal(keys[1], (4000, 2, 3))
    signal, std = (rate[0] for rate in sde.rates(t))
    exact = std / ((0.3 * signal) ** 2 + std**2) * perturb(sde, x0, t, z)
    low, best, high = (
        score_matching_loss(sde, t, factor * exact, z).mean() for factor in (0.9, 1.0, 1.1)
    )
    assert best < min(low, high)


def test_times_are_uniform():
    t = jax.vmap(lambda key: draw_time(key, SubVP()))(jax.random.split(jax.random.key(0), 4000))
    assert t.min() >= 1e-5
    assert t.max() <= 1
    np.testing.assert_allclose(jnp.histogram(t, bins=4, range=(0, 1))[0] / 4000, 0.25, atol=0.03)


class TestAugment:
    def draw(self, count=2000, **options):
        keys = jax.random.split(jax.random.key(0), count)
        return jax.vmap(lambda k: augment_pose(k, POSE, H36M_17, **options))(keys)

    def test_flip_alone(self):
        poses = self.draw(rotation_prob=0.0)
        mirrored = POSE * [-1, 1, 1]
        for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
            mirrored[[left, right]] = mirrored[[right, left]]
        flipped = jnp.all(jnp.isclose(poses, mirrored), axis=(1, 2))
        kept = jnp.all(poses == POSE, axis=(1, 2))
        assert (flipped ^ kept).all()
        np.testing.assert_allclose(flipped.mean(), 0.5, atol=0.04)

    def test_rotation_alone(self):
        poses = self.draw(flip_prob=0.0)
        turned = ~jnp.all(poses == POSE, axis=(1, 2))
        np.testing.assert_allclose(turned.mean(), 0.5, atol=0.04)
        # Rigid and proper: distances and the sign of a volume stay.
        lengths = np.broadcast_to(np.linalg.norm(POSE, axis=-1), (2000, 17))
        np.testing.assert_allclose(jnp.linalg.norm(poses, axis=-1), lengths, rtol=1e-4)
        volume = jnp.linalg.det(poses[:, 1:4])
        np.testing.assert_allclose(volume, np.linalg.det(POSE[1:4]), rtol=1e-3, atol=1e-4)

    def test_rotations_have_no_preferred_direction(self):
        poses = self.draw(flip_prob=0.0, rotation_prob=1.0)
        np.testing.assert_allclose(poses.mean(axis=0), 0, atol=0.15)
        direction = poses[:, 5] / jnp.linalg.norm(POSE[5])
        np.testing.assert_allclose(direction.T @ direction / 2000, np.eye(3) / 3, atol=0.03)

    def test_coins_are_independent(self):
        poses = self.draw()
        kept = jnp.all(poses == POSE, axis=(1, 2)).mean()
        np.testing.assert_allclose(kept, 0.25, atol=0.04)


def test_rotate_pose_is_a_product():
    R = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    np.testing.assert_allclose(rotate_pose(R, POSE), POSE @ R.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment_pose(jax.random.key(0), POSE[:16], H36M_17), "pose: expected"),
        (lambda: score_matching_loss(VP(), 0.1, POSE, POSE, weighting="x"), "weighting: expected"),
        (lambda: score_matching_loss(VP(), 0.1, POSE, POSE, reduction="x"), "reduction: expected"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class TestOtherCamerasAndBodies:
    def test_upright_people_stay_upright_but_for_the_tilt(self):
        up = jnp.array([[0.0, 0, 0], [0, -1.0, 0], [1.0, 0, 0]])
        keys = jax.random.split(jax.random.key(0), 2000)
        turned = jax.vmap(lambda k: turn_upright(k, up, tilt_degrees=(-10.0, 30.0)))(keys)
        head = turned[:, 1]
        np.testing.assert_allclose(head[:, 0], 0, atol=1e-5)
        # Seen from above a head is nearer than the feet: z falls.
        tilt = np.degrees(np.arctan2(-head[:, 2], -head[:, 1]))
        assert -10.01 < tilt.min() < -9
        assert 29 < tilt.max() < 30.01
        # All directions about the vertical: an arm points anywhere.
        yaw = np.arctan2(turned[:, 2, 2] / np.cos(np.radians(tilt)), turned[:, 2, 0])
        counts = np.histogram(yaw, bins=4, range=(-np.pi, np.pi))[0]
        np.testing.assert_allclose(counts / 2000, 0.25, atol=0.06)

    def test_another_body_has_the_same_posture_and_is_as_symmetric(self):
        keys = jax.random.split(jax.random.key(0), 500)
        other = jax.vmap(lambda k: vary_proportions(k, POSE, H36M_17, spread=0.1))(keys)
        np.testing.assert_allclose(other[:, 0], 0, atol=1e-6)
        factors = {}
        for child, parent in H36M_17.bones:
            before, after = POSE[child] - POSE[parent], other[:, child] - other[:, parent]
            length = np.linalg.norm(before)
            np.testing.assert_allclose(after @ before / length, np.linalg.norm(after, axis=1), 1e-4)
            factors[child] = np.linalg.norm(after, axis=1) / length
        for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
            np.testing.assert_allclose(factors[left], factors[right], rtol=1e-4)
        every = np.stack(list(factors.values()))
        assert 0.9**2 - 1e-4 < every.min() < 0.86 < 1.16 < every.max() < 1.1**2 + 1e-4
        # One factor for the whole body: bones that share nothing else go together.
        assert 0.3 < np.corrcoef(factors[2], factors[12])[0, 1] < 0.7
