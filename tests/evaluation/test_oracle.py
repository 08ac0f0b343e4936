"""Choosing by the ground truth, against plain loops."""

import numpy as np
import pytest

from posediff_jax.evaluation.oracle import (
    best_hypothesis,
    best_hypothesis_of_batch,
    best_joints,
    take_hypothesis,
)

RNG = np.random.default_rng(0)
ERRORS = RNG.uniform(size=(4, 5, 3)).astype(np.float32)
POSES = RNG.normal(size=(4, 5, 3, 17, 3)).astype(np.float32)


def test_is_the_minimum_of_each_frame():
    least, index = best_hypothesis(ERRORS)
    np.testing.assert_array_equal(least, ERRORS.min(axis=1))
    for b in range(4):
        for f in range(3):
            assert ERRORS[b, index[b, f], f] == least[b, f]


def test_takes_what_was_chosen():
    _, index = best_hypothesis(ERRORS)
    chosen = take_hypothesis(POSES, index)
    assert chosen.shape == (4, 3, 17, 3)
    for b in range(4):
        for f in range(3):
            np.testing.assert_array_equal(chosen[b, f], POSES[b, index[b, f], f])


def test_more_hypotheses_are_never_worse():
    few, many = (best_hypothesis(ERRORS[:, :n])[0] for n in (2, 5))
    assert (many <= few).all()


def test_without_an_answer_is_not_chosen():
    errors = ERRORS.copy()
    errors[0, :4, 0] = np.nan
    errors[1, :, 1] = np.nan
    least, index = best_hypothesis(errors)
    assert index[0, 0] == 4
    assert least[0, 0] == errors[0, 4, 0]
    assert np.isnan(least[1, 1])
    assert np.isnan(least).sum() == 1


def test_ties_go_to_the_first():
    assert best_hypothesis(np.ones((2, 3)))[1].tolist() == [0, 0]


class TestOneForTheBatch:
    def test_is_the_least_mean(self):
        least, index = best_hypothesis_of_batch(ERRORS)
        means = [ERRORS[:, h].mean() for h in range(5)]
        assert index == np.argmin(means)
        np.testing.assert_allclose(least, min(means), rtol=1e-6)

    def test_is_never_better_than_one_for_each_pose(self):
        assert best_hypothesis_of_batch(ERRORS)[0] > best_hypothesis(ERRORS)[0].mean()

    def test_masked_poses_do_not_count(self):
        mask = np.ones((4, 3))
        mask[1:, 1:] = 0
        errors = np.where(mask[:, None] > 0, ERRORS, np.nan)
        least, index = best_hypothesis_of_batch(errors, mask=mask)
        means = [errors[:, h][mask > 0].mean() for h in range(5)]
        assert index == np.argmin(means)
        np.testing.assert_allclose(least, min(means), rtol=1e-6)


def test_best_joints_are_the_nearest_ones():
    target = RNG.normal(size=(4, 3, 17, 3)).astype(np.float32)
    pose, index = best_joints(POSES, target)
    for b, f, j in np.ndindex(4, 3, 17):
        distance = np.linalg.norm(POSES[b, :, f, j] - target[b, f, j], axis=-1)
        assert index[b, f, j] == np.argmin(distance)
        np.testing.assert_array_equal(pose[b, f, j], POSES[b, index[b, f, j], f, j])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_hypothesis(np.ones(3)), "errors: expected hypotheses on axis 1"),
        (lambda: best_hypothesis(np.ones((3, 0))), "errors: expected hypotheses on axis 1"),
        (lambda: best_hypothesis_of_batch(ERRORS, axis=3), "errors: expected hypotheses on axis 3"),
        (lambda: best_hypothesis_of_batch(ERRORS, mask=np.ones(4)), r"mask: expected \(4, 3\)"),
        (lambda: best_joints(POSES, np.zeros((17, 3))), "target: expected the axes of hypotheses"),
        (lambda: take_hypothesis(POSES, np.zeros((4, 5), int)), "index: expected the leading axes"),
        (lambda: take_hypothesis(POSES, np.zeros(4, int), axis=3), "index: expected the leading"),
    ],
)
def test_bad_shapes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
