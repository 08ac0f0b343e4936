"""Feet that hold and floors that bear."""

import numpy as np

from posediff_jax.data.contact import settle
from posediff_jax.data.kinematics import forward_kinematics, random_body

BODY = random_body(np.random.default_rng(3))
LEFT_ANKLE, RIGHT_ANKLE = 6, 3


def standing_on_left(frames, **extra):
    """The right knee is up; the left hip swings, so that the body must move over the left foot."""
    swing = np.linspace(20.0, -15.0, frames)
    angles = {"left_hip_flexion": swing, "right_hip_flexion": swing + 30.0}
    angles["right_knee_flexion"] = np.full(frames, 80.0)
    return forward_kinematics(angles | extra, BODY)


def test_the_foot_that_bears_the_body_does_not_slide():
    relative = standing_on_left(40)
    root = settle(relative, stature=BODY.stature, seated=np.zeros(40))
    foot = (relative + root[:, None])[:, LEFT_ANKLE]
    assert np.ptp(root[:, 2]) > 0.3
    assert np.ptp(foot, axis=0).max() < 0.002


def test_no_joint_is_below_the_floor_and_one_is_close_to_it():
    relative = standing_on_left(40, root_roll=np.linspace(-90, 90, 40))
    joints = relative + settle(relative, stature=BODY.stature, seated=np.zeros(40))[:, None]
    lowest = joints[..., 1].min(axis=1)
    assert (lowest > 0.0).all()
    assert (lowest < 0.15).all()


def test_a_seated_body_stays_where_its_pelvis_is():
    root = settle(standing_on_left(40), stature=BODY.stature, seated=np.ones(40))
    assert np.ptp(root[:, [0, 2]], axis=0).max() == 0.0
