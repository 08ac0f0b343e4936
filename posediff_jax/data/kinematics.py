"""A body of stiff bones on the Human3.6M-17 tree, driven by named joint angles.

The body stands along +y, faces +z, and has its left side at +x. All angles are zero where it stands
upright with hanging arms. Angles are in degrees, named as in anatomy: flexion takes the thigh, the
upper arm and the trunk forward, knee flexion takes the shin back, elbow flexion the forearm
forward; abduction is away from the midline, rotation is inward. Names are those of `LIMITS`, with
`left_` or `right_` before those of a limb.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Angles = Mapping[str, NDArray]
AngleOf = Callable[[str], NDArray]

# Degrees. Ranges that healthy adults reach without help, a little inside the textbook extremes.
_AXIAL_LIMITS = {
    "lumbar_flexion": (-20.0, 50.0),
    "lumbar_bend": (-25.0, 25.0),
    "lumbar_twist": (-12.0, 12.0),
    "thoracic_flexion": (-15.0, 35.0),
    "thoracic_bend": (-20.0, 20.0),
    "thoracic_twist": (-35.0, 35.0),
    "neck_flexion": (-45.0, 45.0),
    "neck_bend": (-30.0, 30.0),
    "neck_twist": (-65.0, 65.0),
}
_LIMB_LIMITS = {
    "hip_flexion": (-20.0, 125.0),
    "hip_abduction": (-20.0, 45.0),
    "hip_rotation": (-45.0, 40.0),
    "knee_flexion": (0.0, 150.0),
    "clavicle_elevation": (-5.0, 30.0),
    "clavicle_protraction": (-15.0, 20.0),
    "shoulder_flexion": (-50.0, 175.0),
    "shoulder_abduction": (-20.0, 160.0),
    "shoulder_rotation": (-90.0, 80.0),
    "elbow_flexion": (0.0, 145.0),
}
SIDES = ("left", "right")
LIMITS: dict[str, tuple[float, float]] = {
    **_AXIAL_LIMITS,
    **{f"{side}_{name}": limits for side in SIDES for name, limits in _LIMB_LIMITS.items()},
}
# The pelvis itself has no limits: people turn and lie down.
ROOT_ANGLES = ("root_yaw", "root_pitch", "root_roll")

# Segment lengths as fractions of stature (after Drillis and Contini, adapted to these joints).
_FRACTIONS = {
    "half_hips": 0.074,
    "thigh": 0.247,
    "shin": 0.246,
    "lumbar": 0.135,
    "thoracic": 0.145,
    "neck": 0.068,
    "head": 0.066,
    "clavicle": 0.086,
    "upper_arm": 0.162,
    "forearm": 0.145,
}
_NECK_LEAN, _HEAD_LEAN, _SHOULDER_DROP = 30.0, -12.0, 8.0


@dataclasses.dataclass(frozen=True)
class Body:
    """Segment lengths of one person, metres; left and right are equal.

    Attributes:
      stature: The height that the segments were drawn for.
      half_hips: Pelvis to hip.
      thigh: Hip to knee.
      shin: Knee to ankle.
      lumbar: Pelvis to spine.
      thoracic: Spine to thorax.
      neck: Thorax to neck.
      head: Neck to head.
      clavicle: Thorax to shoulder.
      upper_arm: Shoulder to elbow.
      forearm: Elbow to wrist.
    """

    stature: float
    half_hips: float
    thigh: float
    shin: float
    lumbar: float
    thoracic: float
    neck: float
    head: float
    clavicle: float
    upper_arm: float
    forearm: float


def random_body(
    rng: np.random.Generator, *, stature: tuple[float, float] = (1.5, 1.95), variation: float = 0.08
) -> Body:
    """Draws a person: stature uniformly, then each segment by a factor in `1 +- variation`.

    Args:
      rng: Source of randomness.
      stature: Least and greatest height in metres.
      variation: How far a segment may be from its share of the stature.

    Returns:
      The body.
    """
    height = rng.uniform(*stature)
    lengths = {
        name: height * fraction * rng.uniform(1.0 - variation, 1.0 + variation)
        for name, fraction in _FRACTIONS.items()
    }
    return Body(stature=height, **lengths)


def clip_angles(angles: Angles) -> dict[str, NDArray]:
    """Clips each joint angle to `LIMITS`; root angles pass through."""
    return {n: np.clip(v, *LIMITS[n]) if n in LIMITS else v for n, v in angles.items()}


def forward_kinematics(angles: Angles, body: Body) -> NDArray[np.float64]:
    """Joint positions from joint angles.

    Each joint turns the frame of its parent: by flexion first, then abduction, then rotation about
    the limb (trunk and neck: twist, flexion, bend; pelvis: yaw, pitch, roll).

    Args:
      angles: Degrees, each `(F,)`; a name that is absent is zero throughout.
      body: Segment lengths.

    Returns:
      Positions relative to the pelvis, world axes, metres, `(F, 17, 3)`, Human3.6M-17 order.

    Raises:
      ValueError: A name is neither in `LIMITS` nor in `ROOT_ANGLES`.
    """
    unknown = sorted(set(angles) - set(LIMITS) - set(ROOT_ANGLES))
    if unknown:
        raise ValueError(f"angles: expected names of LIMITS and ROOT_ANGLES, got {unknown}")
    frames = np.broadcast_shapes(*(np.shape(v) for v in angles.values()), (1,))[0]

    def angle(name: str) -> NDArray:
        return np.broadcast_to(np.asarray(angles.get(name, 0.0), dtype=np.float64), (frames,))

    points = np.zeros((frames, 17, 3))
    pelvis = turn(("y", angle("root_yaw")), ("x", angle("root_pitch")), ("z", angle("root_roll")))
    lumbar = pelvis @ _trunk_turn(angle, "lumbar")
    thorax = lumbar @ _trunk_turn(angle, "thoracic")
    neck = thorax @ _trunk_turn(angle, "neck")
    points[:, 7] = _along(lumbar, (0.0, body.lumbar, 0.0))
    points[:, 8] = points[:, 7] + _along(thorax, (0.0, body.thoracic, 0.0))
    points[:, 9] = points[:, 8] + _along(neck, _leaning(body.neck, _NECK_LEAN))
    points[:, 10] = points[:, 9] + _along(neck, _leaning(body.head, _HEAD_LEAN))
    # (side, sign of x, first joint of leg and of arm)
    for side, sign, leg, arm in (("left", 1.0, 4, 11), ("right", -1.0, 1, 14)):
        points[:, leg : leg + 3] = _leg(angle, body, pelvis, side, sign)
        points[:, arm : arm + 3] = points[:, 8:9] + _arm(angle, body, thorax, side, sign)
    return points


def _leg(angle: AngleOf, body: Body, pelvis: NDArray, side: str, sign: float) -> NDArray:
    hip = _along(pelvis, (sign * body.half_hips, 0.0, 0.0))
    thigh = pelvis @ _limb_turn(angle, f"{side}_hip", sign)
    shin = thigh @ turn(("x", angle(f"{side}_knee_flexion")))
    knee = hip + _along(thigh, (0.0, -body.thigh, 0.0))
    return np.stack([hip, knee, knee + _along(shin, (0.0, -body.shin, 0.0))], axis=1)


def _arm(angle: AngleOf, body: Body, thorax: NDArray, side: str, sign: float) -> NDArray:
    girdle = thorax @ turn(
        ("z", sign * (angle(f"{side}_clavicle_elevation") - _SHOULDER_DROP)),
        ("y", -sign * angle(f"{side}_clavicle_protraction")),
    )
    shoulder = _along(girdle, (sign * body.clavicle, 0.0, 0.0))
    upper = thorax @ _limb_turn(angle, f"{side}_shoulder", sign)
    fore = upper @ turn(("x", -angle(f"{side}_elbow_flexion")))
    elbow = shoulder + _along(upper, (0.0, -body.upper_arm, 0.0))
    return np.stack([shoulder, elbow, elbow + _along(fore, (0.0, -body.forearm, 0.0))], axis=1)


def _trunk_turn(angle: AngleOf, name: str) -> NDArray:
    return turn(
        ("y", angle(f"{name}_twist")),
        ("x", angle(f"{name}_flexion")),
        ("z", angle(f"{name}_bend")),
    )


def _limb_turn(angle: AngleOf, name: str, sign: float) -> NDArray:
    return turn(
        ("x", -angle(f"{name}_flexion")),
        ("z", sign * angle(f"{name}_abduction")),
        ("y", -sign * angle(f"{name}_rotation")),
    )


def turn(*steps: tuple[str, NDArray]) -> NDArray:
    """Product of rotations about the axes x, y or z by `(F,)` degrees, leftmost outermost.

    Returns:
      `(F, 3, 3)`, to be applied to columns.

    >>> import numpy as np
    >>> turn(("z", np.array([90.0]))).round(6)[0].tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    product = _rotation(*steps[0])
    for step in steps[1:]:
        product = product @ _rotation(*step)
    return product


def _rotation(axis: str, degrees: NDArray) -> NDArray:
    """Host-side and in float64, for thousands of small clips; geometry.py has the device's own."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.zeros((*cos.shape, 3, 3))
    matrix[..., 3 - i - j, 3 - i - j] = 1.0
    matrix[..., i, i] = matrix[..., j, j] = cos
    matrix[..., i, j], matrix[..., j, i] = -sin, sin
    return matrix


def _along(frame: NDArray, offset: tuple[float, float, float]) -> NDArray:
    return frame @ np.asarray(offset)


def _leaning(length: float, degrees: float) -> tuple[float, float, float]:
    """A bone in the y-z plane, leaning forward from upright."""
    return (0.0, length * np.cos(np.radians(degrees)), length * np.sin(np.radians(degrees)))
