"""A pinhole camera with lens distortion: pixels, screen units, rays, world and camera axes.

Broadcasting, in all functions: the leading axes of a camera match the FIRST axes of the points,
`geometry.match_leading`. A camera without leading axes serves any points; one per clip, `(B,)`,
serves `(B, F, J, C)` and `(B, H, F, J, C)` alike.

Frames: camera axes are x right, y down, z forward, in metres. Pixels have their origin at the top
left corner. Screen units are `2 x / w - [1, h / w]`: x in [-1, 1], the aspect ratio kept.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import (
    check_points,
    check_pose_pair,
    match_leading,
    rotate,
    rotate_inverse,
)
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array, Camera


def to_screen(pixels: Array, image_size: Any) -> Array:
    """Pixels to screen units, `2 x / w - [1, h / w]`.

    Args:
      pixels: `(..., 2)`.
      image_size: Width and height in pixels, `(..., 2)`; leading axes match the first of `pixels`.

    Returns:
      `(..., 2)`.

    Raises:
      ValueError: A last axis is not 2, or leading axes do not match.
    """
    width, corner = _screen_frame(pixels, image_size, name="pixels")
    return 2.0 * pixels / width - corner


def to_pixels(screen: Array, image_size: Any) -> Array:
    """Screen units to pixels, the inverse of `to_screen`; same shapes and errors."""
    width, corner = _screen_frame(screen, image_size, name="screen")
    return (screen + corner) * (width / 2.0)


def world_to_camera(camera: Camera, points: Array) -> Array:
    """World to camera axes, `R^-1 (X - t)`.

    Args:
      camera: Its orientation turns camera axes into world axes.
      points: `(..., 3)`, metres.

    Returns:
      `(..., 3)`, metres.

    Raises:
      ValueError: The last axis is not 3, or the camera's axes do not match.
    """
    check_points(points, 3, name="points")
    position = match_leading(camera.position, points, name="camera")
    return rotate_inverse(camera.orientation, points - position)


def camera_to_world(camera: Camera, points: Array) -> Array:
    """Camera to world axes, `R X + t`; arguments as for `world_to_camera`."""
    check_points(points, 3, name="points")
    position = match_leading(camera.position, points, name="camera")
    return rotate(camera.orientation, points) + position


def project(
    camera: Camera, points: Array, *, distort: bool = True, clamp: float | None = None
) -> Array:
    """Projects points in camera axes to pixels.

    With `x = (X/Z, Y/Z)` and `r2 = |x|^2`, the model of Human3.6M and VideoPose3D:
    `f * (x (1 + k1 r2 + k2 r2^2 + k3 r2^3 + p.x) + p r2) + c`.
    Points with z <= 0 give numbers without meaning; `check_in_front` finds them.

    Args:
      camera: The camera; its extrinsics play no part.
      points: `(..., 3)`, metres, absolute (not root-relative).
      distort: Apply the lens distortion.
      clamp: Clip x to [-clamp, clamp] first; 1.0 is what VideoPose3D and its heirs do.

    Returns:
      `(..., 2)`, pixels.

    Raises:
      ValueError: The last axis is not 3, or the camera's axes do not match.
    """
    check_points(points, 3, name="points")
    xy = points[..., :2] / points[..., 2:]
    if clamp is not None:
        xy = jnp.clip(xy, -clamp, clamp)
    if distort:
        factor, shift = _distortion(camera, xy)
        xy = xy * factor + shift
    focal = match_leading(camera.focal, points, name="camera")
    center = match_leading(camera.center, points, name="camera")
    return focal * xy + center


def rays(camera: Camera, pixels: Array, *, undistort_iterations: int = 0) -> Array:
    """The viewing ray of each pixel, cut at unit depth: `(x, y, 1)`.

    Distortion is undone by the fixed point `x <- (x_d - p r2) / (1 + k1 r2 + ... + p.x)`. For the
    lenses of Human3.6M each iteration gains more than one decimal: 4 leave 1e-7, 10 leave 1e-15.
    0 iterations ignore distortion, as DiffuPose and ZeDO do.

    Args:
      camera: The camera; its extrinsics play no part.
      pixels: `(..., 2)`.
      undistort_iterations: Number of fixed-point steps.

    Returns:
      `(..., 3)`; the third coordinate is 1.

    Raises:
      ValueError: The last axis is not 2, the camera's axes do not match, or the number of
        iterations is negative.
    """
    check_points(pixels, 2, name="pixels")
    if undistort_iterations < 0:
        raise ValueError(f"undistort_iterations: expected at least 0, got {undistort_iterations}")
    center = match_leading(camera.center, pixels, name="camera")
    focal = match_leading(camera.focal, pixels, name="camera")
    distorted = (pixels - center) / focal
    distorted = distorted.astype(jnp.result_type(distorted, camera.radial, camera.tangential))

    def step(_: Array, xy: Array) -> Array:
        factor, shift = _distortion(camera, xy)
        return (distorted - shift) / factor

    xy = jax.lax.fori_loop(0, undistort_iterations, step, distorted)
    return jnp.concatenate([xy, jnp.ones_like(xy[..., :1])], axis=-1)


def backproject(
    camera: Camera, pixels: Array, depth: Array, *, undistort_iterations: int = 0
) -> Array:
    """The point at a given depth on the ray of each pixel.

    Args:
      camera: The camera.
      pixels: `(..., 2)`.
      depth: z in metres; its axes match the first axes of `pixels`, so `(..., J)` is one depth per
        joint and `(...)` one per pose.
      undistort_iterations: As for `rays`.

    Returns:
      `(..., 3)`, metres, camera axes.

    Raises:
      ValueError: Shapes do not fit.
    """
    unit = rays(camera, pixels, undistort_iterations=undistort_iterations)
    return match_leading(jnp.asarray(depth)[..., None], unit, name="depth") * unit


def intrinsics_vector(camera: Camera) -> Array:
    """The 9-vector of VideoPose3D: focal, centre, k1, k2, k3, p1, p2 in screen units.

    `f' = 2 f / w` on both axes; the centre is converted like a point.

    Args:
      camera: The camera.

    Returns:
      `(..., 9)`.
    """
    focal = 2.0 * camera.focal / camera.image_size[..., :1]
    center = to_screen(camera.center, camera.image_size)
    return jnp.concatenate([focal, center, camera.radial, camera.tangential], axis=-1)


def camera_from_vector(vector: Array, image_size: Any) -> Camera:
    """A camera at the world's origin from the 9-vector of `intrinsics_vector`.

    Args:
      vector: `(..., 9)`, screen units.
      image_size: Width and height in pixels, `(..., 2)`; leading axes match the first of `vector`.

    Returns:
      The camera.

    Raises:
      ValueError: A last axis is wrong, or leading axes do not match.
    """
    check_points(vector, 9, name="vector")
    center = to_pixels(vector[..., 2:4], image_size)
    size = _aligned_size(vector, image_size)
    focal = vector[..., :2] * (size[..., :1] / 2.0)
    lead = focal.shape[:-1]
    return Camera(
        focal=focal,
        center=center,
        image_size=jnp.broadcast_to(size, (*lead, 2)),
        radial=vector[..., 4:7],
        tangential=vector[..., 7:9],
        orientation=jnp.zeros((*lead, 4), focal.dtype).at[..., 0].set(1.0),
        position=jnp.zeros((*lead, 3), focal.dtype),
    )


def flip_camera(camera: Camera) -> Camera:
    """The camera that sees the mirror image: pixel x becomes w - x.

    Negates entries 2 (cx) and 7 (p1) of the 9-vector. The extrinsics are those of a world whose x
    is negated too, so that `project` and `world_to_camera` commute with mirroring.

    Args:
      camera: The camera.

    Returns:
      The mirrored camera; flipping twice gives the input.
    """
    width = camera.image_size[..., :1]
    center = jnp.concatenate([width - camera.center[..., :1], camera.center[..., 1:]], axis=-1)
    w_x, y_z = camera.orientation[..., :2], camera.orientation[..., 2:]
    return camera.replace(  # type: ignore[attr-defined]
        center=center,
        tangential=_negate_first(camera.tangential),
        orientation=jnp.concatenate([w_x, -y_z], axis=-1),
        position=_negate_first(camera.position),
    )


def check_in_front(points: Any, *, name: str = "points", skeleton: Skeleton | None = None) -> None:
    """Checks on the host that all points lie in front of the camera.

    Args:
      points: `(..., J, 3)` in camera axes, metres, absolute.
      name: What to call `points` in the error.
      skeleton: Adds the joint's name to the error.

    Raises:
      ValueError: A depth is not above zero (or NaN); the message says in which frame and joint the
        first one is.

    >>> check_in_front([[[0.0, 0.0, 4.0], [0.0, 0.0, -0.5]]])
    Traceback (most recent call last):
    ...
    ValueError: points: expected z > 0 m (in front of the camera), got z = -0.5 at frame 0, joint 1
    """
    check_points(points, 3, name=name)
    depth = np.atleast_1d(np.asarray(points)[..., 2])
    bad = np.argwhere(~(depth > 0))
    if not bad.size:
        return
    index = tuple(int(i) for i in bad[0])
    axes = [*(f"axis {a} index" for a in range(len(index) - 2)), "frame", "joint"][-len(index) :]
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=True))
    label = f" ({skeleton.joints[index[-1]]})" if skeleton is not None else ""
    raise ValueError(
        f"{name}: expected z > 0 m (in front of the camera), got z = {depth[index]} "
        f"at {place}{label}"
    )


def fit_translation(camera_rays: Array, pose: Array, *, weights: Array | None = None) -> Array:
    """Where a root-relative pose must stand to meet its viewing rays, in closed form.

    Minimises `sum_j w_j |(X_j + T)_xy - (X_j + T)_z u_j|^2` over T, `u_j` the ray at unit depth: a
    depth-weighted reprojection error in the normalised image plane. With `b_j = X_xy - X_z u_j`
    and weighted means, eliminating T_xy from the 3 x 3 normal equations leaves
    `T_z = sum w (u - u_mean).(b - b_mean) / sum w |u - u_mean|^2` and
    `T_xy = u_mean T_z - b_mean`: centred sums, which lose nothing in float32.

    Args:
      camera_rays: `(..., J, 3)` from `rays`, the third coordinate 1.
      pose: `(..., J, 3)`, root-relative, camera axes, metres.
      weights: `(..., J)`, not negative; 0 leaves a joint out, even where its ray is NaN. None
        weighs all joints alike.

    Returns:
      T, `(..., 3)`, metres. NaN where fewer than two joints have weight or all rays coincide. A
      pose that contradicts its rays may give a negative depth: that is for the caller to judge.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(camera_rays, pose, names=("camera_rays", "pose"), weights=weights)
    if weights is None:
        weights = jnp.ones(jnp.shape(camera_rays)[:-1], dtype=jnp.result_type(camera_rays, pose))
    w = weights[..., None]
    used = w > 0
    u = jnp.where(used, camera_rays[..., :2], 0.0)
    b = jnp.where(used, pose[..., :2] - pose[..., 2:] * u, 0.0)

    count = jnp.sum(used, axis=(-2, -1))
    total = jnp.sum(w, axis=-2, keepdims=True)
    total = jnp.where(total > 0, total, 1.0)
    u_mean = jnp.sum(w * u, axis=-2, keepdims=True) / total
    b_mean = jnp.sum(w * b, axis=-2, keepdims=True) / total
    spread = jnp.sum(w * (u - u_mean) ** 2, axis=(-2, -1))
    # Rays that differ by rounding alone say nothing about depth.
    floor = 16.0 * jnp.finfo(spread.dtype).eps ** 2 * jnp.sum(w * u**2, axis=(-2, -1))
    solvable = (count >= 2) & (spread > floor)
    cross = jnp.sum(w * (u - u_mean) * (b - b_mean), axis=(-2, -1))
    z = (cross / jnp.where(solvable, spread, 1.0))[..., None]
    translation = jnp.concatenate([u_mean[..., 0, :] * z - b_mean[..., 0, :], z], axis=-1)
    return jnp.where(solvable[..., None], translation, jnp.nan)


def _distortion(camera: Camera, xy: Array) -> tuple[Array, Array]:
    """Factor `(..., 1)` and shift `(..., 2)` of the lens model at undistorted `xy`."""
    radial = match_leading(camera.radial, xy, name="camera")
    tangential = match_leading(camera.tangential, xy, name="camera")
    r2 = jnp.sum(xy * xy, axis=-1, keepdims=True)
    k1, k2, k3 = radial[..., 0:1], radial[..., 1:2], radial[..., 2:3]
    along = jnp.sum(tangential * xy, axis=-1, keepdims=True)
    return 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3)) + along, tangential * r2


def _aligned_size(points: Array, image_size: Any) -> Array:
    size = jnp.asarray(image_size)
    check_points(size, 2, name="image_size")
    if not jnp.issubdtype(size.dtype, jnp.floating):
        size = size.astype(jnp.result_type(points, 0.0))
    return match_leading(size, points, name="image_size")


def _screen_frame(points: Array, image_size: Any, *, name: str) -> tuple[Array, Array]:
    """The image width `(..., 1)` and the corner `[1, h / w]`, `(..., 2)`."""
    check_points(points, 2, name=name)
    size = _aligned_size(points, image_size)
    return size[..., :1], size / size[..., :1]


def _negate_first(vector: Array) -> Array:
    return jnp.concatenate([-vector[..., :1], vector[..., 1:]], axis=-1)
