"""Each angle turns what anatomy says it turns."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posediff_jax.data.kinematics import (
    LIMITS,
    ROOT_ANGLES,
    clip_angles,
    forward_kinematics,
    random_body,
)
from posediff_jax.skeleton import H36M_17

BODY = random_body(np.random.default_rng(0))
JOINT = {name: i for i, name in enumerate(H36M_17.joints)}


def pose(**degrees):
    return forward_kinematics({n: np.array([d]) for n, d in degrees.items()}, BODY)[0]


def bone(points, child, parent):
    return points[JOINT[child]] - points[JOINT[parent]]


def random_angles(rng, frames):
    """Angles anywhere within the limits."""
    angles = {name: rng.uniform(*limits, frames) for name, limits in LIMITS.items()}
    return angles | {name: rng.uniform(-180, 180, frames) for name in ROOT_ANGLES}


def test_without_angles_the_body_stands_upright_facing_z_with_hanging_arms():
    points = pose()
    for side, x in (("left", 1.0), ("right", -1.0)):
        assert np.sign(points[JOINT[f"{side}_hip"], 0]) == x
        for child, parent in (("knee", "hip"), ("ankle", "knee"), ("elbow", "shoulder")):
            down = bone(points, f"{side}_{child}", f"{side}_{parent}")
            np.testing.assert_allclose(down, [0, -np.linalg.norm(down), 0], atol=1e-12)
    assert points[JOINT["neck"], 2] > 0.02  # the face looks along +z


def test_bones_keep_their_lengths_whatever_the_angles():
    rng = np.random.default_rng(1)
    moved, still = forward_kinematics(random_angles(rng, 50), BODY), pose()
    for child, parent in H36M_17.bones:
        lengths = np.linalg.norm(moved[:, child] - moved[:, parent], axis=-1)
        np.testing.assert_allclose(lengths, np.linalg.norm(still[child] - still[parent]), rtol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("angle", "child", "parent", "forward"),
    [
        ("hip_flexion", "knee", "hip", 1.0),
        ("knee_flexion", "ankle", "knee", -1.0),
        ("shoulder_flexion", "elbow", "shoulder", 1.0),
        ("elbow_flexion", "wrist", "elbow", 1.0),
    ],
)
def test_flexion_turns_the_limb_by_its_angle_forward_or_for_the_knee_back(
    side, angle, child, parent, forward
):
    points = pose(**{f"{side}_{angle}": 40.0})
    limb = bone(points, f"{side}_{child}", f"{side}_{parent}")
    expected = [0, -np.cos(np.radians(40)), forward * np.sin(np.radians(40))]
    np.testing.assert_allclose(limb / np.linalg.norm(limb), expected, atol=1e-12)


@pytest.mark.parametrize(("side", "outward"), [("left", 1.0), ("right", -1.0)])
def test_abduction_takes_limbs_outward_and_rotation_turns_them_inward(side, outward):
    points = pose(**{f"{side}_shoulder_abduction": 90.0, f"{side}_hip_abduction": 30.0})
    arm, thigh = (
        bone(points, f"{side}_elbow", f"{side}_shoulder"),
        bone(points, f"{side}_knee", f"{side}_hip"),
    )
    np.testing.assert_allclose(arm / np.linalg.norm(arm), [outward, 0, 0], atol=1e-12)
    assert outward * thigh[0] == pytest.approx(0.5 * BODY.thigh)

    points = pose(**{f"{side}_elbow_flexion": 90.0, f"{side}_shoulder_rotation": 60.0})
    forearm = bone(points, f"{side}_wrist", f"{side}_elbow")
    assert outward * forearm[0] < -0.5 * BODY.forearm


def test_root_angles_turn_the_whole_body_yaw_outermost():
    angles = {"root_yaw": 70.0, "root_pitch": -35.0, "root_roll": 20.0}
    rotation = Rotation.from_euler("YXZ", list(angles.values()), degrees=True)
    np.testing.assert_allclose(pose(**angles), rotation.apply(pose()), atol=1e-12)


def test_trunk_flexion_leans_forward_and_bends_add_up_along_the_trunk():
    points = pose(lumbar_flexion=20.0, thoracic_flexion=15.0)
    for child, parent, total in (("spine", "pelvis", 20.0), ("thorax", "spine", 35.0)):
        segment = bone(points, child, parent)
        assert np.degrees(np.arctan2(segment[2], segment[1])) == pytest.approx(total)


def test_bodies_differ_but_stay_human():
    rng = np.random.default_rng(2)
    bodies = [random_body(rng) for _ in range(200)]
    statures = np.array([b.stature for b in bodies])
    assert 1.5 <= statures.min() < 1.55 < 1.9 < statures.max() <= 1.95
    ratios = np.array([b.thigh / b.shin for b in bodies])
    assert ratios.std() > 0.02
    assert 0.8 < ratios.min() < ratios.max() < 1.25


def test_clipping_holds_joints_within_limits_and_leaves_the_root_alone():
    clipped = clip_angles(
        {"left_knee_flexion": np.array([-5.0, 50.0, 170.0]), "root_yaw": np.array([720.0])}
    )
    assert clipped["left_knee_flexion"].tolist() == [0.0, 50.0, LIMITS["left_knee_flexion"][1]]
    assert clipped["root_yaw"].tolist() == [720.0]


def test_unknown_angles_are_refused():
    with pytest.raises(ValueError, match=r"knee_bend"):
        pose(knee_bend=10.0)
