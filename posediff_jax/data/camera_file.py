"""Reads a camera's intrinsics from JSON."""

from pathlib import Path
from typing import Any

import numpy as np

from posediff_jax.calibration import camera_from_matrix, make_camera
from posediff_jax.data.detections import read_json
from posediff_jax.types import Camera

_FIELDS = {"K", "focal", "center", "image_size", "radial", "tangential"}


def read_camera(path: str | Path, image_size: tuple[int, int]) -> Camera:
    """Reads `{"K": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]}`, or that matrix alone, in pixels.

    In place of K: `focal`, one number or two, and `center`, two. Optional: `radial` (k1, k2, k3),
    `tangential` (p1, p2), as in `camera.project`, and `image_size`, which must be that of the
    keypoints.

    Args:
      path: The JSON file.
      image_size: Width and height of the images that the keypoints are from.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is no JSON, has other fields, impossible values, or is for other images.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such camera file")
    content: Any = read_json(path)
    fields = {"K": content} if isinstance(content, list) else content
    whole = isinstance(fields, dict) and not set(fields) - _FIELDS
    if not whole or ("K" in fields) == ({"focal", "center"} <= set(fields)):
        raise ValueError(
            f"{path}: expected K, or focal and center, and perhaps image_size, radial, tangential; "
            f"got {sorted(fields) if isinstance(fields, dict) else type(fields).__name__}"
        )
    lens = {name: fields[name] for name in ("radial", "tangential") if name in fields}
    try:
        if "image_size" in fields and list(fields["image_size"]) != list(image_size):
            raise ValueError(
                f"image_size: expected {tuple(image_size)}, that of the keypoints, got "
                f"{tuple(fields['image_size'])}"
            )
        if "K" in fields:
            camera = camera_from_matrix(fields["K"], image_size, **lens)
        else:
            camera = make_camera(fields["focal"], fields["center"], image_size, **lens)
        _check_plausible(camera, image_size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return camera


def _check_plausible(camera: Camera, image_size: tuple[int, int]) -> None:
    """What normalised intrinsics, or those of images of another size, would be refused for."""
    center, focal = np.asarray(camera.center), np.asarray(camera.focal)
    if not ((center > 0) & (center < np.array(image_size))).all():
        raise ValueError(
            f"center: expected a point of the image of {tuple(image_size)} pixels, got "
            f"{center.tolist()}; are the intrinsics those of these images, in pixels?"
        )
    if not (np.abs(focal) > 0.1 * max(image_size)).all():
        raise ValueError(
            f"focal: expected pixels, at least a tenth of the image, got {focal.tolist()}"
        )
