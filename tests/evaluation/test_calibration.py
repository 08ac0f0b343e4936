"""Calibration figures against closed forms, and against hypotheses whose calibration is known."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

from posediff_jax.evaluation.calibration import (
    coverage_error,
    crps,
    energy_score,
    truth_ranks,
)

RNG = np.random.default_rng(0)


def rank_error(hypotheses, target):
    ranks = np.asarray(truth_ranks(hypotheses, target))
    return coverage_error(np.bincount(ranks.ravel(), minlength=hypotheses.shape[1] + 1))


class TestCoverage:
    def test_ranks_count_the_hypotheses_below(self):
        hypotheses = np.array([[1.0, 5.0, 3.0]])[..., None]
        for truth, rank in ((0.0, 0), (2.0, 1), (4.0, 2), (6.0, 3)):
            assert truth_ranks(hypotheses, np.full((1, 1), truth)).tolist() == [[rank]]

    def test_draws_from_the_same_distribution_are_calibrated(self):
        x = RNG.normal(size=(4000, 11, 1, 5, 3))
        assert rank_error(x[:, 1:], x[:, 0]) < 0.005

    @pytest.mark.parametrize("scale", [0.1, 0.5, 2.0])
    def test_wrong_spread_has_the_error_of_its_distribution(self, scale):
        """Draws N(0, scale^2), truth N(0, 1): F(k) is the mean of Phi at the k-th ordered draw."""
        truth, draws = RNG.normal(size=(40000, 1)), scale * RNG.normal(size=(40000, 9, 1))
        probability = norm.cdf(scale * np.sort(RNG.normal(size=(100000, 9)), axis=1)).mean(axis=0)
        expected = np.abs(probability - np.arange(1, 10) / 10).mean()
        assert rank_error(draws, truth) == pytest.approx(expected, abs=0.01)

    def test_equal_hypotheses_tend_to_a_quarter(self):
        truth, draws = RNG.normal(size=(20000, 1)), np.zeros((20000, 99, 1))
        assert rank_error(draws, truth) == pytest.approx(0.25, abs=0.01)

    @pytest.mark.parametrize("counts", [[3], [], [0, 0, 0], np.ones((2, 2))])
    def test_errors(self, counts):
        with pytest.raises(ValueError, match="rank_counts: expected counts"):
            coverage_error(counts)


class TestCrps:
    def test_closed_form_of_a_normal(self):
        """CRPS(N(0, 1), y) = y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)."""
        y = np.array([-1.0, 0.3, 2.0])
        draws = RNG.normal(size=(1, 200_000, 1)) + np.zeros((1, 1, 3))
        expected = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
        np.testing.assert_allclose(crps(draws, y[None])[0], expected, atol=0.01)

    def test_fair_whatever_the_number_of_draws(self):
        y = RNG.normal(size=(20000, 1))
        small, large = (
            float(np.mean(crps(RNG.normal(size=(20000, count, 1)), y))) for count in (2, 50)
        )
        assert small == pytest.approx(large, abs=0.015)

    def test_against_the_sum_over_pairs(self):
        x, y = RNG.normal(size=(4, 6, 5)), RNG.normal(size=(4, 5))
        pairs = np.abs(x[:, :, None] - x[:, None]).sum(axis=(1, 2)) / (6 * 5)
        expected = np.abs(x - y[:, None]).mean(axis=1) - pairs / 2
        with jax.enable_x64(True):
            np.testing.assert_allclose(crps(x, y), expected, atol=1e-12)

    def test_one_hypothesis_has_its_absolute_error(self):
        x, y = RNG.normal(size=(4, 1, 5)), RNG.normal(size=(4, 5))
        np.testing.assert_allclose(crps(x, y), np.abs(x[:, 0] - y), rtol=1e-6)


class TestEnergyScore:
    def test_against_the_sum_over_pairs(self):
        x, y = RNG.normal(size=(4, 6, 5, 3)), RNG.normal(size=(4, 5, 3))
        distances = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1).sum(axis=(1, 2)) / (6 * 5)
        expected = np.linalg.norm(x - y[:, None], axis=-1).mean(axis=1) - distances / 2
        with jax.enable_x64(True):
            np.testing.assert_allclose(energy_score(x, y), expected, atol=1e-12)

    def test_one_hypothesis_has_its_distance(self):
        x, y = RNG.normal(size=(4, 1, 5, 3)), RNG.normal(size=(4, 5, 3))
        expected = np.linalg.norm(x[:, 0] - y, axis=-1)
        np.testing.assert_allclose(energy_score(x, y), expected, rtol=1e-5)

    def test_the_right_spread_scores_best(self):
        truth = RNG.normal(size=(5000, 2, 3))
        scores = [
            np.mean(energy_score(scale * RNG.normal(size=(5000, 20, 2, 3)), truth))
            for scale in (0.3, 1.0, 3.0)
        ]
        assert scores[1] < min(scores[0], scores[2])


@pytest.mark.parametrize("score", [truth_ranks, crps, energy_score])
def test_shapes_must_fit(score):
    with pytest.raises(ValueError, match="target: expected"):
        score(np.zeros((2, 3, 4, 3)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="hypotheses: expected hypotheses on axis 1"):
        score(np.zeros((2, 0, 3)), np.zeros((2, 3)))
