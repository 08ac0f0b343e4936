"""Reads BVH files: a skeleton of offsets and a table of joint angles."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.kinematics import turn
from posediff_jax.data.mocap import CMU_UNIT, parse_numbers, read_lines, select_joints
from posediff_jax.data.motion import MotionClip

# Human3.6M-17 joints as means of joints of the "max-friendly" conversion of the CMU database, so
# that they are the ends of the bones that `asf_amc` takes.
H36M_FROM_CMU = (
    ("LeftHip", "RightHip"),
    *(("RightHip",), ("RightKnee",), ("RightAnkle",)),
    *(("LeftHip",), ("LeftKnee",), ("LeftAnkle",)),
    *(("Chest",), ("lowerneck",), ("Head",), ("Head_end",)),
    *(("LeftShoulder",), ("LeftElbow",), ("LeftWrist",)),
    *(("RightShoulder",), ("RightElbow",), ("RightWrist",)),
)
_SHORTEST_FRAME = 1e-4
_POSITIONS = ("Xposition", "Yposition", "Zposition")
_ROTATIONS = ("Xrotation", "Yrotation", "Zrotation")


@dataclasses.dataclass(frozen=True)
class Joint:
    """One joint of a BVH skeleton, or the end site of one.

    Attributes:
      name: Unique in its skeleton; an end site is named after its parent, with "_end".
      parent: Index of the parent, -1 for the root.
      offset: From the parent where all angles are zero, in the file's unit.
      channels: What the columns of this joint are, in their order.
    """

    name: str
    parent: int
    offset: tuple[float, float, float]
    channels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class BvhMotion:
    """A file.

    Attributes:
      joints: Parents come before their children.
      values: One column per channel, joints in order, degrees and the file's unit, `(F, columns)`.
      fps: Frames per second.
    """

    joints: tuple[Joint, ...]
    values: NDArray[np.float64]
    fps: float


def read_bvh(path: str | pathlib.Path) -> BvhMotion:
    """Reads a file.

    Args:
      path: The `.bvh` file.

    Returns:
      Skeleton and motion.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is truncated or broken, has several skeletons, or moves a joint other
        than the root by positions, whose meaning differs between writers. The message gives path
        and line.
    """
    path = pathlib.Path(path)
    lines = read_lines(path)
    upper = [line.upper() for line in lines]
    if "MOTION" not in upper:
        raise ValueError(f"{path}: expected the line MOTION (is the file truncated?)")
    start = upper.index("MOTION")
    joints = _read_hierarchy(lines[:start], path)
    header = [(i, words) for i in range(start + 1, len(lines)) if (words := lines[i].split())]
    if len(header) < 2 or header[0][1][0] != "Frames:" or header[1][1][:2] != ["Frame", "Time:"]:
        raise ValueError(f"{path}:{start + 2}: expected the lines 'Frames:' and 'Frame Time:'")
    (frames,) = parse_numbers(header[0][1][1:], 1, f"{path}:{header[0][0] + 1}: Frames")
    (seconds,) = parse_numbers(header[1][1][2:], 1, f"{path}:{header[1][0] + 1}: Frame Time")
    rows = header[2:]
    if len(rows) != frames or not rows:
        raise ValueError(
            f"{path}: expected {frames:g} frames, got {len(rows)} (is the file truncated?)"
        )
    if not seconds > _SHORTEST_FRAME:
        raise ValueError(
            f"{path}: Frame Time: expected more than {_SHORTEST_FRAME} seconds, got {seconds}"
        )
    columns = sum(len(joint.channels) for joint in joints)
    values = [parse_numbers(words, columns, f"{path}:{i + 1}") for i, words in rows]
    return BvhMotion(joints, np.array(values), 1.0 / seconds)


def joint_positions(motion: BvhMotion) -> dict[str, NDArray[np.float64]]:
    """Where the joints are: `p = p_parent + R_parent offset`, `R = R_parent R_1 R_2 R_3`.

    R_1 to R_3 are the rotations in the order of the channels, the first one outermost. Positions
    move the root away from its offset.

    Args:
      motion: From `read_bvh`.

    Returns:
      World axes, the file's unit, `(F, 3)` for each joint and end site.
    """
    positions: list[NDArray] = []
    turns: list[NDArray] = []
    column = 0
    for joint in motion.joints:
        own = motion.values[:, column : column + len(joint.channels)].T
        column += len(joint.channels)
        place, turned = np.array(joint.offset), np.eye(3)
        if joint.parent >= 0:
            place = positions[joint.parent] + turns[joint.parent] @ place
            turned = turns[joint.parent]
        else:
            values = dict(zip(joint.channels, own, strict=True))
            zero = np.zeros(len(motion.values))
            place = place + np.stack([values.get(c, zero) for c in _POSITIONS], axis=-1)
        steps = [
            (channel[0].lower(), degrees)
            for channel, degrees in zip(joint.channels, own, strict=True)
            if channel in _ROTATIONS
        ]
        positions.append(place)
        turns.append(turned @ turn(*steps) if steps else turned)
    frames = (len(motion.values), 3)
    return {
        joint.name: np.broadcast_to(place, frames)
        for joint, place in zip(motion.joints, positions, strict=True)
    }


def load_bvh(
    path: str | pathlib.Path,
    *,
    unit: float = CMU_UNIT,
    names: Sequence[Sequence[str]] = H36M_FROM_CMU,
    subject: str | None = None,
    action: str = "unlabelled",
) -> MotionClip:
    """Reads a motion as Human3.6M-17 joints.

    Some conversions of CMU's recordings leave out the thorax bone (subject 131's does): their torso
    is about 11 cm short. They are read as they are.

    Args:
      path: The `.bvh` file; its world must be y-up.
      unit: Metres per unit of the file; the default is CMU's, 1.0 is for files in metres.
      names: For each of the 17 joints the file's joints whose mean it is, where an end site is
        `<parent>_end`.
      subject: Who moves; None takes the file's name up to the first "_".
      action: What they do.

    Returns:
      A clip named `bvh/<subject>/<file>`; metres, y up, the file's frame rate.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: As for `read_bvh`, `unit` is not positive, or a joint is not in the file.
    """
    if not unit > 0:
        raise ValueError(f"unit: expected more than 0 metres, got {unit}")
    path = pathlib.Path(path)
    motion = read_bvh(path)
    points = {name: unit * place for name, place in joint_positions(motion).items()}
    poses = select_joints(points, names, str(path))
    subject = path.stem.split("_")[0] if subject is None else subject
    name = f"bvh/{subject}/{path.stem}"
    return MotionClip(name, subject, action, poses, motion.fps, "h36m_17")


def _read_hierarchy(lines: Sequence[str], path: pathlib.Path) -> tuple[Joint, ...]:
    """Joints and end sites in the order of the file."""
    joints: list[dict] = []
    ancestors: list[int] = []
    for number, line in enumerate(lines, start=1):
        label = f"{path}:{number}"
        match line.split():
            case [] | ["HIERARCHY"] | ["{"]:
                pass
            case ["ROOT" | "JOINT" as kind, *name] if name:
                if (kind == "ROOT") == bool(joints) or (joints and not ancestors):
                    raise ValueError(
                        f"{label}: expected one ROOT and all joints inside, got {line!r}"
                    )
                _add(joints, ancestors, " ".join(name), label)
            case ["End", "Site"] if ancestors:
                _add(joints, ancestors, f"{joints[ancestors[-1]]['name']}_end", label)
            case ["OFFSET", *words] if ancestors:
                joints[ancestors[-1]]["offset"] = tuple(parse_numbers(words, 3, f"{label}: OFFSET"))
            case ["CHANNELS", _, *channels] if ancestors:
                _check_channels(line, joints[ancestors[-1]]["parent"] < 0, label)
                joints[ancestors[-1]]["channels"] = tuple(channels)
            case ["}"] if ancestors:
                ancestors.pop()
            case _:
                raise ValueError(f"{label}: expected a line of a skeleton, got {line[:40]!r}")
    if not joints or ancestors:
        raise ValueError(f"{path}: expected a whole HIERARCHY (is the file truncated?)")
    for joint in joints:
        if "offset" not in joint:
            raise ValueError(f"{path}: joint {joint['name']!r}: expected an OFFSET")
    return tuple(Joint(**({"channels": ()} | joint)) for joint in joints)


def _add(joints: list[dict], ancestors: list[int], name: str, label: str) -> None:
    if any(joint["name"] == name for joint in joints):
        raise ValueError(f"{label}: the joint {name!r} occurs twice")
    joints.append({"name": name, "parent": ancestors[-1] if ancestors else -1})
    ancestors.append(len(joints) - 1)


def _check_channels(line: str, is_root: bool, label: str) -> None:
    _, count, *channels = line.split()
    allowed = (*_POSITIONS, *_ROTATIONS) if is_root else _ROTATIONS
    repeated = len(set(channels)) < len(channels)
    if str(len(channels)) != count or not set(channels) <= set(allowed) or repeated:
        raise ValueError(f"{label}: expected {count} channels of {allowed}, got {channels}")
