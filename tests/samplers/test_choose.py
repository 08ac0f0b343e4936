"""Choosing among hypotheses, where the right answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.calibration import make_camera
from posediff_jax.camera import project
from posediff_jax.process.sdes import SubVP, perturb
from posediff_jax.samplers.aggregate import medoid_pose
from posediff_jax.samplers.choose import (
    choose_least,
    denoising_energy,
    most_agreed,
    nearest_to_mean,
    reprojection_and_energy,
    reprojection_error,
)

RNG = np.random.default_rng(0)
HYPOTHESES = RNG.normal(size=(2, 5, 3, 17, 3)).astype(np.float32)  # (B, H, F, J, 3)
RULES = pytest.mark.parametrize("rule", [nearest_to_mean, most_agreed])


def pushed(offsets):
    """Hypotheses that are one pose moved along x by these metres, `(1, H, 1, 17, 3)`."""
    offset = np.zeros((1, len(offsets), 1, 1, 3), np.float32)
    offset[0, :, 0, 0, 0] = offsets
    return HYPOTHESES[:1, :1, :1] + offset


class TestChooseLeast:
    def test_takes_pose_and_index(self):
        scores = RNG.normal(size=(2, 5, 3)).astype(np.float32)
        pose, index = choose_least(HYPOTHESES, scores)
        np.testing.assert_array_equal(index, scores.argmin(axis=1))
        for b, f in np.ndindex(2, 3):
            np.testing.assert_array_equal(pose[b, f], HYPOTHESES[b, index[b, f], f])

    def test_another_axis(self):
        scores = RNG.normal(size=(2, 5, 3)).astype(np.float32)
        pose, index = choose_least(HYPOTHESES, scores, axis=2)
        np.testing.assert_array_equal(index, scores.argmin(axis=2))
        np.testing.assert_array_equal(pose[1, 4], HYPOTHESES[1, 4, index[1, 4]])

    def test_an_infinite_score_is_better_than_no_answer(self):
        scores = np.full((2, 5, 3), np.inf, np.float32)
        scores[:, 0] = np.nan
        assert (choose_least(HYPOTHESES, scores)[1] == 1).all()

    @pytest.mark.parametrize("broken", ["score", "pose"])
    def test_what_has_no_answer_is_not_chosen(self, broken):
        scores, poses = np.zeros((2, 5, 3)), HYPOTHESES.copy()
        scores[:, 1:] = 1
        if broken == "score":
            scores[0, 0] = np.nan
        else:
            poses[0, 0, :, 3] = np.nan
        pose, index = choose_least(poses, scores)
        assert (index[0] == 1).all()
        assert (index[1] == 0).all()
        assert np.isfinite(pose).all()


class TestWithoutPrior:
    def test_nearest_to_mean(self):
        x = HYPOTHESES.astype(np.float64)
        distance = np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=-1).mean(axis=-1)
        pose, index = nearest_to_mean(HYPOTHESES)
        np.testing.assert_array_equal(index, distance.argmin(axis=1))
        np.testing.assert_array_equal(pose[0, 1], HYPOTHESES[0, index[0, 1], 1])

    def test_three_rules_three_answers(self):
        """A pair that agrees, a middle, and a far group that does not agree with itself."""
        poses = pushed([0.0, 0.02, 0.5, 0.7, 0.9, 1.1])
        assert most_agreed(poses)[1].item() in (0, 1)
        assert nearest_to_mean(poses)[1].item() == 2
        assert medoid_pose(poses)[1].item() in (2, 3)

    def test_a_third_neighbour_beats_two_at_no_distance(self):
        assert most_agreed(pushed([0.0, 0.0, 1.0, 1.02, 1.04]))[1].item() == 3

    def test_the_radius_decides_who_agrees(self):
        poses = pushed([0.0, 0.01, 1.0, 1.2, 1.4])
        assert most_agreed(poses, radius=0.05)[1].item() < 2
        assert most_agreed(poses, radius=0.3)[1].item() == 3

    @RULES
    def test_a_broken_hypothesis_changes_nothing(self, rule):
        with_broken = np.concatenate([HYPOTHESES[:, :1] * np.nan, HYPOTHESES], axis=1)
        pose, index = rule(with_broken)
        expected, plain = rule(HYPOTHESES)
        np.testing.assert_array_equal(index, plain + 1)
        np.testing.assert_array_equal(pose, expected)

    @RULES
    def test_all_broken_stays_broken(self, rule):
        pose, _ = rule(HYPOTHESES * np.nan)
        assert np.isnan(pose).all()


class TestReprojection:
    camera = make_camera([1100.0, 1150.0], [500.0, 480.0], [1000, 1000], radial=[-0.2, 0.2, 0.0])
    cameras = jax.tree.map(lambda x: np.broadcast_to(x, (2, *x.shape)), camera)
    T = np.broadcast_to(np.float32([0.1, 0.2, 5.0]), (2, 5, 3, 3))
    poses = HYPOTHESES * np.float32(0.3)
    pixels = np.asarray(project(camera, poses[:, 2] + T[:, 2, :, None]))

    def test_is_the_distance_in_the_image(self):
        confidence = RNG.uniform(size=(2, 3, 17)).astype(np.float32)
        errors = reprojection_error(
            self.poses, self.T, self.cameras, self.pixels, confidence=confidence
        )
        found = np.asarray(project(self.camera, self.poses + self.T[..., None, :]))
        distance = np.linalg.norm(found - self.pixels[:, None], axis=-1)
        expected = [
            [np.average(distance[b, h], weights=confidence[b], axis=-1) for h in range(5)]
            for b in range(2)
        ]
        np.testing.assert_allclose(errors, expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(choose_least(self.poses, errors)[1], 2)

    def test_a_missing_keypoint_may_hold_anything(self):
        confidence, pixels = np.ones((2, 3, 17), np.float32), self.pixels.copy()
        confidence[0, 1, 5], pixels[0, 1, 5] = 0, np.nan
        errors = reprojection_error(self.poses, self.T, self.cameras, pixels, confidence=confidence)
        assert np.isfinite(errors).all()
        np.testing.assert_allclose(errors[:, 2], 0, atol=1e-3)
        nothing = reprojection_error(
            self.poses, self.T, self.cameras, pixels, confidence=0 * confidence
        )
        assert np.isnan(nothing).all()


class TestReprojectionAndEnergy:
    PIXELS = np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)

    def test_only_ratios_count(self):
        """An energy half as large outweighs an error of up to four times, whatever the units."""
        for scale in (1e-3, 1.0, 1e3):
            for error, chosen in ((3.9, 1), (4.1, 0)):
                pixels = scale * np.array([1.0, error]).reshape(1, 2, 1)
                energy = np.array([0.4, 0.2]).reshape(1, 2, 1)
                assert np.argmin(reprojection_and_energy(pixels, energy)) == chosen

    def test_without_power_it_is_the_error(self):
        energy = np.array([0.3, 0.1, 0.2]).reshape(1, 3, 1)
        found = reprojection_and_energy(self.PIXELS, energy, power=0.0)
        np.testing.assert_array_equal(found, self.PIXELS)

    def test_shapes_that_differ_are_refused(self):
        with pytest.raises(ValueError, match=r"energy: expected .* \(1, 3, 1\), got \(1, 3\)"):
            reprojection_and_energy(self.PIXELS, self.PIXELS[..., 0])


class TestDenoisingEnergy:
    """Under N(mean, std^2), where z - eps = a z - b (x - mean)."""

    mean, std = HYPOTHESES[0, 0, 0] * np.float32(0.3), 0.1
    times = jnp.array([0.05, 0.1, 0.2])

    def energy(self, poses):
        def estimate_noise(x, t):
            signal, rate = SubVP().rates(t)
            return rate * (x - signal * self.mean) / ((signal * self.std) ** 2 + rate**2)

        def add_noise(x, t, z):
            return perturb(SubVP(), x, t, z)

        return denoising_energy(
            jax.random.key(0), estimate_noise, add_noise, poses, times=self.times
        )

    def test_ranks_by_density(self):
        steps = np.float32([0.0, 0.05, 0.1, 0.2, 0.4])
        direction = RNG.normal(size=(17, 3)).astype(np.float32)
        energy = self.energy(self.mean + steps[:, None, None] * direction)
        assert (jnp.diff(energy) > 0).all()

    def test_against_the_closed_form(self):
        poses = self.mean + 0.2 * RNG.normal(size=(4, 17, 3)).astype(np.float32)
        expected = 0
        for t, key in zip(self.times, jax.random.split(jax.random.key(0), 3), strict=True):
            z = np.asarray(jax.random.normal(key, (17, 3)), np.float64)
            signal, rate = (float(r) for r in SubVP().rates(t))
            total = (signal * self.std) ** 2 + rate**2
            a, b = (signal * self.std) ** 2 / total, rate * signal / total
            # The two signs of z cancel in the product with x - mean.
            square = (a * z) ** 2 + (b * (poses - self.mean)) ** 2
            expected += square.mean(axis=(1, 2)) / 3
        np.testing.assert_allclose(self.energy(poses), expected, rtol=1e-4)

    def test_the_same_pose_has_the_same_energy_anywhere(self):
        poses = np.broadcast_to(self.mean, (2, 3, 17, 3))
        energy = self.energy(poses)
        assert energy.shape == (2, 3)
        np.testing.assert_allclose(energy, energy[0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_least(HYPOTHESES, np.zeros((2, 5))), r"scores: expected shape \(2, 5, 3\)"),
        (lambda: nearest_to_mean(HYPOTHESES, axis=3), "hypotheses: expected .* on axis 3, got"),
        (lambda: most_agreed(HYPOTHESES[:, :0]), "hypotheses: expected .* on axis 1, got"),
        (lambda: most_agreed(HYPOTHESES, radius=0.0), "radius: expected metres above 0, got 0.0"),
        (
            lambda: reprojection_error(HYPOTHESES, np.zeros((2, 3)), None, np.zeros((2, 3, 17, 2))),
            r"translation: expected shape \(2, 5, 3, 3\)",
        ),
        (
            lambda: reprojection_error(HYPOTHESES[0], None, None, np.zeros((2, 3, 17, 2))),
            r"hypotheses: expected \(B, H, F, J, 3\), got",
        ),
        (
            lambda: denoising_energy(None, None, None, HYPOTHESES, times=jnp.zeros(0)),
            r"poses, times: expected \(..., J, 3\) and \(K,\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
