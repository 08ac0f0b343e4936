"""Properties of generated motion, measured on positions alone."""

import functools

import numpy as np
import pytest

from posediff_jax.data.kinematics import LIMITS
from posediff_jax.data.procedural import MOTIONS, procedural_motion
from posediff_jax.skeleton import H36M_17

JOINT = {name: i for i, name in enumerate(H36M_17.joints)}
FPS = 50.0


@functools.cache
def clips():
    """Ten clips of each kind, four seconds each."""
    return procedural_motion(7, num_clips=70, frames=200, fps=FPS)


def of_kind(kind):
    return [c.poses.astype(np.float64) for c in clips() if c.action == kind]


def bend(poses, first, middle, last):
    """Degrees between the two bones that meet at `middle`; 0 is straight."""
    a = poses[:, JOINT[middle]] - poses[:, JOINT[first]]
    b = poses[:, JOINT[last]] - poses[:, JOINT[middle]]
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def test_same_seed_same_motion_and_more_clips_keep_the_first_ones():
    few = procedural_motion(3, num_clips=3, frames=20)
    many = procedural_motion(3, num_clips=9, frames=20)
    for a, b in zip(few, many, strict=False):
        assert (a.name, a.action, a.subject) == (b.name, b.action, b.subject)
        np.testing.assert_array_equal(a.poses, b.poses)
    other = procedural_motion(4, num_clips=3, frames=20)
    assert all(np.abs(a.poses - b.poses).max() > 0.01 for a, b in zip(few, other, strict=True))


def test_kinds_take_turns_and_poses_are_float32():
    assert [c.action for c in clips()[:8]] == [*MOTIONS, MOTIONS[0]]
    assert {c.poses.dtype for c in clips()} == {np.dtype(np.float32)}
    only = procedural_motion(0, num_clips=3, frames=2, kinds=("lying", "sitting"))
    assert [c.action for c in only] == ["lying", "sitting", "lying"]


def test_bone_lengths_are_constant_in_a_clip_and_symmetric_and_differ_between_clips():
    thighs = []
    for clip in clips():
        poses = clip.poses.astype(np.float64)
        lengths = {
            child: np.linalg.norm(poses[:, child] - poses[:, parent], axis=-1)
            for child, parent in H36M_17.bones
        }
        assert max(np.ptp(x) for x in lengths.values()) < 1e-5
        for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
            assert lengths[left].mean() == pytest.approx(lengths[right].mean(), abs=1e-5)
        thighs.append(lengths[JOINT["left_knee"]].mean())
    assert np.ptp(thighs) > 0.05


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("joints", "limit"),
    [(("hip", "knee", "ankle"), "knee_flexion"), (("shoulder", "elbow", "wrist"), "elbow_flexion")],
)
def test_knees_and_elbows_bend_no_further_than_their_limits_and_use_the_range(side, joints, limit):
    angles = [bend(c.poses, *(f"{side}_{j}" for j in joints)) for c in clips()]
    greatest = LIMITS[f"{side}_{limit}"][1]
    assert 0.75 * greatest < np.max(angles) < greatest + 0.1


@pytest.mark.parametrize("side", ["left", "right"])
def test_knees_never_bend_forward(side):
    """The axis that takes the thigh to the shin points to the body's left, as for a hinge."""
    for clip in clips():
        p = clip.poses.astype(np.float64)
        thigh = p[:, JOINT[f"{side}_knee"]] - p[:, JOINT[f"{side}_hip"]]
        shin = p[:, JOINT[f"{side}_ankle"]] - p[:, JOINT[f"{side}_knee"]]
        across = p[:, JOINT["left_hip"]] - p[:, JOINT["right_hip"]]
        hinge = np.cross(thigh, shin)
        hinge /= np.linalg.norm(across, axis=-1, keepdims=True)
        assert (hinge * across).sum(-1).min() > -0.01


def test_nothing_is_below_the_floor_and_something_always_touches_it():
    for clip in clips():
        lowest = clip.poses[..., 1].min(axis=1)
        assert lowest.min() > -0.02
        assert lowest.max() < 0.15


def test_motion_is_smooth():
    for clip in clips():
        velocity = np.linalg.norm(np.diff(clip.poses, axis=0), axis=-1) * FPS
        acceleration = np.linalg.norm(np.diff(clip.poses, 2, axis=0), axis=-1) * FPS**2
        assert velocity.max() < 10.0, clip.name
        assert acceleration.max() < 150.0, clip.name


def test_kinds_are_what_they_say():
    def height(kind):
        return np.concatenate([p[:, 0, 1] for p in of_kind(kind)])

    def travel(kind):
        return np.array([np.linalg.norm(p[-1, 0, [0, 2]] - p[0, 0, [0, 2]]) for p in of_kind(kind)])

    def upright(kind):
        return np.concatenate([p[:, JOINT["thorax"], 1] - p[:, 0, 1] for p in of_kind(kind)])

    def turned(kind):
        across = [p[:, JOINT["left_hip"]] - p[:, JOINT["right_hip"]] for p in of_kind(kind)]
        yaw = [np.unwrap(np.arctan2(a[:, 0], a[:, 2])) for a in across]
        return np.array([np.degrees(np.ptp(y)) for y in yaw])

    assert np.median(travel("walking")) > 1.0
    assert max(np.median(travel(k)) for k in MOTIONS if k != "walking") < 0.5
    assert np.median(turned("turning")) > 90.0
    assert np.median(height("lying")) < 0.3
    assert (
        np.median(height("sitting")) < np.median(height("crouching")) < np.median(height("walking"))
    )
    assert np.median(height("kneeling")) < 0.75 * np.median(height("reaching"))
    assert np.median(upright("lying")) < 0.25 < 0.35 < np.median(upright("reaching"))
    wrists = np.concatenate([p[:, [13, 16]] - p[:, [11, 14]] for p in of_kind("reaching")])
    assert np.ptp(wrists[..., 1]) > 0.8


def test_who_leans_reaches_down_on_straight_legs():
    poses = np.concatenate(
        [c.poses for c in procedural_motion(0, num_clips=12, frames=100, kinds=("leaning",))]
    )
    trunk = poses[:, JOINT["thorax"]] - poses[:, 0]
    lean = np.degrees(np.arccos(trunk[:, 1] / np.linalg.norm(trunk, axis=-1)))
    assert np.median(lean) > 30
    knees = poses[:, [JOINT["left_knee"], JOINT["right_knee"]], 1].mean(axis=1)
    wrists = poses[:, [JOINT["left_wrist"], JOINT["right_wrist"]], 1].min(axis=1)
    assert 0.1 < (wrists < knees).mean() < 0.9
    thigh = bend(poses, "left_hip", "left_knee", "left_ankle")
    assert np.median(thigh) < 45
    assert poses[..., 1].min() > -0.02


def test_walkers_feet_hold_while_they_bear_weight():
    slides = []
    for poses in of_kind("walking"):
        feet = poses[:, [JOINT["left_ankle"], JOINT["right_ankle"]]]
        bearing = feet[..., 1] < feet[..., 1].min(axis=1, keepdims=True) + 1e-9
        speed = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1) * FPS
        slides.append(speed[bearing[1:] & bearing[:-1]])
    assert np.median(np.concatenate(slides)) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 0}, "num_clips: expected at least 1, got 0"),
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"fps": 0.0}, "fps"),
        ({"kinds": ("walking", "flying")}, "kinds: expected some of .*'flying'"),
        ({"kinds": ()}, "kinds"),
        ({"stature": (1.9, 1.5)}, "stature"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        procedural_motion(0, **({"num_clips": 1, "frames": 2} | options))


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed: expected at least 0, got -1"):
        procedural_motion(-1, num_clips=1, frames=2)
