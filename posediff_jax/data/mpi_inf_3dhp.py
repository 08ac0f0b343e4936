"""Reads MPI-INF-3DHP: the npz files of P-STMO, D3DP and DDHPose, or the original `.mat` files.

The data set has two annotations of the same frames. "annot3" is the person who was filmed;
"univ_annot3" has every body scaled to one universal skeleton. Errors in the one do not compare with
errors in the other, so a caller names which. The npz files have one each:
`data_{train,test}_3dhp_ori.npz` is annot3, `data_{train,test}_3dhp.npz` is univ_annot3.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from posediff_jax.calibration import fit_lens, make_camera
from posediff_jax.data.mpi_inf_3dhp_mat import read_original_test, read_original_train
from posediff_jax.data.npz import check_array, read_npz
from posediff_jax.data.scored import ScoredViews
from posediff_jax.data.sequences import PoseSequence, PoseSequences
from posediff_jax.skeleton import MPI_INF_3DHP_17
from posediff_jax.types import Camera

ANNOTATIONS = ("annot3", "univ_annot3")
SUBJECTS = tuple(f"S{i}" for i in range(1, 9))
TEST_SEQUENCES = tuple(f"TS{i}" for i in range(1, 7))
# Those at chest height, of 14.
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
_SUFFIX = {"annot3": "_ori", "univ_annot3": ""}
_TRAIN_SIZE = (2048.0, 2048.0)
# Indoors and outdoors: image size, sensor, focal length, and principal point from the middle of the
# sensor, millimetres.
_TEST_LENSES = (
    ((2048.0, 2048.0), (10.0, 10.0), 7.32506, (-0.0322884, 0.0929296)),
    ((1920.0, 1080.0), (10.0, 5.625), 8.770747185, (-0.104908645, 0.104899704)),
)
_OUTDOORS = ("TS5", "TS6")
_TEST_FPS = 25.0
# Millimetres from hip to knee of any person, and joints at its ends.
_THIGH, _THIGH_ENDS = (200.0, 800.0), (8, 9)

_Lens = tuple[NDArray, NDArray]
# Name, frames per second, pixels, millimetres, where they are from for errors, lens where known.
_Recorded = tuple[str, float, NDArray, NDArray, str, _Lens | None]


def load_mpi_inf_3dhp_train(
    folder: str | pathlib.Path,
    *,
    annotation: str = "annot3",
    subjects: Sequence[str] = SUBJECTS,
    cameras: Sequence[int] = CAMERAS,
) -> PoseSequences:
    """Reads training sequences as each camera saw them.

    Args:
      folder: Holds the npz file of the annotation, or `S1/Seq1/annot.mat` and
        `S1/Seq1/camera.calibration` to `S8/Seq2/...`; the npz file is taken where both are there.
        It holds no lenses: focal length and principal point of a camera are those that take the
        3D joints nearest to the 2D joints of a sequence.
      annotation: "annot3" or "univ_annot3".
      subjects: Of `SUBJECTS`.
      cameras: Numbers of cameras; those of the papers by default.

    Returns:
      Sequences named `S1/Seq1/0`, subject, sequence, camera, of `MPI_INF_3DHP_17`, metres and
      pixels, at the rate of the file (25 or 50 frames per second).

    Raises:
      FileNotFoundError: A file is missing.
      ImportError: A `.mat` file of version 7.3, and h5py is not installed.
      ValueError: An option is unknown, or a file is corrupt or holds something else; the message
        names path and key.
    """
    _check_options(annotation, subjects, SUBJECTS, "subjects")
    folder = pathlib.Path(folder)
    path = folder / f"data_train_3dhp{_SUFFIX[annotation]}.npz"
    if path.is_file():
        recorded = _npz_views(path, subjects, cameras)
    elif (folder / subjects[0]).is_dir():
        recorded = _mat_views(folder, annotation, subjects, cameras)
    else:
        raise FileNotFoundError(_missing(path, folder / subjects[0] / "Seq1" / "annot.mat"))
    sequences = [_train_sequence(*view) for view in recorded]
    return PoseSequences(tuple(sequences), MPI_INF_3DHP_17)


def load_mpi_inf_3dhp_test(
    folder: str | pathlib.Path,
    *,
    annotation: str = "annot3",
    sequences: Sequence[str] = TEST_SEQUENCES,
) -> ScoredViews:
    """Reads the six test sequences; only frames marked as valid are scored.

    Frames between them are seen by the network but have no pose: theirs is that of the nearest
    valid frame. Each sequence is an action of its own, so that "mean" in the printed tables is the
    plain mean of the sequences (as the papers average) and "frames" that of all valid frames.

    Args:
      folder: Holds the npz file of the annotation, or `TS1/annot_data.mat` to
        `TS6/annot_data.mat`; the npz file is taken where both are there.
      annotation: "annot3" or "univ_annot3".
      sequences: Of `TEST_SEQUENCES`.

    Returns:
      Sequences named `TS1` to `TS6` of `MPI_INF_3DHP_17`, metres and pixels, with the lenses that
      D3DP published, and their valid frames.

    Raises:
      FileNotFoundError: A file is missing.
      ImportError: A `.mat` file of version 7.3, and h5py is not installed.
      ValueError: An option is unknown, or a file is corrupt or holds something else; the message
        names path and key.
    """
    _check_options(annotation, sequences, TEST_SEQUENCES, "sequences")
    folder = pathlib.Path(folder)
    path = folder / f"data_test_3dhp{_SUFFIX[annotation]}.npz"
    views, scored = [], []
    entries = _npz_entries(path) if path.is_file() else None
    if entries is None and not (folder / sequences[0]).is_dir():
        raise FileNotFoundError(_missing(path, folder / sequences[0] / "annot_data.mat"))
    for name in sequences:
        keys = ("annot2", annotation, "valid_frame")
        source = folder / name / "annot_data.mat"
        if entries is None:
            pixels, joints, valid = read_original_test(source, annotation)
        else:
            source, where = path, f"data/{name}"
            keys = (f"{where}/data_2d", f"{where}/data_3d", f"{where}/valid")
            found = _entry(entries, name, path, "data")
            pixels, joints, valid = (
                _entry(found, key, path, where) for key in ("data_2d", "data_3d", "valid")
            )
        pixels, joints, valid = _check_test(pixels, joints, valid, source, keys)
        views.append(_test_sequence(name, pixels, joints, valid))
        scored.append(valid)
    known = tuple(scored)
    return ScoredViews(PoseSequences(tuple(views), MPI_INF_3DHP_17), known, known)


def _check_options(annotation: str, given: Sequence[str], known: Sequence[str], name: str) -> None:
    if annotation not in ANNOTATIONS:
        raise ValueError(f"annotation: expected one of {ANNOTATIONS}, got {annotation!r}")
    if not given or not set(given) <= set(known):
        raise ValueError(f"{name}: expected some of {tuple(known)}, got {tuple(given)}")


def _missing(npz: pathlib.Path, mat: pathlib.Path) -> str:
    others = sorted(p.name for p in npz.parent.glob("data_*_3dhp*.npz"))
    hint = f" (there are {others}, of another annotation or split)" if others else ""
    return f"{npz}: no such npz file, and no {mat}{hint}"


def _npz_entries(path: pathlib.Path) -> dict[str, Any]:
    entries = read_npz(path, objects=True)
    found = _entry(entries, "data", path, "")
    if not isinstance(found, dict):
        raise ValueError(f"{path}: key 'data': expected a dictionary, got {type(found).__name__}")
    return found


def _entry(found: Any, key: Any, path: pathlib.Path, where: str) -> Any:
    if not isinstance(found, dict) or key not in found:
        got = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        place = f"key {where!r}: " if where else ""
        raise ValueError(f"{path}: {place}expected the key {key!r}, got {got}")
    return found[key]


def _mat_views(
    folder: pathlib.Path, annotation: str, subjects: Sequence[str], cameras: Sequence[int]
) -> Iterator[_Recorded]:
    for subject in subjects:
        for part in ("Seq1", "Seq2"):
            source = folder / subject / part
            label = f"{source / 'annot.mat'}: key {annotation!r}"
            for view in read_original_train(source, annotation, cameras):
                name = f"{subject}/{part}/{view.camera}"
                yield name, view.fps, view.pixels, view.joints, label, view.lens


def _npz_views(
    path: pathlib.Path, subjects: Sequence[str], cameras: Sequence[int]
) -> Iterator[_Recorded]:
    entries = _npz_entries(path)
    for subject in subjects:
        for part in ("Seq1", "Seq2"):
            take = f"data/{subject} {part}"
            pair = _entry(entries, f"{subject} {part}", path, "data")
            if not isinstance(pair, list | tuple | np.ndarray) or len(pair) != 2:
                raise ValueError(
                    f"{path}: key {take!r}: expected views and frames per second, got "
                    f"{type(pair).__name__} of {np.size(pair)}"
                )
            fps = np.asarray(pair[1])
            if fps.dtype.kind not in "iuf" or fps.size != 1 or not 0 < float(fps.item()) < 1e4:
                raise ValueError(f"{path}: key {take!r}: expected frames per second, got {pair[1]}")
            for camera in cameras:
                view = _entry(pair[0], str(camera), path, take)
                key = f"{take}/{camera}"
                joints = check_array(
                    _entry(view, "data_3d", path, key),
                    (None, 17, 3),
                    path=path,
                    key=f"{key}/data_3d",
                )
                pixels = check_array(
                    _entry(view, "data_2d", path, key),
                    (len(joints), 17, 2),
                    path=path,
                    key=f"{key}/data_2d",
                )
                name, label = f"{subject}/{part}/{camera}", f"{path}: key '{key}/data_3d'"
                yield name, float(fps.item()), pixels, joints, label, None


def _train_sequence(
    name: str, fps: float, pixels: NDArray, joints: NDArray, label: str, lens: _Lens | None
) -> PoseSequence:
    _check_millimetres(joints, label)
    if lens is None:
        lens = fit_lens(joints.reshape(-1, 3), pixels.reshape(-1, 2))
    if lens is None:
        raise ValueError(
            f"{label}: expected 3D joints that a lens projects on the 2D joints, got {len(joints)} "
            f"frames of {name} that none does"
        )
    focal, center = (np.asarray(values, np.float32) for values in lens)
    camera = jax.device_get(make_camera(focal, center, _TRAIN_SIZE))
    subject, part, _ = name.split("/")
    return _sequence(name, subject, part, fps, pixels, joints, camera)


def _test_sequence(
    name: str, pixels: NDArray, joints: NDArray, valid: NDArray[np.bool_]
) -> PoseSequence:
    size, sensor, focal, center = _TEST_LENSES[name in _OUTDOORS]
    scale = np.divide(size, sensor).astype(np.float32)
    middle = np.asarray(size, np.float32) / 2
    camera = make_camera(scale * focal, scale * np.asarray(center, np.float32) + middle, size)
    return _sequence(name, name, name, _TEST_FPS, pixels, joints, jax.device_get(camera))


def _sequence(
    name: str,
    subject: str,
    action: str,
    fps: float,
    pixels: NDArray,
    joints: NDArray,
    camera: Camera,
) -> PoseSequence:
    metres = joints / 1000.0
    root = metres[:, MPI_INF_3DHP_17.root]
    return PoseSequence(
        name=name,
        subject=subject,
        action=action,
        fps=fps,
        keypoints_px=pixels.astype(np.float32),
        confidence=np.ones(pixels.shape[:2], np.float32),
        camera=camera,
        pose=(metres - root[:, None]).astype(np.float32),
        root=root.astype(np.float32),
    )


def _check_test(
    pixels: Any, joints: Any, valid: Any, path: pathlib.Path, keys: tuple[str, str, str]
) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """Checks what is valid; the rest is that of the nearest valid frame where it is no number."""
    flags = np.asarray(valid)
    known = flags.dtype.kind in "biuf" and np.isin(flags, (0, 1)).all()
    if not known or not flags.any():
        numbers = flags.dtype.kind in "biuf"
        found = f"the values {np.unique(flags)[:5].tolist()}" if numbers else str(flags.dtype)
        raise ValueError(
            f"{path}: key {keys[2]!r}: expected 1 for a valid frame, some of them, and else 0, got "
            f"{found}"
        )
    shown = flags.ravel().astype(bool)
    arrays = []
    for value, channels, key in ((pixels, 2, keys[0]), (joints, 3, keys[1])):
        array = np.asarray(value)
        fits = array.shape == (len(shown), 17, channels) and array.dtype.kind == "f"
        if not fits:
            raise ValueError(
                f"{path}: key {key!r}: expected a floating array {(len(shown), 17, channels)}, "
                f"got {array.dtype} {array.shape}"
            )
        silent = np.where(shown[:, None, None], array, 0.0)
        check_array(silent, (None, 17, channels), path=path, key=key)
        arrays.append(array)
    pixels, joints = arrays
    _check_millimetres(joints[shown], f"{path}: key {keys[1]!r}")
    nearest = _nearest(shown)
    lost = ~np.isfinite(pixels).all(axis=(1, 2))
    pixels = np.where(lost[:, None, None], pixels[nearest], pixels)
    return pixels, joints[nearest], shown


def _nearest(valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The nearest valid frame of each frame, the earlier one of two."""
    known, every = np.flatnonzero(valid), np.arange(len(valid))
    after = np.minimum(np.searchsorted(known, every), len(known) - 1)
    before = np.maximum(after - 1, 0)
    earlier = np.abs(every - known[before]) <= np.abs(known[after] - every)
    return np.where(earlier, known[before], known[after])


def _check_millimetres(joints: NDArray, label: str) -> None:
    hip, knee = (joints[:, joint].astype(np.float64) for joint in _THIGH_ENDS)
    if not len(joints):
        raise ValueError(f"{label}: expected at least one frame, got none")
    length = float(np.median(np.linalg.norm(hip - knee, axis=-1)))
    if not _THIGH[0] <= length <= _THIGH[1]:
        raise ValueError(f"{label}: expected millimetres, got a thigh of {length:.4g}")
