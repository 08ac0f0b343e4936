"""The layout that VideoPose3D gave Human3.6M and HumanEva: subject, then take, then arrays.

`data_3d_*.npz` holds world positions of a take, `data_2d_*.npz` a list of keypoints with one entry
for each camera. Both are pickled dictionaries and read without trust.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.camera import world_to_camera
from posediff_jax.data.npz import check_array, read_npz
from posediff_jax.data.sequences import PoseSequence
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Camera

# Beyond these, numbers are those of a broken file.
_FARTHEST_M, _FARTHEST_PX = 1e3, 1e6
# Metres from hip to knee of any grown person, whatever the joint convention.
_THIGH = (0.2, 0.8)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the files of one data set are like.

    Attributes:
      num_joints: Of the 3D positions.
      thigh: Joints at its ends, by whose distance millimetres are found out.
      camera_names: In the order of the views.
      actions: Names of all actions.
      take: Pattern of the name of a take, whose first group is the action.
      example: Such a name.
      fps: Frames per second.
    """

    num_joints: int
    thigh: tuple[int, int]
    camera_names: tuple[str, ...]
    actions: tuple[str, ...]
    take: str
    example: str
    fps: float


@dataclasses.dataclass(frozen=True, eq=False)
class NestedFile:
    """A file of the layout.

    Attributes:
      path: Where it is.
      key: Which of its entries `groups` is.
      groups: Subject (in HumanEva split and subject) -> take -> anything.
      entries: Everything in the file.
    """

    path: pathlib.Path
    key: str
    groups: dict[str, dict[str, Any]]
    entries: dict[str, Any]

    def takes(self, group: str) -> dict[str, Any]:
        """The takes of one group.

        Raises:
          ValueError: There is no such group; the message lists those that there are.
        """
        if group not in self.groups:
            raise ValueError(
                f"{self.path}: key {self.key!r}: expected the subject {group!r}, "
                f"got {sorted(self.groups)}"
            )
        return self.groups[group]


class Take(NamedTuple):
    """One recording: world positions `(F, J, 3)` in metres, keypoints `(F, J, 2)` per camera."""

    action: str
    world: NDArray
    views: list[NDArray]


def read_nested(path: pathlib.Path, key: str) -> NestedFile:
    """Reads a file of the layout.

    Args:
      path: The npz file.
      key: Which of its entries to read.

    Returns:
      The file.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file cannot be read, lacks the key, or is not nested like this.
    """
    entries = read_npz(path, objects=True)
    if key not in entries:
        raise ValueError(f"{path}: expected the key {key!r}, got {sorted(entries)}")
    groups = entries[key]
    levels = [(key, groups)]
    if isinstance(groups, dict):
        levels += [(f"{key}/{group}", takes) for group, takes in groups.items()]
    for name, level in levels:
        if not isinstance(level, dict) or not all(isinstance(k, str) for k in level):
            raise ValueError(
                f"{path}: key {name!r}: expected a dictionary of names, got {_describe(level)}"
            )
    return NestedFile(path, key, groups, entries)


def read_takes(
    positions: NestedFile,
    keypoints: NestedFile,
    group: str,
    *,
    layout: Layout,
    keypoint_joints: int,
    actions: Sequence[str],
) -> dict[str, Take]:
    """Reads and checks the takes of a group.

    Args:
      positions: The 3D file.
      keypoints: The 2D file.
      group: Key of the group in both.
      layout: What they must be like.
      keypoint_joints: Joints of the 2D file.
      actions: Leaves out all others.

    Returns:
      By name, in the order of the 3D file.

    Raises:
      ValueError: A group or take is missing, a take has an unknown name, or an array is not as
        described; the message names path and key.
    """
    recorded, seen = positions.takes(group), keypoints.takes(group)
    takes = {}
    for name, value in recorded.items():
        label = f"{positions.path}: key '{positions.key}/{group}/{name}'"
        match = re.fullmatch(layout.take, name)
        if match is None or match[1] not in layout.actions:
            raise ValueError(
                f"{label}: expected a name like {layout.example!r}, of an action of "
                f"{layout.actions}"
            )
        if match[1] not in actions:
            continue
        if name not in seen:
            raise ValueError(
                f"{keypoints.path}: key '{keypoints.key}/{group}': expected the take {name!r} of "
                f"{positions.path.name}, got {sorted(seen)}"
            )
        world = _check_positions(value, layout, positions.path, f"{positions.key}/{group}/{name}")
        views = _check_views(
            seen[name],
            (len(world), keypoint_joints),
            layout.camera_names,
            keypoints.path,
            f"{keypoints.key}/{group}/{name}",
        )
        takes[name] = Take(match[1], world, views)
    return takes


def check_symmetry(keypoints: NestedFile, skeleton: Skeleton) -> None:
    """Checks left and right in the `metadata` of a keypoint file, where it has any.

    Raises:
      ValueError: They are not those of the skeleton: the joints are in another order.
    """
    metadata = keypoints.entries.get("metadata")
    if metadata is None:
        return
    label = f"{keypoints.path}: key 'metadata'"
    if not isinstance(metadata, dict):
        raise ValueError(f"{label}: expected a dictionary, got {_describe(metadata)}")
    symmetry: Any = metadata.get("keypoints_symmetry")
    try:
        found = tuple(tuple(int(joint) for joint in side) for side in symmetry)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{label}: keypoints_symmetry: expected two lists of joints, got {symmetry!r}"
        ) from None
    if found != (skeleton.left, skeleton.right):
        raise ValueError(
            f"{label}: keypoints_symmetry: expected left {skeleton.left} and right "
            f"{skeleton.right} of {skeleton.name!r}, got {found}"
        )


def view_sequences(
    takes: Mapping[str, Take], cameras: Camera, *, layout: Layout, subject: str, prefix: str
) -> list[PoseSequence]:
    """One sequence for each take and camera.

    Args:
      takes: By name; the root is the first joint.
      cameras: Leaves `(cameras, ...)`.
      layout: Names the cameras.
      subject: Of all takes.
      prefix: Begins the names, which go on with take and camera.

    Returns:
      Takes in order, views of one take beside each other.
    """
    joints = in_camera_axes({name: take.world for name, take in takes.items()}, cameras)
    sequences = []
    for name, take in takes.items():
        for c, camera_name in enumerate(layout.camera_names):
            pixels, points = take.views[c], joints[name][c]
            sequences.append(
                PoseSequence(
                    name=f"{prefix}/{name}/{camera_name}",
                    subject=subject,
                    action=take.action,
                    fps=layout.fps,
                    keypoints_px=pixels,
                    confidence=np.ones(pixels.shape[:2], np.float32),
                    camera=jax.tree.map(lambda leaf, c=c: leaf[c], cameras),
                    pose=points - points[:, :1],
                    root=points[:, 0].copy(),
                )
            )
    return sequences


def in_camera_axes(worlds: Mapping[str, NDArray], cameras: Camera) -> dict[str, NDArray]:
    """World positions `(F, J, 3)` of takes as each camera sees them, `(cameras, F, J, 3)`."""
    if not worlds:
        return {}
    # All frames at once: one shape, so one compilation for each subject.
    world = np.concatenate(list(worlds.values()))
    stacked = np.broadcast_to(world, (len(cameras.focal), *world.shape))
    joints = np.asarray(jax.device_get(world_to_camera(cameras, jnp.asarray(stacked))))
    cuts = np.cumsum([len(take) for take in worlds.values()])[:-1]
    return dict(zip(worlds, np.split(joints, cuts, axis=1), strict=True))


def _check_positions(value: Any, layout: Layout, path: pathlib.Path, key: str) -> NDArray:
    array = check_array(value, (None, layout.num_joints, 3), path=path, key=key)
    label = f"{path}: key {key!r}"
    if len(array) == 0:
        raise ValueError(f"{label}: expected at least one frame, got {array.shape}")
    _check_magnitude(array, _FARTHEST_M, "metres", label)
    hip, knee = (array[:, joint].astype(np.float64) for joint in layout.thigh)
    length = float(np.median(np.linalg.norm(hip - knee, axis=-1)))
    if not _THIGH[0] <= length <= _THIGH[1]:
        raise ValueError(
            f"{label}: expected metres, got a thigh of {length:.4g} (a file in millimetres must be "
            f"divided by 1000)"
        )
    return array.astype(np.float32)


def _check_views(
    value: Any,
    shape: tuple[int, int],
    camera_names: Sequence[str],
    path: pathlib.Path,
    key: str,
) -> list[NDArray]:
    """Keypoints of each camera, without what runs on after the end of the 3D positions."""
    num_frames, joints = shape
    if not isinstance(value, list | tuple | np.ndarray) or len(value) != len(camera_names):
        raise ValueError(
            f"{path}: key {key!r}: expected a list of {len(camera_names)} views "
            f"({', '.join(camera_names)}), got {_describe(value)}"
        )
    views = []
    for name, view in zip(camera_names, value, strict=True):
        place = f"{key}[{name}]"
        check_array(view, (None, joints, 2), path=path, key=place)
        if len(view) < num_frames:
            raise ValueError(
                f"{path}: key {place!r}: expected at least the {num_frames} frames of the 3D "
                f"positions, got {len(view)}"
            )
        _check_magnitude(view, _FARTHEST_PX, "pixels", f"{path}: key {place!r}")
        views.append(view[:num_frames].astype(np.float32))
    return views


def _check_magnitude(array: NDArray, limit: float, unit: str, label: str) -> None:
    largest = np.abs(array).max(initial=0.0)
    if largest > limit:
        raise ValueError(f"{label}: expected {unit} of at most {limit:g}, got {largest:.4g}")


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
