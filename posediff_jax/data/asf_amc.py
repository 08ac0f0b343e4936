"""Reads motions of the CMU motion capture database: AMC files, with their ASF skeletons."""

import pathlib

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.asf import DOFS, ROOT, AsfSkeleton, read_asf
from posediff_jax.data.kinematics import turn
from posediff_jax.data.mocap import parse_numbers, read_lines, select_joints
from posediff_jax.data.motion import MotionClip

# Human3.6M-17 joints as means of the ends of these bones.
H36M_FROM_ENDS = (
    ("lhipjoint", "rhipjoint"),
    *(("rhipjoint",), ("rfemur",), ("rtibia",)),
    *(("lhipjoint",), ("lfemur",), ("ltibia",)),
    *(("lowerback",), ("thorax",), ("upperneck",), ("head",)),
    *(("lclavicle",), ("lhumerus",), ("lradius",)),
    *(("rclavicle",), ("rhumerus",), ("rradius",)),
)


def read_amc(path: str | pathlib.Path, skeleton: AsfSkeleton) -> dict[str, NDArray[np.float64]]:
    """Reads a motion.

    Args:
      path: The `.amc` file.
      skeleton: Says how many values each bone has.

    Returns:
      Values of each bone in the file and of "root", `(F, values)`, degrees and the file's lengths.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is truncated or broken: a value is missing or not finite, a bone is
        unknown or not in all frames, or a frame number is not the next. The message gives path and
        line.
    """
    path = pathlib.Path(path)
    counts = {bone.name: len(bone.dofs) for bone in skeleton.bones}
    counts[ROOT] = len(skeleton.root_order)
    frames: list[dict[str, list[float]]] = []
    first = 0
    degrees = False
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if not words or text.startswith("#"):
            continue
        label = f"{path}:{line}"
        if text.startswith(":"):
            degrees |= text.upper() == ":DEGREES"
        elif len(words) == 1 and words[0].isdecimal():
            first = first or int(words[0])
            if int(words[0]) != first + len(frames):
                raise ValueError(f"{label}: expected frame {first + len(frames)}, got {words[0]}")
            _check_complete(frames, f"{path}:{line}")
            frames.append({})
        elif not frames:
            raise ValueError(f"{label}: expected a frame number before {text[:40]!r}")
        else:
            if words[0] not in counts or words[0] in frames[-1]:
                raise ValueError(f"{label}: expected a bone once, got {words[0]!r}")
            frames[-1][words[0]] = parse_numbers(
                words[1:], counts[words[0]], f"{label}: {words[0]}"
            )
    if not frames:
        raise ValueError(f"{path}: expected at least one frame")
    _check_complete(frames, f"{path}: the end")
    if not degrees:
        raise ValueError(f"{path}: expected the line :DEGREES")
    return {name: np.array([frame[name] for frame in frames]) for name in frames[0]}


def bone_ends(
    skeleton: AsfSkeleton, motion: dict[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """Where the bones end: `end = end_parent + R_parent C R C^-1 offset`.

    R rotates by the bone's own angles, about x first, then y, then z; C by its `axis`. A bone that
    the motion does not have stands still.

    Args:
      skeleton: Its bones.
      motion: From `read_amc`.

    Returns:
      Of "root" and each bone, world axes, metres, `(F, 3)`.
    """
    values = dict(zip(skeleton.root_order, motion[ROOT].T, strict=True))
    ends = {ROOT: np.stack([values[t] for t in ("tx", "ty", "tz")], axis=-1) * skeleton.unit}
    turns = {ROOT: _rotation(values)}
    for bone in skeleton.bones:
        columns = motion[bone.name].T if bone.name in motion else ()
        own = _rotation(dict(zip(bone.dofs, columns, strict=False)))
        frame = _rotation(dict(zip(DOFS, np.array(bone.axis), strict=True)))
        turns[bone.name] = turns[bone.parent] @ frame @ own @ np.swapaxes(frame, -1, -2)
        ends[bone.name] = ends[bone.parent] + turns[bone.name] @ np.array(bone.offset)
    return ends


def load_asf_amc(
    asf: str | pathlib.Path | AsfSkeleton, amc: str | pathlib.Path, *, fps: float = 120.0
) -> MotionClip:
    """Reads a motion as Human3.6M-17 joints, in the convention of `cmu17`.

    Args:
      asf: The skeleton, or its file.
      amc: The motion's file.
      fps: Frames per second, which the files do not say: CMU's are 120, in a few trials 60.

    Returns:
      A clip named `asf/<subject>/<trial>` after the files; metres, y up.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: As for `read_asf` and `read_amc`, or the skeleton lacks a bone of CMU's.
    """
    skeleton = asf if isinstance(asf, AsfSkeleton) else read_asf(asf)
    ends = bone_ends(skeleton, read_amc(amc, skeleton))
    poses = select_joints(ends, H36M_FROM_ENDS, str(skeleton.path))
    subject, trial = skeleton.path.stem, pathlib.Path(amc).stem
    return MotionClip(f"asf/{subject}/{trial}", subject, "unlabelled", poses, fps, "h36m_17")


def _check_complete(frames: list[dict[str, list[float]]], label: str) -> None:
    """The frame that just ended has the bones of the first one."""
    if not frames:
        return
    expected = set(frames[0]) | {ROOT}
    if set(frames[-1]) != expected:
        differing = sorted(expected ^ set(frames[-1]))
        raise ValueError(
            f"{label}: expected the same bones in all frames, frame {len(frames)} of the file "
            f"differs in {differing} (is the file truncated?)"
        )


def _rotation(degrees: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """`Rz Ry Rx` from values by the names of `DOFS`; what is absent is 0."""
    x, y, z = (np.asarray(degrees.get(name, 0.0)) for name in DOFS)
    return turn(("z", z), ("y", y), ("x", x))
