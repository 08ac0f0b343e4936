"""A library of human postures as joint angles, each drawn at random within its kind.

A posture is a dict from angle names (`kinematics.LIMITS`, `ROOT_ANGLES`) to degrees, with two more
entries that `procedural.py` consumes: `seated` (1 where the pelvis rests on something) and
`left_hang`, `right_hang` (1 where an arm hangs by gravity however the trunk leans).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from posediff_jax.data.kinematics import SIDES, Body, forward_kinematics

Posture = dict[str, float]

# Hips over ankles when both lie on the floor, as a share of stature.
FLOOR_DROP = 0.010

# Shoulder flexion, abduction, inward rotation, elbow flexion, hang.
_ARMS: dict[str, tuple[float, float, float, float, float]] = {
    "relaxed": (4.0, 8.0, 12.0, 18.0, 1.0),
    "pocket": (-14.0, 20.0, 25.0, 45.0, 0.0),
    "hip": (-18.0, 40.0, 45.0, 95.0, 0.0),
    "crossed": (32.0, 10.0, 70.0, 100.0, 0.0),
    "behind": (-40.0, 12.0, 55.0, 55.0, 0.0),
    "carry": (12.0, 10.0, 12.0, 85.0, 0.0),
    "phone": (38.0, 32.0, 25.0, 137.0, 0.0),
    "mouth": (42.0, 15.0, 38.0, 132.0, 0.0),
    "photo": (62.0, 18.0, 35.0, 112.0, 0.0),
    "wave": (15.0, 78.0, -65.0, 95.0, 0.0),
    "point": (82.0, 8.0, 8.0, 12.0, 0.0),
    "spread": (5.0, 85.0, 0.0, 15.0, 0.0),
    "overhead": (160.0, 12.0, 5.0, 18.0, 0.0),
    "desk": (28.0, 14.0, 15.0, 75.0, 0.0),
    "lap": (24.0, 8.0, 32.0, 55.0, 0.0),
    "knees": (42.0, 8.0, 8.0, 30.0, 0.0),
    "prop": (-38.0, 18.0, -15.0, 8.0, 0.0),
    "flat": (-2.0, 18.0, 5.0, 10.0, 0.0),
    "flat_prone": (-4.0, 18.0, -85.0, 12.0, 0.0),
    "reach_prone": (-2.0, 148.0, -85.0, 20.0, 0.0),
    "belly": (14.0, 18.0, 55.0, 85.0, 0.0),
    "cactus": (0.0, 82.0, -85.0, 80.0, 0.0),
    "pillow": (5.0, 125.0, -85.0, 125.0, 0.0),
    "low": (75.0, -5.0, 15.0, 70.0, 0.0),
}
STANDING_ARMS = ("relaxed", "pocket", "hip", "crossed", "behind", "carry", "phone", "mouth")
REACHING_ARMS = ("photo", "wave", "point", "spread", "overhead", "phone", "mouth")
SEATED_ARMS = ("lap", "knees", "desk", "crossed", "phone", "mouth")
SUPINE_ARMS = ("flat", "belly", "cactus", "pillow", "photo", "point")
# Palms down: outward rotation keeps the forearms in the plane of the floor.
PRONE_ARMS = ("flat_prone", "cactus", "pillow", "reach_prone")


def stand(rng: np.random.Generator, body: Body, *, lean: float = 0.0) -> Posture:
    """Upright on both feet, the weight more or less on one, the trunk bent by about `lean`."""
    pitch, roll = rng.normal(2.0, 3.0), rng.normal(0.0, 2.5)
    legs: Posture = {}
    for side in SIDES:
        knee = abs(rng.normal(3.0, 5.0))
        legs |= _leg(side, 0.5 * knee + rng.normal(0.0, 3.0), knee, pitch)
        legs[f"{side}_hip_abduction"] = rng.uniform(-1.0, 12.0)
        legs[f"{side}_hip_rotation"] = rng.uniform(-18.0, 4.0)
    return _level({**legs, **_trunk(rng, 2.0 + lean), "root_pitch": pitch, "root_roll": roll})


def step_up(rng: np.random.Generator, body: Body, front: str) -> Posture:
    """One knee raised in front, the weight on the other leg."""
    rear = _other(front)
    pitch = rng.normal(3.0, 2.0)
    legs = _leg(front, rng.uniform(35.0, 55.0), rng.uniform(45.0, 75.0), pitch)
    legs |= _leg(rear, rng.uniform(-5.0, 2.0), rng.uniform(3.0, 10.0), pitch)
    return {**legs, **_trunk(rng, 4.0), "root_pitch": pitch}


def split(rng: np.random.Generator, body: Body, front: str) -> Posture:
    """One foot a step ahead of the other."""
    pitch = rng.normal(3.0, 2.0)
    legs = _leg(front, rng.uniform(22.0, 34.0), rng.uniform(8.0, 25.0), pitch)
    legs |= _leg(_other(front), rng.uniform(-20.0, -12.0), rng.uniform(5.0, 18.0), pitch)
    return {**legs, **_trunk(rng, 4.0), "root_pitch": pitch}


def squat(
    rng: np.random.Generator, body: Body, knee: tuple[float, float] = (55.0, 130.0)
) -> Posture:
    """Both knees bent, the trunk leaning so that the weight stays over the feet."""
    bend = rng.uniform(*knee)
    tilt = bend * rng.uniform(0.18, 0.28)
    spread = rng.uniform(2.0, 24.0)
    lean = _balanced_lean(body, thigh=bend - tilt, shin=tilt)
    pitch = lean * rng.uniform(0.4, 0.6)
    legs: Posture = {}
    for side in SIDES:
        legs |= _leg(side, bend - tilt, bend + rng.normal(0.0, 2.0), pitch)
        legs[f"{side}_hip_abduction"] = spread
        legs[f"{side}_hip_rotation"] = -0.8 * spread
    return {**legs, **_trunk(rng, lean - pitch), "root_pitch": pitch}


def stoop(rng: np.random.Generator, body: Body) -> Posture:
    """Bent over at the hips, knees nearly straight, as to pick something up."""
    knee = rng.uniform(8.0, 45.0)
    pitch = rng.uniform(25.0, 60.0)
    # The hips go back as far as the trunk goes forward.
    thigh = 0.5 * knee + 0.16 * pitch
    legs: Posture = {}
    for side in SIDES:
        legs |= _leg(side, thigh, knee, pitch)
        legs[f"{side}_hip_abduction"] = rng.uniform(0.0, 14.0)
    return {**legs, **_trunk(rng, rng.uniform(15.0, 45.0)), "root_pitch": pitch}


def sit(rng: np.random.Generator, body: Body, seat: float) -> Posture:
    """On a chair, bench or box.

    Args:
      rng: Source of randomness.
      body: Who sits.
      seat: Height of hips over ankles, in shin lengths.
    """
    pitch = rng.uniform(-18.0, 14.0)
    legs: Posture = {}
    for side in SIDES:
        knee = rng.uniform(60.0, 110.0)
        legs |= _leg(side, reach(body, seat * body.shin, knee), knee, pitch)
        legs[f"{side}_hip_abduction"] = rng.uniform(-3.0, 22.0)
        legs[f"{side}_hip_rotation"] = rng.uniform(-15.0, 15.0)
    if rng.random() < 0.15:
        legs |= _crossed_leg(rng, SIDES[rng.integers(2)], pitch)
    trunk = _trunk(rng, rng.uniform(-5.0, 40.0))
    return {**legs, **trunk, "root_pitch": pitch, "seated": 1.0}


def sit_on_floor(rng: np.random.Generator, body: Body) -> Posture:
    """On the floor: legs stretched, knees raised, or cross-legged."""
    pitch = rng.uniform(-30.0, -8.0)
    if rng.random() < 0.3:
        legs = _crossed_legs_on_floor(rng, body, pitch)
    else:
        # Beyond this bend the heels could not come down to the floor within the hips' limit.
        legs = _legs_on_floor(rng, body, pitch, knee=(0.0, min(110.0, 74.0 - 2.0 * pitch)))
    trunk = _trunk(rng, rng.uniform(10.0, 45.0))
    return {**legs, **trunk, "root_pitch": pitch, "seated": 1.0}


def kneel(rng: np.random.Generator, body: Body) -> Posture:
    """On both knees, from upright to sitting on the heels."""
    pitch = rng.uniform(-4.0, 14.0)
    knee = rng.uniform(84.0, 148.0)
    legs: Posture = {}
    for side in SIDES:
        bend = knee + rng.normal(0.0, 1.5)
        legs |= _leg(side, bend - 91.0, bend, pitch)
        legs[f"{side}_hip_abduction"] = rng.uniform(0.0, 16.0)
    return {**legs, **_trunk(rng, rng.uniform(-2.0, 30.0)), "root_pitch": pitch}


def half_kneel(rng: np.random.Generator, body: Body, front: str) -> Posture:
    """On one knee, the other foot in front."""
    pitch = rng.normal(5.0, 5.0)
    bend = rng.uniform(84.0, 108.0)
    hip_height = body.thigh * math.cos(math.radians(bend - 91.0)) + 0.030 * body.stature
    knee = rng.uniform(70.0, 105.0)
    thigh = reach(body, hip_height - 0.045 * body.stature, knee)
    legs = _leg(_other(front), bend - 91.0, bend, pitch) | _leg(front, thigh, knee, pitch)
    legs[f"{front}_hip_abduction"] = rng.uniform(0.0, 16.0)
    return {**legs, **_trunk(rng, rng.uniform(0.0, 35.0)), "root_pitch": pitch}


def lie_on_back(rng: np.random.Generator, body: Body) -> Posture:
    """Face up, legs stretched or knees raised."""
    pitch = rng.normal(-90.0, 2.0)
    legs = _legs_on_floor(rng, body, pitch, knee=(0.0, 30.0) if rng.random() < 0.5 else (40, 115))
    return {**legs, **_trunk(rng, 0.0, spread=3.0), "root_pitch": pitch, "seated": 1.0}


def lie_on_front(rng: np.random.Generator, body: Body) -> Posture:
    """Face down, the head turned, shins now and then in the air."""
    legs: Posture = {}
    for side in SIDES:
        legs[f"{side}_hip_flexion"] = rng.uniform(-6.0, 0.0)
        legs[f"{side}_hip_abduction"] = rng.uniform(0.0, 22.0)
        legs[f"{side}_knee_flexion"] = rng.uniform(0.0, 95.0 if rng.random() < 0.4 else 12.0)
    trunk = _trunk(rng, -6.0, spread=2.0)
    return {**legs, **trunk, "root_pitch": rng.normal(89.0, 1.5), "seated": 1.0}


def lie_on_side(rng: np.random.Generator, body: Body, under: str) -> Posture:
    """On the left or the right side, hips and knees bent."""
    flexion, knee = rng.uniform(0.0, 85.0), rng.uniform(15.0, 110.0)
    legs: Posture = {}
    for side in SIDES:
        legs[f"{side}_hip_flexion"] = flexion + rng.normal(0.0, 12.0)
        legs[f"{side}_knee_flexion"] = abs(knee + rng.normal(0.0, 12.0))
    legs[f"{_other(under)}_hip_abduction"] = rng.uniform(-16.0, 4.0)
    roll = rng.normal(88.0, 4.0) * (-1.0 if under == "left" else 1.0)
    trunk = _trunk(rng, rng.uniform(0.0, 25.0), spread=4.0)
    return {**legs, **trunk, "root_roll": roll, "seated": 1.0}


def arms(rng: np.random.Generator, body: Body, names: Sequence[str]) -> Posture:
    """Both arms in one of the named postures: alike, apart, or one of them just hanging."""
    first, second = rng.choice(names, size=2)
    alike = rng.random()
    if alike < 0.45 or first in ("crossed", "behind"):
        second = first
    elif alike < 0.65 and "relaxed" in names:
        second = "relaxed"
    left, right = (first, second) if rng.random() < 0.5 else (second, first)
    return _arm(rng, "left", left) | _arm(rng, "right", right)


def side_arms(rng: np.random.Generator, body: Body, under: str) -> Posture:
    """Arms of somebody who lies on one side: the lower one in front, the upper one anywhere."""
    upper = _arm(rng, _other(under), ("flat", "belly", "low")[rng.integers(3)])
    return upper | _arm(rng, under, "low")


def gesture(rng: np.random.Generator, body: Body, sides: Sequence[str] = SIDES) -> Posture:
    """Hands anywhere within reach and outside the trunk."""
    posture: Posture = {}
    for side in sides:
        posture |= _free_arm(rng, body, side)
    return posture


def head(rng: np.random.Generator, *, spread: float = 1.0) -> Posture:
    """Where somebody looks."""
    return {
        "neck_flexion": rng.normal(4.0, 12.0 * spread),
        "neck_bend": rng.normal(0.0, 5.0 * spread),
        "neck_twist": rng.normal(0.0, 24.0 * spread),
    }


def reach(body: Body, drop: float, knee: Any) -> Any:
    """Angle of the thigh from straight down that puts the ankle `drop` metres below the hip.

    The leg is a two-bar linkage in a vertical plane: the chord from hip to ankle follows from the
    knee, its slope from the drop.

    Args:
      body: Segment lengths.
      drop: Metres.
      knee: Knee flexion, degrees, any shape.

    Returns:
      Degrees, the shape of `knee`.
    """
    bend = np.radians(knee)
    across, along = body.shin * np.sin(bend), body.thigh + body.shin * np.cos(bend)
    slope = np.arccos(np.clip(drop / np.hypot(across, along), -1.0, 1.0))
    return np.degrees(slope + np.arctan2(across, along))


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]


def _leg(side: str, thigh: float, knee: float, pitch: float) -> Posture:
    """A leg by the angle of its thigh from straight down, whatever the pelvis does."""
    return {f"{side}_hip_flexion": thigh + pitch, f"{side}_knee_flexion": knee}


def _level(posture: Posture) -> Posture:
    """Keeps the legs where they are when the pelvis rolls over them."""
    roll = posture.get("root_roll", 0.0)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        name = f"{side}_hip_abduction"
        posture[name] = posture.get(name, 0.0) + sign * roll
    return posture


def _trunk(rng: np.random.Generator, flexion: float, *, spread: float = 5.0) -> Posture:
    """Spreads a forward bend over both parts of the trunk and adds some bend and twist."""
    share = rng.uniform(0.45, 0.65)
    return {
        "lumbar_flexion": share * flexion + rng.normal(0.0, 0.6 * spread),
        "lumbar_bend": rng.normal(0.0, 0.7 * spread),
        "lumbar_twist": rng.normal(0.0, 0.5 * spread),
        "thoracic_flexion": (1.0 - share) * flexion + rng.normal(0.0, 0.6 * spread),
        "thoracic_bend": rng.normal(0.0, 0.7 * spread),
        "thoracic_twist": rng.normal(0.0, 1.5 * spread),
    }


def _balanced_lean(body: Body, *, thigh: float, shin: float) -> float:
    """How far the trunk must lean to keep the weight over the middle of the feet, degrees."""
    hips = body.shin * math.sin(math.radians(shin)) - body.thigh * math.sin(math.radians(thigh))
    weight_height = body.lumbar + 0.4 * body.thoracic
    sine = (0.03 * body.stature - 0.75 * hips) / (1.2 * weight_height)
    return math.degrees(math.asin(min(max(sine, 0.0), 0.94)))


def _crossed_leg(rng: np.random.Generator, side: str, pitch: float) -> Posture:
    """One thigh laid over the other."""
    return {
        **_leg(side, rng.uniform(98.0, 106.0), rng.uniform(55.0, 85.0), pitch),
        f"{side}_hip_abduction": rng.uniform(-20.0, -14.0),
    }


def _crossed_legs_on_floor(rng: np.random.Generator, body: Body, pitch: float) -> Posture:
    """Knees out, shins crossed in front, the ankles as high above the floor as the hips."""
    knee, abduction = rng.uniform(105.0, 128.0), rng.uniform(36.0, 44.0)
    thighs = np.linspace(80.0, 125.0 - pitch, 46)
    angles = {
        "root_pitch": np.full_like(thighs, pitch),
        "left_hip_flexion": thighs + pitch,
        "left_hip_abduction": np.full_like(thighs, abduction),
        "left_hip_rotation": np.full_like(thighs, -45.0),
        "left_knee_flexion": np.full_like(thighs, knee),
    }
    drop = -forward_kinematics(angles, body)[:, 6, 1]
    thigh = float(thighs[np.argmin(np.abs(drop - FLOOR_DROP * body.stature))])
    legs: Posture = {}
    for side in SIDES:
        legs |= _leg(side, thigh, knee, pitch)
        legs |= {f"{side}_hip_abduction": abduction, f"{side}_hip_rotation": -45.0}
    return legs


def _legs_on_floor(
    rng: np.random.Generator, body: Body, pitch: float, *, knee: tuple[float, float]
) -> Posture:
    """Legs in front of a pelvis on the floor, heels down, both knees alike or each its own."""
    legs: Posture = {}
    shared, alike = rng.uniform(*knee), rng.random() < 0.5
    for side in SIDES:
        bend = shared + rng.normal(0.0, 6.0) if alike else rng.uniform(*knee)
        bend = min(max(bend, 2.0), 115.0)
        legs |= _leg(side, reach(body, FLOOR_DROP * body.stature, bend), bend, pitch)
        legs[f"{side}_hip_abduction"] = rng.uniform(0.0, 16.0)
    return legs


def _arm(rng: np.random.Generator, side: str, name: str) -> Posture:
    flexion, abduction, rotation, elbow, hang = _ARMS[name]
    return {
        f"{side}_shoulder_flexion": flexion + rng.normal(0.0, 6.0),
        f"{side}_shoulder_abduction": abduction + rng.normal(0.0, 4.0),
        f"{side}_shoulder_rotation": rotation + rng.normal(0.0, 6.0),
        f"{side}_elbow_flexion": abs(elbow + rng.normal(0.0, 7.0)),
        f"{side}_hang": hang,
    }


def _free_arm(rng: np.random.Generator, body: Body, side: str, tries: int = 8) -> Posture:
    """Draws until elbow and wrist are outside the trunk and the wrist not far across it."""
    posture: Posture = {}
    for _ in range(tries):
        raised = rng.uniform(-20.0, 155.0)
        posture = {
            f"{side}_shoulder_flexion": raised,
            f"{side}_shoulder_abduction": rng.uniform(-8.0, 95.0 - 0.4 * max(raised, 0.0)),
            f"{side}_shoulder_rotation": rng.uniform(-50.0, 60.0),
            f"{side}_elbow_flexion": rng.uniform(5.0, 125.0),
            f"{side}_hang": 0.0,
        }
        angles = {n: np.array([v]) for n, v in posture.items() if not n.endswith("hang")}
        first, sign = (11, 1.0) if side == "left" else (14, -1.0)
        elbow, wrist = forward_kinematics(angles, body)[0, first + 1 : first + 3] / body.stature
        inside = any(abs(p[0]) < 0.11 and abs(p[2]) < 0.085 and p[1] < 0.36 for p in (elbow, wrist))
        if not inside and sign * wrist[0] > -0.10:
            break
    return posture
