"""The layout that VideoPose3D gave Human3.6M and HumanEva: subject, then take, then arrays.

`data_3d_*.npz` holds world positions of a take, `data_2d_*.npz` a list of keypoints with one entry
for each camera. Both are pickled dictionaries and read without trust.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.camera import world_to_camera
from posediff_jax.data.npz import check_array, read_npz
from posediff_jax.data.sequences import PoseSequence
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Camera

Nested = dict[str, dict[str, Any]]
Views = dict[str, list[NDArray]]

# Beyond these, numbers are those of a broken file.
_FARTHEST_M, _FARTHEST_PX = 1e3, 1e6
# Metres from hip to knee of any grown person, whatever the joint convention.
_THIGH = (0.2, 0.8)


def read_nested(path: pathlib.Path, key: str) -> tuple[Nested, dict[str, Any]]:
    """Reads a file of the layout.

    Args:
      path: The npz file.
      key: Which of its entries to read.

    Returns:
      The entry, subject -> take -> anything, and all entries of the file.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file cannot be read, lacks the key, or is not nested like this.
    """
    entries = read_npz(path, objects=True)
    if key not in entries:
        raise ValueError(f"{path}: expected the key {key!r}, got {sorted(entries)}")
    nested = entries[key]
    levels = [(key, nested)]
    if isinstance(nested, dict):
        levels += [(f"{key}/{subject}", takes) for subject, takes in nested.items()]
    for name, level in levels:
        if not isinstance(level, dict) or not all(isinstance(k, str) for k in level):
            raise ValueError(
                f"{path}: key {name!r}: expected a dictionary of names, got {_describe(level)}"
            )
    return nested, entries


def takes_of(nested: Nested, subject: str, *, path: pathlib.Path, key: str) -> dict[str, Any]:
    """The takes of one subject.

    Raises:
      ValueError: The file has no such subject; the message lists those that it has.
    """
    if subject not in nested:
        raise ValueError(
            f"{path}: key {key!r}: expected the subject {subject!r}, got {sorted(nested)}"
        )
    return nested[subject]


def check_symmetry(entries: Mapping[str, Any], skeleton: Skeleton, path: pathlib.Path) -> None:
    """Checks left and right in the `metadata` of a keypoint file, where it has any.

    Raises:
      ValueError: They are not those of the skeleton: the joints are in another order.
    """
    metadata = entries.get("metadata")
    if metadata is None:
        return
    label = f"{path}: key 'metadata'"
    if not isinstance(metadata, dict):
        raise ValueError(f"{label}: expected a dictionary, got {_describe(metadata)}")
    symmetry = metadata.get("keypoints_symmetry")
    try:
        found = tuple(tuple(int(joint) for joint in side) for side in symmetry)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise ValueError(
            f"{label}: keypoints_symmetry: expected two lists of joints, got {symmetry!r}"
        ) from None
    if found != (skeleton.left, skeleton.right):
        raise ValueError(
            f"{label}: keypoints_symmetry: expected left {skeleton.left} and right "
            f"{skeleton.right} of {skeleton.name!r}, got {found}"
        )


def check_positions(
    value: Any, joints: int, thigh: tuple[int, int], *, path: pathlib.Path, key: str
) -> NDArray[np.float32]:
    """Checks the world positions of a take.

    Args:
      value: What the file holds.
      joints: How many joints there must be.
      thigh: Joints at its ends, by whose distance millimetres are found out.
      path: For messages.
      key: For messages.

    Returns:
      `(F, joints, 3)`, metres.

    Raises:
      ValueError: It is no finite array of that shape, has no frames, or is not in metres.
    """
    array = check_array(value, (None, joints, 3), path=path, key=key)
    if len(array) == 0:
        raise ValueError(f"{path}: key {key!r}: expected at least one frame, got {array.shape}")
    _check_magnitude(array, _FARTHEST_M, "metres", f"{path}: key {key!r}")
    array = array.astype(np.float64)
    length = float(np.median(np.linalg.norm(array[:, thigh[0]] - array[:, thigh[1]], axis=-1)))
    if not _THIGH[0] <= length <= _THIGH[1]:
        raise ValueError(
            f"{path}: key {key!r}: expected metres, got a thigh of {length:.4g} (a file in "
            f"millimetres must be divided by 1000)"
        )
    return array.astype(np.float32)


def check_views(
    value: Any,
    num_frames: int,
    joints: int,
    camera_names: Sequence[str],
    *,
    path: pathlib.Path,
    key: str,
) -> list[NDArray[np.float32]]:
    """Checks the keypoints of a take, and cuts what runs on after the end of its 3D positions.

    Args:
      value: What the file holds.
      num_frames: F, frames of the 3D positions.
      joints: How many joints there must be.
      camera_names: The cameras in order.
      path: For messages.
      key: For messages.

    Returns:
      `(F, joints, 2)` for each camera, pixels.

    Raises:
      ValueError: There is another number of views, or a view is no finite array of that shape or
        ends before its 3D positions do.
    """
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


def view_sequences(
    takes: Mapping[str, NDArray],
    keypoints: Mapping[str, Sequence[NDArray]],
    cameras: Camera,
    camera_names: Sequence[str],
    *,
    subject: str,
    actions: Mapping[str, str],
    fps: float,
    prefix: str,
) -> list[PoseSequence]:
    """One sequence for each take and camera.

    Args:
      takes: World positions `(F, J, 3)`, metres, root first, by the name of the take.
      keypoints: For each take one `(F, J, 2)` in pixels per camera.
      cameras: Leaves `(cameras, ...)`.
      camera_names: Their names.
      subject: Of all takes.
      actions: The action of each take.
      fps: Frames per second.
      prefix: Begins the names, which go on with take and camera.

    Returns:
      Takes in order, views of one take beside each other.
    """
    if not takes:
        return []
    joints = in_camera_axes(takes, cameras)
    sequences = []
    for take in takes:
        for c, name in enumerate(camera_names):
            pixels, points = keypoints[take][c], joints[take][c]
            sequences.append(
                PoseSequence(
                    name=f"{prefix}/{take}/{name}",
                    subject=subject,
                    action=actions[take],
                    fps=fps,
                    keypoints_px=pixels,
                    confidence=np.ones(pixels.shape[:2], np.float32),
                    camera=jax.tree.map(lambda leaf, c=c: leaf[c], cameras),
                    pose=points - points[:, :1],
                    root=points[:, 0].copy(),
                )
            )
    return sequences


def in_camera_axes(takes: Mapping[str, NDArray], cameras: Camera) -> dict[str, NDArray]:
    """World positions `(F, J, 3)` of takes as each camera sees them, `(cameras, F, J, 3)`."""
    # All frames at once: one shape, so one compilation for each subject.
    world = np.concatenate(list(takes.values()))
    stacked = np.broadcast_to(world, (len(cameras.focal), *world.shape))
    joints = np.asarray(jax.device_get(world_to_camera(cameras, jnp.asarray(stacked))))
    cuts = np.cumsum([len(take) for take in takes.values()])[:-1]
    return dict(zip(takes, np.split(joints, cuts, axis=1), strict=True))


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
