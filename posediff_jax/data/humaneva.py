"""Reads HumanEva-I from the npz files of VideoPose3D: 15 joints, three colour cameras.

A folder holds `data_3d_humaneva15.npz` and any of the keypoint files in `KEYPOINT_FILES`.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from posediff_jax.calibration import fit_lens, make_camera
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.data.videopose import (
    Layout,
    NestedFile,
    Take,
    check_symmetry,
    in_camera_axes,
    read_nested,
    read_takes,
    view_sequences,
)
from posediff_jax.skeleton import COCO_17, HUMANEVA_15, Skeleton, joint_map
from posediff_jax.types import Camera

SUBJECTS = ("S1", "S2", "S3")
SPLITS = {"train": "Train", "validate": "Validate"}
ACTIONS = ("Walking", "Jog", "ThrowCatch", "Gestures", "Box")
CAMERA_IDS = ("C1", "C2", "C3")
KEYPOINT_FILES = {
    "gt": ("data_2d_humaneva15_gt.npz", HUMANEVA_15),
    "detectron": ("data_2d_humaneva15_detectron_pt_coco.npz", COCO_17),
}
_LAYOUT = Layout(
    num_joints=HUMANEVA_15.num_joints,
    thigh=(8, 9),
    camera_names=CAMERA_IDS,
    actions=ACTIONS,
    take=r"(\w+) \d+ chunk\d+",
    example="Walking 1 chunk0",
    fps=60.0,
)
_IMAGE_SIZE = (640.0, 480.0)

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
    positions = read_nested(pathlib.Path(folder) / "data_3d_humaneva15.npz", "positions_3d")
    views = read_nested(pathlib.Path(folder) / name, "positions_2d")
    check_symmetry(views, order)
    sequences = []
    for subject in subjects:
        takes = _read_subject(positions, views, subject, order)
        cameras = _fit_cameras(
            subject, [take for group in takes.values() for take in group.values()], views.path
        )
        part = SPLITS[split]
        chosen = {name: take for name, take in takes[part].items() if take.action in wanted}
        sequences += view_sequences(
            chosen, cameras, layout=_LAYOUT, subject=subject, prefix=f"{part}/{subject}"
        )
    if not sequences:
        raise ValueError(
            f"{positions.path}: key 'positions_3d': expected takes of {wanted} by "
            f"{tuple(subjects)} in {SPLITS[split]}, got none"
        )
    return PoseSequences(tuple(sequences), HUMANEVA_15)


def _read_subject(
    positions: NestedFile, keypoints: NestedFile, subject: str, order: Skeleton
) -> dict[str, dict[str, Take]]:
    """All takes of both splits, keypoints as `HUMANEVA_15`."""
    parts = {}
    for part in SPLITS.values():
        takes = read_takes(
            positions,
            keypoints,
            f"{part}/{subject}",
            layout=_LAYOUT,
            keypoint_joints=order.num_joints,
            actions=ACTIONS,
        )
        if order != HUMANEVA_15:
            convert = joint_map(order.name, HUMANEVA_15.name).apply
            takes = {
                name: take._replace(views=[convert(view) for view in take.views])
                for name, take in takes.items()
            }
        parts[part] = takes
    return parts


def _fit_cameras(subject: str, takes: Sequence[Take], path: pathlib.Path) -> Camera:
    """The cameras of a subject, lenses fitted to all of its takes; leaves `(3, ...)`."""
    if not takes:
        raise ValueError(f"{path}: key 'positions_2d': expected takes of {subject}, got none")
    orientation, position = (np.asarray(x, np.float32) for x in zip(*_PLACES[subject], strict=True))
    size = np.broadcast_to(np.asarray(_IMAGE_SIZE, np.float32), (len(CAMERA_IDS), 2))
    # Before the lens is known it plays no part in `in_camera_axes`.
    bare = make_camera(size, size / 2.0, size, orientation=orientation, position=position)
    joints = in_camera_axes({"all": np.concatenate([take.world for take in takes])}, bare)["all"]
    lenses = []
    for c, name in enumerate(CAMERA_IDS):
        pixels = np.concatenate([take.views[c] for take in takes])
        lens = fit_lens(joints[c].reshape(-1, 3), pixels.reshape(-1, 2))
        if lens is None:
            raise ValueError(
                f"{path}: key 'positions_2d': {subject}, camera {name}: expected keypoints of the "
                f"3D positions, got some that no lens explains"
            )
        lenses.append(lens)
    focal, center = np.asarray(lenses, np.float32).swapaxes(0, 1)
    camera = make_camera(focal, center, size, orientation=orientation, position=position)
    return jax.device_get(camera)
