"""Following people by their keypoints."""

import numpy as np
import pytest

from posediff_jax.data.tracks import follow_people

BODY = np.concatenate([np.random.default_rng(0).uniform(0, 100, (17, 2)), np.ones((17, 1))], axis=1)


def at(x, *, missing=()):
    points = BODY + np.array([x, 0, 0])
    points[list(missing)] = 0
    return points


def test_people_keep_their_numbers_whatever_the_order():
    frames = [(0, [at(0), at(300)]), (1, [at(310), at(5)]), (2, [at(10), at(320)])]
    assert follow_people(frames) == [[0, 1], [1, 0], [0, 1]]


def test_the_nearest_pair_is_joined_first():
    """Somebody new between two people takes nobody's number."""
    assert follow_people([(0, [at(0)]), (1, [at(40), at(2)])]) == [[0], [1, 0]]


def test_missing_joints_say_nothing():
    frames = [(0, [at(0), at(300)]), (1, [at(300, missing=range(9)), at(0, missing=[3])])]
    assert follow_people(frames) == [[0, 1], [1, 0]]
    apart = [(0, [at(0, missing=range(9))]), (1, [at(0, missing=range(9, 17))])]
    assert follow_people(apart) == [[0], [1]]


def test_patience_and_reach():
    frames = [(0, [at(0)]), (20, [at(0)])]
    assert follow_people(frames) == [[0], [0]]
    assert follow_people(frames, patience=10) == [[0], [1]]
    jump = [(0, [at(0)]), (1, [at(60)])]
    assert follow_people(jump) == [[0], [0]]
    assert follow_people(jump, reach=0.2) == [[0], [1]]
    with pytest.raises(ValueError, match="reach, patience: expected"):
        follow_people(frames, reach=0)
