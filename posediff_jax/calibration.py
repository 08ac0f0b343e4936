"""Cameras from what users have: focal lengths, a matrix K, or nothing but the image size.

Values are checked here, on the host; `posediff_jax.camera` then works with what is sound.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.types import Camera

_SIZES = {
    "focal": 2,
    "center": 2,
    "image_size": 2,
    "radial": 3,
    "tangential": 2,
    "orientation": 4,
    "position": 3,
}

# Standard deviation of X / Z below which focal length and principal point cannot be told apart.
_LEAST_SPREAD = 1e-3


def make_camera(
    focal: Any,
    center: Any,
    image_size: Any,
    *,
    radial: Any = None,
    tangential: Any = None,
    orientation: Any = None,
    position: Any = None,
) -> Camera:
    """Builds a camera from numbers on the host and checks their values.

    Args:
      focal: Focal lengths in pixels, `(..., 2)`, or one number for both axes.
      center: Principal point in pixels, `(..., 2)`.
      image_size: Width and height in pixels, `(..., 2)`.
      radial: k1, k2, k3, `(..., 3)`; None means 0.
      tangential: p1, p2, `(..., 2)`; None means 0.
      orientation: Unit quaternion (w, x, y, z) from camera to world axes, `(..., 4)`; None means
        the world axes are the camera axes.
      position: Camera centre in the world, metres, `(..., 3)`; None means the origin.

    Returns:
      The camera; leading axes are broadcast, the dtype is that of the floating arrays given.

    Raises:
      ValueError: A shape is wrong, a value is not finite, a focal length or image size is not
        positive, or a quaternion is not of unit length within 1e-3.

    >>> make_camera(1145.0, (512.0, 515.0), (1000, 1002)).focal.tolist()
    [1145.0, 1145.0]
    """
    given = {
        "focal": np.full(2, focal) if np.ndim(focal) == 0 else focal,
        "center": center,
        "image_size": image_size,
        "radial": (0.0, 0.0, 0.0) if radial is None else radial,
        "tangential": (0.0, 0.0) if tangential is None else tangential,
        "orientation": (1.0, 0.0, 0.0, 0.0) if orientation is None else orientation,
        "position": (0.0, 0.0, 0.0) if position is None else position,
    }
    dtype = _floating_dtype(focal, *given.values())
    leaves = {name: np.asarray(value, dtype=dtype) for name, value in given.items()}
    for name, value in leaves.items():
        _check_leaf(name, value)
    for name in ("image_size", "focal"):
        if not (leaves[name] > 0).all():
            raise ValueError(f"{name}: expected positive pixels, got {leaves[name].tolist()}")
    norms = np.linalg.norm(leaves["orientation"], axis=-1)
    if not (np.abs(norms - 1.0) <= 1e-3).all():
        raise ValueError(
            f"orientation: expected a unit quaternion (w, x, y, z), got norm {norms.tolist()}"
        )
    try:
        lead = np.broadcast_shapes(*(v.shape[:-1] for v in leaves.values()))
    except ValueError:
        shapes = {name: v.shape for name, v in leaves.items()}
        raise ValueError(f"camera: leading axes do not broadcast: {shapes}") from None
    return Camera(
        **{n: jnp.asarray(np.broadcast_to(v, (*lead, v.shape[-1]))) for n, v in leaves.items()}
    )


def camera_from_matrix(
    K: Any,
    image_size: Any,
    *,
    radial: Any = None,
    tangential: Any = None,
    orientation: Any = None,
    position: Any = None,
) -> Camera:
    """Builds a camera from a 3 x 3 intrinsic matrix `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`.

    Args:
      K: `(..., 3, 3)`, pixels.
      image_size: Width and height in pixels, `(..., 2)`.
      radial: As for `make_camera`.
      tangential: As for `make_camera`.
      orientation: As for `make_camera`.
      position: As for `make_camera`.

    Returns:
      The camera.

    Raises:
      ValueError: K has another shape or form (transposed, skewed, a focal length that is zero or
        negative), or `make_camera` refuses a value.
    """
    dtype = _floating_dtype(K)
    matrix = np.asarray(K, dtype=dtype)
    if matrix.shape[-2:] != (3, 3):
        raise ValueError(f"K: expected (..., 3, 3), got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"K: expected finite values, got {matrix.tolist()}")
    if not (matrix[..., 2, :] == np.array([0.0, 0.0, 1.0])).all():
        raise ValueError(
            f"K: expected the last row [0, 0, 1] (is the matrix transposed or not scaled?), "
            f"got {matrix[..., 2, :].tolist()}"
        )
    focal = np.stack([matrix[..., 0, 0], matrix[..., 1, 1]], axis=-1)
    if not (focal > 0).all():
        raise ValueError(
            f"K: expected positive focal lengths on the diagonal (a negative one flips the image; "
            f"camera axes are x right, y down, z forward), got {focal.tolist()}"
        )
    skew = np.stack([matrix[..., 0, 1], matrix[..., 1, 0]], axis=-1)
    if not (np.abs(skew) <= 1e-6 * focal).all():
        raise ValueError(f"K: expected no skew (K[0, 1] = K[1, 0] = 0), got {skew.tolist()}")
    return make_camera(
        focal,
        matrix[..., :2, 2],
        image_size,
        radial=radial,
        tangential=tangential,
        orientation=orientation,
        position=position,
    )


def default_camera(image_size: Any) -> Camera:
    """Guesses a camera for images of unknown origin.

    The focal length is max(w, h) pixels, a field of view of 53 degrees along the longer side; the
    principal point is the image centre. Depths scale with the true focal length over this guess.

    Args:
      image_size: Width and height in pixels, `(..., 2)`.

    Returns:
      The camera, without distortion, at the origin of the world.

    Raises:
      ValueError: The size has another shape or is not positive.
    """
    size = np.asarray(image_size, dtype=_floating_dtype(image_size))
    _check_leaf("image_size", size)
    focal = np.broadcast_to(size.max(axis=-1, keepdims=True), size.shape)
    return make_camera(focal, size / 2.0, size)


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


def _floating_dtype(*values: Any) -> np.dtype:
    """The dtype of the floating arrays among `values`; Python numbers alone mean float64."""
    dtypes = [np.dtype(v.dtype) for v in values if hasattr(v, "dtype")]
    floating = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    return np.result_type(*floating) if floating else np.dtype(np.float64)


def _check_leaf(name: str, value: np.ndarray) -> None:
    size = _SIZES[name]
    if value.shape[-1:] != (size,):
        raise ValueError(f"{name}: expected (..., {size}), got shape {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name}: expected finite values, got {value.tolist()}")
