"""Reads HumanEva-I from the npz files of VideoPose3D: 15 joints, three colour cameras.

A folder holds `data_3d_humaneva15.npz` and any of the keypoint files in `KEYPOINT_FILES`.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from posediff_jax.calibration import make_camera
from posediff_jax.data.sequences import PoseSequence, PoseSequences
from posediff_jax.data.videopose import (
    Nested,
    check_positions,
    check_symmetry,
    check_views,
    in_camera_axes,
    read_nested,
    takes_of,
    view_sequences,
)
from posediff_jax.skeleton import COCO_17, HUMANEVA_15, joint_map
from posediff_jax.types import Camera

SUBJECTS = ("S1", "S2", "S3")
SPLITS = {"train": "Train", "validate": "Validate"}
ACTIONS = ("Walking", "Jog", "ThrowCatch", "Gestures", "Box")
CAMERA_IDS = ("C1", "C2", "C3")
KEYPOINT_FILES = {
    "gt": ("data_2d_humaneva15_gt.npz", HUMANEVA_15),
    "detectron": ("data_2d_humaneva15_detectron_pt_coco.npz", COCO_17),
}
_FPS = 60.0
_IMAGE_SIZE = (640.0, 480.0)
_LEFT_THIGH = (8, 9)
# Standard deviation of X / Z below which focal length and principal point cannot be told apart.
_LEAST_SPREAD = 1e-3

# Quaternion (w, x, y, z) from camera to world axes, and position in metres, of each camera, as
# published with VideoPose3D. S1 and S3 were filmed with one calibration.
_PLACES_1_AND_3 = (
    ((0.424207, -0.4983646, -0.5802981, 0.4847012), (4.062227, 0.663248, 1.528397)),
    ((0.6503354, -0.7481602, -0.0919284, 0.0941766), (0.844813, -3.805209, 1.504993)),
    ((0.0664734, -0.0690535, 0.7416416, -0.6639132), (-0.797674, 3.916317, 1.433660)),
)
_PLACES = {
    "S1": _PLACES_1_AND_3,
    "S2": (
        ((0.4214752, -0.4961493, -0.5838273, 0.4851187), (4.112912, 0.626493, 1.545299)),
        ((0.6501393, -0.7476588, -0.0954617, 0.0959808), (0.923574, -3.877924, 1.504552)),
        ((0.0699353, -0.0712403, 0.7421637, -0.662742), (-0.781491, 3.838885, 1.444993)),
    ),
    "S3": _PLACES_1_AND_3,
}


def load_humaneva(
    folder: str | pathlib.Path,
    split: str = "train",
    *,
    keypoints: str = "gt",
    subjects: Sequence[str] = SUBJECTS,
    actions: Sequence[str] | None = None,
) -> PoseSequences:
    """Reads the sequences of a split as the three colour cameras saw them.

    Each chunk of a recording, a run of frames with valid motion capture, is a sequence of its own.
    "Walking 1 chunk0" has the action "Walking". The papers evaluate on "validate", actions Walking,
    Jog and Box.

    The files hold no lenses. Focal length and principal point of a camera are those that take the
    3D positions of its subject (both splits) nearest to the keypoints, without distortion: they
    come from ground truth, as any calibration, and contain no pose.

    Args:
      folder: Holds the files.
      split: "train" or "validate".
      keypoints: "gt", or "detectron": 17 COCO joints, made into 15.
      subjects: Of `SUBJECTS`.
      actions: Reads these of `ACTIONS` only; None reads all.

    Returns:
      Sequences named `<Split>/<subject>/<take>/<camera>` of `HUMANEVA_15`, metres and pixels, 60
      frames per second.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: An option is unknown, or a file is corrupt or holds other keys, subjects, joints,
        units or values than described; the message names path and key.
    """
    wanted = ACTIONS if actions is None else tuple(actions)
    for option, given, known in (
        ("split", (split,), tuple(SPLITS)),
        ("keypoints", (keypoints,), tuple(KEYPOINT_FILES)),
        ("subjects", tuple(subjects), SUBJECTS),
        ("actions", wanted, ACTIONS),
    ):
        if not given or not set(given) <= set(known):
            raise ValueError(f"{option}: expected some of {known}, got {given}")
    name, order = KEYPOINT_FILES[keypoints]
    path_3d = pathlib.Path(folder) / "data_3d_humaneva15.npz"
    path_2d = pathlib.Path(folder) / name
    positions, _ = read_nested(path_3d, "positions_3d")
    views, entries = read_nested(path_2d, "positions_2d")
    check_symmetry(entries, order, path_2d)
    sequences: list[PoseSequence] = []
    for subject in subjects:
        takes = {
            part: _read_takes(f"{part}/{subject}", (positions, path_3d), (views, path_2d), order)
            for part in SPLITS.values()
        }
        cameras = _fit_cameras(subject, takes, path_2d)
        sequences += _sequences(subject, SPLITS[split], takes[SPLITS[split]], cameras, wanted)
    if not sequences:
        raise ValueError(
            f"{path_3d}: key 'positions_3d': expected takes of {wanted} by {tuple(subjects)} in "
            f"{SPLITS[split]}, got none"
        )
    return PoseSequences(tuple(sequences), HUMANEVA_15)


_Take = tuple[str, NDArray, list[NDArray]]  # action, world positions, keypoints of each camera


def _sequences(
    subject: str, part: str, takes: Mapping[str, _Take], cameras: Camera, wanted: Sequence[str]
) -> list[PoseSequence]:
    chosen = {name: take for name, take in takes.items() if take[0] in wanted}
    return view_sequences(
        {name: world for name, (_, world, _) in chosen.items()},
        {name: views for name, (_, _, views) in chosen.items()},
        cameras,
        CAMERA_IDS,
        subject=subject,
        actions={name: action for name, (action, _, _) in chosen.items()},
        fps=_FPS,
        prefix=f"{part}/{subject}",
    )


def _read_takes(
    group: str,
    positions: tuple[Nested, pathlib.Path],
    views: tuple[Nested, pathlib.Path],
    order: Any,
) -> dict[str, _Take]:
    (nested_3d, path_3d), (nested_2d, path_2d) = positions, views
    seen = takes_of(nested_2d, group, path=path_2d, key="positions_2d")
    takes = {}
    for take, value in takes_of(nested_3d, group, path=path_3d, key="positions_3d").items():
        key = f"positions_3d/{group}/{take}"
        match = re.fullmatch(r"(\w+) \d+ chunk\d+", take)
        if match is None or match[1] not in ACTIONS:
            raise ValueError(
                f"{path_3d}: key {key!r}: expected an action of {ACTIONS}, a number and a chunk, "
                f"like 'Walking 1 chunk0'"
            )
        if take not in seen:
            raise ValueError(
                f"{path_2d}: key 'positions_2d/{group}': expected the take {take!r} of "
                f"{path_3d.name}, got {sorted(seen)}"
            )
        world = check_positions(value, HUMANEVA_15.num_joints, _LEFT_THIGH, path=path_3d, key=key)
        pixels = check_views(
            seen[take],
            len(world),
            order.num_joints,
            CAMERA_IDS,
            path=path_2d,
            key=f"positions_2d/{group}/{take}",
        )
        if order != HUMANEVA_15:
            pixels = [joint_map(order.name, HUMANEVA_15.name).apply(view) for view in pixels]
        takes[take] = (match[1], world, pixels)
    return takes


def _fit_cameras(
    subject: str, takes: Mapping[str, Mapping[str, _Take]], path: pathlib.Path
) -> Camera:
    """The cameras of a subject, lenses fitted to all of its takes; leaves `(3, ...)`."""
    orientation, position = (np.asarray(x, np.float32) for x in zip(*_PLACES[subject], strict=True))
    size = np.broadcast_to(np.asarray(_IMAGE_SIZE, np.float32), (len(CAMERA_IDS), 2))
    # Before the lens is known it plays no part in `in_camera_axes`.
    bare = make_camera(size, size / 2.0, size, orientation=orientation, position=position)
    flat = {(part, name): take for part, group in takes.items() for name, take in group.items()}
    if not flat:
        raise ValueError(f"{path}: expected takes of {subject!r}, got none")
    joints = in_camera_axes({str(k): world for k, (_, world, _) in flat.items()}, bare)
    lenses = []
    for c, name in enumerate(CAMERA_IDS):
        points = np.concatenate([seen[c].reshape(-1, 3) for seen in joints.values()])
        pixels = np.concatenate([views[c].reshape(-1, 2) for _, _, views in flat.values()])
        lens = fit_lens(points, pixels)
        if lens is None:
            raise ValueError(
                f"{path}: key 'positions_2d': {subject}, camera {name}: expected keypoints of the "
                f"3D positions, got some that no lens explains"
            )
        lenses.append(lens)
    focal, center = np.asarray(lenses, np.float32).swapaxes(0, 1)
    camera = make_camera(focal, center, size, orientation=orientation, position=position)
    return jax.device_get(camera)


def fit_lens(points: NDArray, pixels: NDArray) -> tuple[NDArray, NDArray] | None:
    """Focal lengths and principal point that best take points to pixels, by least squares.

    Args:
      points: In camera axes, in front of the camera, `(N, 3)`.
      pixels: Where they were seen, `(N, 2)`.

    Returns:
      Focal lengths and principal point, `(2,)` each, pixels; None where the points do not tell them
      or contradict every lens (a focal length that is not positive).
    """
    points = np.asarray(points, np.float64)
    if not (points[:, 2] > 0).all():
        return None
    lens = []
    for axis in range(2):
        slope = points[:, axis] / points[:, 2]
        spread = slope.std()
        if not spread > _LEAST_SPREAD:
            return None
        design = np.stack([slope, np.ones_like(slope)], axis=1)
        lens.append(np.linalg.lstsq(design, np.float64(pixels[:, axis]), rcond=None)[0])
    focal, center = np.stack(lens, axis=1)
    return (focal, center) if (focal > 0).all() else None
