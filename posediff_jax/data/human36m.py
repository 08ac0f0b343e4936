"""Reads Human3.6M from the npz files of VideoPose3D, which most lifters use.

A folder holds `data_3d_h36m.npz` and any of the keypoint files in `KEYPOINT_FILES`.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

from posediff_jax.data.human36m_cameras import CAMERA_IDS, human36m_cameras
from posediff_jax.data.sequences import PoseSequence, PoseSequences
from posediff_jax.data.videopose import (
    Nested,
    check_positions,
    check_symmetry,
    check_views,
    read_nested,
    takes_of,
    view_sequences,
)
from posediff_jax.skeleton import H36M_16, H36M_17, Skeleton, joint_map

SPLITS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether"),
)
# Name of the file and joint order of each source of keypoints.
KEYPOINT_FILES = {
    "gt": ("data_2d_h36m_gt.npz", H36M_17),
    "cpn": ("data_2d_h36m_cpn_ft_h36m_dbb.npz", H36M_17),
    "detectron": ("data_2d_h36m_detectron_ft_h36m.npz", H36M_17),
    "hrnet": ("data_2d_h36m_hr.npz", H36M_16),
}
_FPS = 50.0
_RIGHT_THIGH_OF_32 = (1, 2)


def load_human36m(
    folder: str | pathlib.Path,
    split: str = "train",
    *,
    keypoints: str = "gt",
    subjects: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    skeleton: Skeleton | None = None,
) -> PoseSequences:
    """Reads the sequences of a split as four cameras saw them.

    The two takes of an action ("Sitting 1", "Sitting 2") share the action "Sitting", which is
    another one than "SittingDown". Keypoints that run on after the 3D positions are cut. The files
    hold no confidence: it is 1. The poses go from the world to the cameras published with
    VideoPose3D.

    Args:
      folder: Holds the files.
      split: "train" (S1, S5, S6, S7, S8) or "test" (S9, S11).
      keypoints: "gt" (projected truth), "cpn", "detectron" (17 joints) or "hrnet" (16 joints).
      subjects: Reads these instead of the split's, to hold out training subjects for example.
      actions: Reads these only, by their whole names.
      skeleton: Joint order of the result; None is that of the keypoints. 17 joints may become
        `H36M_16`.

    Returns:
      Sequences named `<subject>/<take>/<camera>`, metres and pixels, 50 frames per second.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: An option is unknown, or a file is corrupt or holds other keys, subjects, joints,
        units or values than described; the message names path and key.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {tuple(SPLITS)}, got {split!r}")
    if keypoints not in KEYPOINT_FILES:
        raise ValueError(f"keypoints: expected one of {tuple(KEYPOINT_FILES)}, got {keypoints!r}")
    wanted = ACTIONS if actions is None else tuple(actions)
    unknown = sorted(set(wanted) - set(ACTIONS))
    if unknown:
        raise ValueError(f"actions: expected names of {ACTIONS}, got {unknown}")
    name, order = KEYPOINT_FILES[keypoints]
    target = skeleton or order
    if target != order and (order, target) != (H36M_17, H36M_16):
        raise ValueError(
            f"skeleton: {name} has the joints of {order.name!r}, which cannot become "
            f"{target.name!r}"
        )
    path_3d, path_2d = pathlib.Path(folder) / "data_3d_h36m.npz", pathlib.Path(folder) / name
    positions, _ = read_nested(path_3d, "positions_3d")
    views, entries = read_nested(path_2d, "positions_2d")
    check_symmetry(entries, order, path_2d)
    chosen = SPLITS[split] if subjects is None else tuple(subjects)
    sequences = [
        sequence
        for subject in chosen
        for sequence in _read_subject(
            subject, (positions, path_3d), (views, path_2d), (order, target), wanted
        )
    ]
    if not sequences:
        raise ValueError(
            f"{path_3d}: key 'positions_3d': expected takes of {wanted} by {chosen}, got none"
        )
    return PoseSequences(tuple(sequences), target)


def _read_subject(
    subject: str,
    positions: tuple[Nested, pathlib.Path],
    views: tuple[Nested, pathlib.Path],
    skeletons: tuple[Skeleton, Skeleton],
    wanted: Sequence[str],
) -> list[PoseSequence]:
    (nested_3d, path_3d), (nested_2d, path_2d), (order, target) = positions, views, skeletons
    cameras = human36m_cameras(subject)
    found = takes_of(nested_3d, subject, path=path_3d, key="positions_3d")
    seen = takes_of(nested_2d, subject, path=path_2d, key="positions_2d")
    worlds: dict[str, Any] = {}
    pixels: dict[str, Any] = {}
    actions: dict[str, str] = {}
    for take, value in found.items():
        action = _action_of(take, f"{path_3d}: key 'positions_3d/{subject}/{take}'")
        if action not in wanted:
            continue
        world = check_positions(
            value, 32, _RIGHT_THIGH_OF_32, path=path_3d, key=f"positions_3d/{subject}/{take}"
        )
        if take not in seen:
            raise ValueError(
                f"{path_2d}: key 'positions_2d/{subject}': expected the take {take!r} of "
                f"{path_3d.name}, got {sorted(seen)}"
            )
        pixels[take] = [
            _convert(view, order, target)
            for view in check_views(
                seen[take],
                len(world),
                order.num_joints,
                CAMERA_IDS,
                path=path_2d,
                key=f"positions_2d/{subject}/{take}",
            )
        ]
        worlds[take] = _convert(joint_map("h36m_32", "h36m_17").apply(world), H36M_17, target)
        actions[take] = action
    return view_sequences(
        worlds,
        pixels,
        cameras,
        CAMERA_IDS,
        subject=subject,
        actions=actions,
        fps=_FPS,
        prefix=subject,
    )


def _action_of(take: str, label: str) -> str:
    match = re.fullmatch(r"(\w+)(?: \d+)?", take)
    if match is None or match[1] not in ACTIONS:
        raise ValueError(f"{label}: expected an action of {ACTIONS} and a number")
    return match[1]


def _convert(points: Any, source: Skeleton, target: Skeleton) -> Any:
    return points if source == target else joint_map(source.name, target.name).apply(points)
