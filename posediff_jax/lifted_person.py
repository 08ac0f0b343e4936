"""One person in three dimensions over a video, and the npz file that keeps them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posediff_jax._version import __version__
from posediff_jax.calibration import make_camera
from posediff_jax.data.npz import read_npz, write_npz
from posediff_jax.skeleton import Skeleton, get_skeleton
from posediff_jax.types import Camera

UNITS = "metres"
AXES = "camera: x right, y down, z forward"
_ARRAYS = (
    *("frames", "poses", "translations", "pose", "root", "chosen", "spread"),
    *("reprojection_error", "valid", "bad", "keypoints", "confidence", "derived"),
)
_TEXTS = ("track", "rule", "camera_from", "scale_from", "weights_from", "fingerprint")
_CAMERA = ("focal", "center", "image_size", "radial", "tangential")


@dataclasses.dataclass(frozen=True, eq=False)
class LiftedPerson:
    """Hypotheses of one person. Camera axes: x right, y down, z forward; H hypotheses, F frames.

    Where `valid` is False the poses are NaN, and the keypoints may be anything.

    Attributes:
      track: Who, see `PersonKeypoints`.
      frames: Frame numbers, `(F,)`.
      poses: All hypotheses, relative to the root joint, metres, `(H, F, J, 3)`.
      translations: Where their roots are, metres, `(H, F, 3)`.
      pose: The chosen one, `(F, J, 3)`.
      root: Where its root is, `(F, 3)`; `pose + root[:, None]` are points in camera axes.
      chosen: Its number, `(F,)`; -1 for the mean of all.
      spread: Root mean square distance of each joint to the mean of hypotheses, metres, `(F, J)`.
      reprojection_error: Mean distance to the keypoints, weighted by confidence, pixels, `(H, F)`.
      valid: Frames that could be lifted, `(F,)`: at least six joints were seen.
      bad: Frames whose input could not be read, `(F,)`.
      keypoints: The input, pixels, `(F, J, 2)`.
      confidence: 0 for what was missing, `(F, J)`.
      derived: True for joints that the detector did not see but that are means of others, `(J,)`.
      skeleton: The joint order.
      camera: Without leading axes.
      rule: How one hypothesis was chosen, see `lift`.
      camera_from: Where the focal length is from, in words.
      scale_from: Where the size of the person is from, in words.
      weights_from: Where the prior is from, in words.
      fingerprint: Of input, options and weights: equal for equal results.
    """

    track: str
    frames: NDArray
    poses: NDArray
    translations: NDArray
    pose: NDArray
    root: NDArray
    chosen: NDArray
    spread: NDArray
    reprojection_error: NDArray
    valid: NDArray
    bad: NDArray
    keypoints: NDArray
    confidence: NDArray
    derived: NDArray
    skeleton: Skeleton
    camera: Camera
    rule: str
    camera_from: str
    scale_from: str
    weights_from: str
    fingerprint: str

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the J joints."""
        return self.skeleton.joints


def write_lifted(path: str | Path, person: LiftedPerson) -> None:
    """Writes an npz, whole or not at all: the fields by name, with `joints`, `units` and `axes`.

    Args:
      path: The file.
      person: What to write.

    Raises:
      OSError: It cannot be written.
    """
    about = {name: getattr(person, name) for name in _TEXTS}
    about |= {"skeleton": person.skeleton.name, "version": __version__}
    arrays = {name: np.asarray(getattr(person, name)) for name in _ARRAYS}
    arrays |= {f"camera_{n}": np.asarray(getattr(person.camera, n)) for n in _CAMERA}
    arrays |= {
        "joints": np.array(person.joints),
        "units": np.array(UNITS),
        "axes": np.array(AXES),
        "scale_from": np.array(person.scale_from),
        "camera_from": np.array(person.camera_from),
        "about": np.array(json.dumps(about)),
    }
    write_npz(path, arrays)


def read_lifted(path: str | Path) -> LiftedPerson:
    """Reads a file by `write_lifted`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is corrupt or another kind of file.
    """
    arrays = read_npz(path)
    try:
        about = json.loads(str(arrays["about"]))
        fields: dict[str, Any] = {name: about[name] for name in _TEXTS}
        fields |= {name: arrays[name] for name in _ARRAYS}
        leaves = {name: arrays[f"camera_{name}"] for name in _CAMERA}
        skeleton = get_skeleton(about["skeleton"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a file by write_lifted, got another: {error}") from None
    return LiftedPerson(**fields, skeleton=skeleton, camera=make_camera(**leaves))


def read_fingerprint(path: str | Path) -> str:
    """The fingerprint of a file by `write_lifted`; empty where it is none."""
    try:
        return str(json.loads(str(read_npz(path)["about"]))["fingerprint"])
    except (KeyError, TypeError, ValueError, OSError):
        return ""
