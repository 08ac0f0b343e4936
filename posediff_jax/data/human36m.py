"""Reads Human3.6M from the npz files of VideoPose3D, which most lifters use.

A folder holds `data_3d_h36m.npz` and any of the keypoint files in `KEYPOINT_FILES`.
"""

import pathlib
from collections.abc import Sequence

from numpy.typing import NDArray

from posediff_jax.data.human36m_cameras import CAMERA_IDS, human36m_cameras
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.data.videopose import (
    Layout,
    Take,
    check_symmetry,
    read_nested,
    read_takes,
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
_LAYOUT = Layout(
    num_joints=32,
    thigh=(1, 2),
    camera_names=CAMERA_IDS,
    actions=ACTIONS,
    take=r"(\w+)(?: \d+)?",
    example="Sitting 1",
    fps=50.0,
)


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
    positions = read_nested(pathlib.Path(folder) / "data_3d_h36m.npz", "positions_3d")
    views = read_nested(pathlib.Path(folder) / name, "positions_2d")
    check_symmetry(views, order)
    chosen = SPLITS[split] if subjects is None else tuple(subjects)
    sequences = []
    for subject in chosen:
        cameras = human36m_cameras(subject)
        takes = read_takes(
            positions,
            views,
            subject,
            layout=_LAYOUT,
            keypoint_joints=order.num_joints,
            actions=wanted,
        )
        takes = {take: _convert(value, order, target) for take, value in takes.items()}
        sequences += view_sequences(takes, cameras, layout=_LAYOUT, subject=subject, prefix=subject)
    if not sequences:
        raise ValueError(
            f"{positions.path}: key 'positions_3d': expected takes of {wanted} by {chosen}, "
            f"got none"
        )
    return PoseSequences(tuple(sequences), target)


def _convert(take: Take, order: Skeleton, target: Skeleton) -> Take:
    """The recorded 32 joints and the keypoints' own order, both in that of the result."""
    world = joint_map("h36m_32", "h36m_17").apply(take.world)
    views = [_reorder(view, order, target) for view in take.views]
    return Take(take.action, _reorder(world, H36M_17, target), views)


def _reorder(points: NDArray, source: Skeleton, target: Skeleton) -> NDArray:
    return points if source == target else joint_map(source.name, target.name).apply(points)
