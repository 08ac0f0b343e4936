"""The files of MPI-INF-3DHP as distributed: `annot.mat`, `camera.calibration`, `annot_data.mat`."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.matlab import read_mat
from posediff_jax.data.npz import check_array

# Where the 17 joints of the test set are among the 28 of the training set.
_JOINTS_OF_28 = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
# The other sequences were filmed at 25.
_FILMED_AT_50 = ("S1/Seq2", "S3/Seq1", "S3/Seq2", "S5/Seq1", "S5/Seq2")


class OriginalView(NamedTuple):
    """One camera's share of a training sequence.

    Attributes:
      camera: Its number.
      fps: Frames per second.
      pixels: `(F, 17, 2)`.
      joints: Camera axes, millimetres, `(F, 17, 3)`.
      lens: Focal lengths and principal point, pixels.
    """

    camera: int
    fps: float
    pixels: NDArray
    joints: NDArray
    lens: tuple[NDArray, NDArray]


def read_original_train(
    folder: pathlib.Path, annotation: str, cameras: Sequence[int]
) -> list[OriginalView]:
    """Reads a training sequence, such as `S1/Seq1`.

    Args:
      folder: Holds `annot.mat` and `camera.calibration`.
      annotation: "annot3" or "univ_annot3".
      cameras: Numbers of cameras.

    Raises:
      FileNotFoundError: A file is missing.
      ImportError: A file of version 7.3, and h5py is not installed.
      ValueError: A file is corrupt or holds something else; the message names path and key.
    """
    path = folder / "annot.mat"
    entries = read_mat(path, ("annot2", annotation, "cameras"))
    lenses = read_calibration(folder / "camera.calibration")
    order = [int(number) for number in np.asarray(entries["cameras"]).ravel()]
    fps = 50.0 if f"{folder.parent.name}/{folder.name}" in _FILMED_AT_50 else 25.0
    views = []
    for camera in cameras:
        if camera not in order:
            raise ValueError(f"{path}: key 'cameras': expected the camera {camera}, got {order}")
        joints = _cell(entries[annotation], order.index(camera), 3, path, annotation)
        pixels = _cell(entries["annot2"], order.index(camera), 2, path, "annot2")
        if len(pixels) != len(joints):
            raise ValueError(
                f"{path}: key 'annot2': expected the {len(joints)} frames of {annotation!r}, "
                f"got {len(pixels)} (camera {camera})"
            )
        if camera not in lenses:
            raise ValueError(
                f"{folder / 'camera.calibration'}: expected the camera {camera}, got "
                f"{sorted(lenses)}"
            )
        views.append(OriginalView(camera, fps, pixels, joints, lenses[camera]))
    return views


def read_original_test(path: pathlib.Path, annotation: str) -> tuple[NDArray, NDArray, NDArray]:
    """Reads a test sequence.

    Args:
      path: `annot_data.mat`.
      annotation: "annot3" or "univ_annot3".

    Returns:
      Pixels `(F, 17, 2)`, joints in camera axes `(F, 17, 3)`, millimetres, and which frames are
      valid `(F,)`, as the file has them.

    Raises:
      FileNotFoundError: The file is missing.
      ImportError: A file of version 7.3, and h5py is not installed.
      ValueError: The file is corrupt or holds something else; the message names path and key.
    """
    entries = read_mat(path, ("annot2", annotation, "valid_frame"))
    arrays = []
    for key, channels in (("annot2", 2), (annotation, 3)):
        array = entries[key]
        # MATLAB's order: coordinates, joints, person, frames.
        if array.ndim != 4 or array.shape[:3] != (channels, 17, 1):
            raise ValueError(
                f"{path}: key {key!r}: expected shape ({channels}, 17, 1, frames) in MATLAB's "
                f"order, got {array.shape}"
            )
        arrays.append(np.ascontiguousarray(array[:, :, 0].T))
    return arrays[0], arrays[1], entries["valid_frame"].ravel()


def read_calibration(path: pathlib.Path) -> dict[int, tuple[NDArray, NDArray]]:
    """Focal lengths and principal point of each camera from `camera.calibration`, pixels.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It holds something else; the message names path and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    lenses: dict[int, tuple[NDArray, NDArray]] = {}
    camera = None
    for number, line in enumerate(path.read_text("latin-1").splitlines(), start=1):
        key, _, rest = line.strip().partition(" ")
        if key not in ("name", "intrinsic"):
            continue
        try:
            values = [float(word) for word in rest.split()]
        except ValueError:
            values = []
        if key == "name" and len(values) == 1 and values[0].is_integer():
            camera = int(values[0])
        elif key == "intrinsic" and len(values) == 16 and camera is not None:
            matrix = np.array(values).reshape(4, 4)
            focal, center = matrix[[0, 1], [0, 1]], matrix[:2, 2]
            if not np.isfinite(matrix).all() or not (focal > 0).all():
                raise ValueError(f"{path}: line {number}: expected positive focal lengths")
            lenses[camera] = focal, center
        else:
            raise ValueError(
                f"{path}: line {number}: expected a camera's number or its 16 intrinsics, got "
                f"{line.strip()!r}"
            )
    return lenses


def _cell(cells: NDArray, row: int, channels: int, path: pathlib.Path, key: str) -> NDArray:
    """The 17 joints of one camera, `(F, 17, channels)`."""
    if cells.dtype != object or cells.size <= row:
        raise ValueError(
            f"{path}: key {key!r}: expected a cell for each camera, got {cells.dtype} {cells.shape}"
        )
    label = f"{key}[{row}]"
    array = check_array(cells.ravel()[row], (None, 28 * channels), path=path, key=label)
    if not len(array):
        raise ValueError(f"{path}: key {label!r}: expected at least one frame, got {array.shape}")
    return array.reshape(len(array), 28, channels)[:, list(_JOINTS_OF_28)]
