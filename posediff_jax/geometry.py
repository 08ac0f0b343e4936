"""Points, bones, mirroring, rotations and similarity alignment. Everything broadcasts over `(...)`.

Conventions: poses are `(..., J, 3)`; rotations act on column vectors, `x' = R x`; quaternions are
(w, x, y, z). Matrix products run at the highest precision, whatever the device's default.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.skeleton import Skeleton, check_joints, segments
from posediff_jax.types import Array

_HIGHEST = jax.lax.Precision.HIGHEST


class Similarity(NamedTuple):
    """The map `x -> scale * rotation @ x + translation`.

    Attributes:
      rotation: `(..., 3, 3)`, orthogonal.
      scale: `(...)`.
      translation: `(..., 3)`, in the unit of the target points.
    """

    rotation: Array
    scale: Array
    translation: Array


def check_points(points: Any, channels: int | Sequence[int], *, name: str) -> None:
    """Checks the static shape `(..., C)` of an array of points.

    Raises:
      ValueError: The last axis is not one of `channels`; the message names the argument.
    """
    allowed = (channels,) if isinstance(channels, int) else tuple(channels)
    shape = np.shape(points)
    if not shape or shape[-1] not in allowed:
        sizes = " or ".join(str(c) for c in allowed)
        raise ValueError(f"{name}: expected (..., {sizes}), got shape {shape}")


def check_pose_pair(
    first: Any,
    second: Any,
    *,
    names: tuple[str, str] = ("predicted", "target"),
    weights: Any = None,
) -> None:
    """Checks that two arrays are `(..., J, 3)` that broadcast, and weights `(..., J)` if given.

    Raises:
      ValueError: They are not; the message names the arguments.
    """
    check_points(first, 3, name=names[0])
    check_points(second, 3, name=names[1])
    a, b = np.shape(first), np.shape(second)
    if len(a) < 2 or len(b) < 2 or a[-2] != b[-2]:
        raise ValueError(f"{names[0]}, {names[1]}: expected the same (..., J, 3), got {a} and {b}")
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        raise ValueError(
            f"{names[0]}, {names[1]}: expected leading axes that broadcast, got {a} and {b}"
        ) from None
    if weights is not None and np.shape(weights)[-1:] != a[-2:-1]:
        raise ValueError(f"weights: expected (..., {a[-2]}), got shape {np.shape(weights)}")


def match_leading(value: Array, points: Array, *, name: str, trailing: int = 1) -> Array:
    """Inserts axes into `value` so that its leading axes meet the FIRST axes of `points`.

    A camera per clip, leaves `(B, k)`, meets points `(B, F, J, 3)` or `(B, H, F, J, 3)` as
    `(B, 1, 1, k)`: batch axes come first everywhere in this package, so they match from the front,
    not from the back as in NumPy. An axis of size 1 broadcasts.

    Args:
      value: `(*L, *T)` with `trailing` axes T.
      points: `(*L, ..., C)`, at least as many axes before the last as L has.
      name: What to call `value` in an error.
      trailing: Number of last axes of `value` that are not matched.

    Returns:
      `(*L, 1, ..., 1, *T)` with `points.ndim - 1` axes before T.

    Raises:
      ValueError: L is longer than the leading axes of `points`, or sizes disagree.
    """
    value_shape, points_shape = jnp.shape(value), jnp.shape(points)
    split = len(value_shape) - trailing
    lead, tail = value_shape[:split], value_shape[split:]
    missing = len(points_shape) - 1 - len(lead)
    pairs = zip(lead, points_shape[:-1], strict=False)
    if missing < 0 or any(a != b and 1 not in (a, b) for a, b in pairs):
        raise ValueError(
            f"{name}: expected leading axes that match the first axes of points "
            f"{points_shape}, got shape {value_shape}"
        )
    return jnp.reshape(value, (*lead, *(1,) * missing, *tail))


def safe_norm(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Euclidean norm whose gradient at the zero vector is zero instead of NaN.

    Args:
      x: Any shape.
      axis: The axis that is summed over.
      keepdims: Keep that axis with size 1.

    Returns:
      `x` without `axis`.

    >>> float(jax.grad(lambda x: safe_norm(x))(jnp.zeros(3)).sum())
    0.0
    """
    square = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    zero = square == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def root_center(points: Array, *, root: int) -> Array:
    """Subtracts the root joint, `x_j - x_root`.

    Args:
      points: `(..., J, C)`, any unit.
      root: Index of the root joint, 0 to J - 1.

    Returns:
      `(..., J, C)`, zero at the root.

    Raises:
      ValueError: `points` has no joint axis, or `root` is no index of it.
    """
    shape = jnp.shape(points)
    if len(shape) < 2:
        raise ValueError(f"points: expected (..., J, C), got shape {shape}")
    if not 0 <= root < shape[-2]:
        raise ValueError(f"root: expected 0 to {shape[-2] - 1}, got {root}")
    return jnp.subtract(points, points[..., root : root + 1, :])


def bones_from_pose(pose: Array, skeleton: Skeleton) -> tuple[Array, Array]:
    """Splits a pose into bone lengths and unit directions from parent to child.

    A bone of length zero has the direction zero, and all its gradients are zero.

    Args:
      pose: `(..., J, 3)`, metres.
      skeleton: Its tree; bones come in the order of `skeleton.bones`.

    Returns:
      Lengths `(..., J - 1)` in metres and directions `(..., J - 1, 3)`.

    Raises:
      ValueError: `pose` does not fit the skeleton.
    """
    check_joints(pose, skeleton, channels=3, name="pose")
    child, parent = np.array(skeleton.bones).T
    bones = pose[..., child, :] - pose[..., parent, :]
    lengths = safe_norm(bones, keepdims=True)
    zero = lengths == 0
    directions = jnp.where(zero, 0.0, bones / jnp.where(zero, 1.0, lengths))
    return lengths[..., 0], directions


def segment_lengths(poses: Array, skeleton: Skeleton, *, bones: str = "official") -> Array:
    """Length of each segment, `(..., J, 3)` to `(..., J - 1)` in the order of `segments`, metres.

    Args:
      poses: `(..., J, 3)`, metres.
      skeleton: Their joints.
      bones: "official" or "anatomical", see `skeleton.segments`.

    Raises:
      ValueError: `poses` does not fit the skeleton, or a name that it has no segments for.
    """
    check_joints(poses, skeleton, channels=3, name="poses")
    child, parent = np.array(segments(skeleton, bones=bones)).T
    return safe_norm(poses[..., child, :] - poses[..., parent, :])


def pose_from_bones(
    lengths: Array,
    directions: Array,
    skeleton: Skeleton,
    *,
    root_position: Array | None = None,
) -> Array:
    """Puts bones together again: each joint is the sum of the bones between it and the root.

    Args:
      lengths: `(..., J - 1)`, metres, in the order of `skeleton.bones`.
      directions: `(..., J - 1, 3)`.
      skeleton: The tree.
      root_position: `(..., 3)`, metres; None puts the root at the origin.

    Returns:
      The pose, `(..., J, 3)`, metres.

    Raises:
      ValueError: The number of bones or the last axis is wrong.
    """
    num_bones = skeleton.num_joints - 1
    if jnp.shape(lengths)[-1:] != (num_bones,):
        raise ValueError(
            f"lengths: expected (..., {num_bones}) for skeleton {skeleton.name!r}, "
            f"got shape {jnp.shape(lengths)}"
        )
    if jnp.shape(directions)[-2:] != (num_bones, 3):
        raise ValueError(
            f"directions: expected (..., {num_bones}, 3) for skeleton {skeleton.name!r}, "
            f"got shape {jnp.shape(directions)}"
        )
    bones = lengths[..., None] * directions
    paths = jnp.asarray(_bone_paths(skeleton), dtype=bones.dtype)
    pose = jnp.einsum("jb,...bc->...jc", paths, bones, precision=_HIGHEST)
    if root_position is None:
        return pose
    check_points(root_position, 3, name="root_position")
    return pose + root_position[..., None, :]


def flip(points: Array, skeleton: Skeleton) -> Array:
    """Mirrors points: x changes its sign, left and right joints change places.

    Args:
      points: `(..., J, 2)` in screen units or `(..., J, 3)` in metres, x = 0 the mirror plane.
        Not for pixels, whose mirror is not at zero.
      skeleton: Says which joints are partners.

    Returns:
      The same shape. Flipping twice gives the input.

    Raises:
      ValueError: `points` does not fit the skeleton.
    """
    check_points(points, (2, 3), name="points")
    check_joints(points, skeleton, channels=jnp.shape(points)[-1], name="points")
    swapped = points[..., np.array(skeleton.flip_permutation), :]
    return jnp.concatenate([-swapped[..., :1], swapped[..., 1:]], axis=-1)


def quaternion_to_matrix(quaternion: Array) -> Array:
    """Rotation matrix of a quaternion (w, x, y, z) of any length but zero.

    `R = I + s (w [v]x + [v]x [v]x)` with `s = 2 / |q|^2`, so the result is always orthogonal.

    Args:
      quaternion: `(..., 4)`.

    Returns:
      `(..., 3, 3)`; NaN for the zero quaternion.

    Raises:
      ValueError: The last axis is not 4.
    """
    check_points(quaternion, 4, name="quaternion")
    w, v = quaternion[..., 0, None, None], quaternion[..., 1:]
    scale = 2.0 / jnp.sum(quaternion * quaternion, axis=-1)[..., None, None]
    return _rotation_series(v, scale * w, scale)


def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """Rotation matrix of a rotation vector (Rodrigues), smooth at zero.

    `R = I + sin(a)/a [r]x + (1 - cos a)/a^2 [r]x [r]x` with `a = |r|`.

    Args:
      axis_angle: `(..., 3)`, axis times angle in radians.

    Returns:
      `(..., 3, 3)`.

    Raises:
      ValueError: The last axis is not 3.
    """
    check_points(axis_angle, 3, name="axis_angle")
    angle = safe_norm(axis_angle)[..., None, None]
    first = jnp.sinc(angle / np.pi)
    second = 0.5 * jnp.square(jnp.sinc(angle / (2.0 * np.pi)))
    return _rotation_series(axis_angle, first, second)


def rotation_about_axis(axis: Literal["x", "y", "z"], angle: Array) -> Array:
    """Rotation about a coordinate axis, right-handed.

    Args:
      axis: "x", "y" or "z".
      angle: `(...)`, radians.

    Returns:
      `(..., 3, 3)`.

    Raises:
      ValueError: `axis` is none of the three.
    """
    if axis not in ("x", "y", "z"):
        raise ValueError(f"axis: expected 'x', 'y' or 'z', got {axis!r}")
    zero = jnp.zeros_like(angle)
    return axis_angle_to_matrix(jnp.stack([angle if a == axis else zero for a in "xyz"], axis=-1))


def random_rotation(key: Array, shape: tuple[int, ...] = (), *, dtype: Any = float) -> Array:
    """Draws rotations uniformly from SO(3), as normalised quaternions of four normals.

    Args:
      key: A `jax.random.key`.
      shape: Leading axes of the result.
      dtype: Floating dtype of the result.

    Returns:
      `(*shape, 3, 3)`.
    """
    return quaternion_to_matrix(jax.random.normal(key, (*shape, 4), dtype))


def rotate(quaternion: Array, points: Array) -> Array:
    """Rotates points by unit quaternions, `v + 2 (w q x v + q x (q x v))`.

    The quaternion is used as it is: like the released code of VideoPose3D and its heirs, and
    unlike `quaternion_to_matrix`, this does not normalise it.

    Args:
      quaternion: `(..., 4)`, unit length; its leading axes match the first axes of `points`.
      points: `(..., 3)`, any number of axes before the last.

    Returns:
      `(..., 3)`.

    Raises:
      ValueError: A last axis is wrong, or leading axes do not match.
    """
    check_points(quaternion, 4, name="quaternion")
    check_points(points, 3, name="points")
    q = match_leading(jnp.asarray(quaternion), points, name="quaternion")
    first = jnp.cross(q[..., 1:], points)
    return points + 2.0 * (q[..., :1] * first + jnp.cross(q[..., 1:], first))


def rotate_inverse(quaternion: Array, points: Array) -> Array:
    """Rotates points by the inverse of unit quaternions; arguments as for `rotate`."""
    check_points(quaternion, 4, name="quaternion")
    conjugate = jnp.concatenate([quaternion[..., :1], -quaternion[..., 1:]], axis=-1)
    return rotate(conjugate, points)


def procrustes(
    predicted: Array,
    target: Array,
    *,
    allow_reflection: bool = False,
    weights: Array | None = None,
) -> Similarity:
    """Finds the similarity that takes `predicted` nearest to `target`.

    Minimises `sum_j w_j |s R p_j + t - y_j|^2` by the SVD of the 3 x 3 covariance (Umeyama 1991).
    Where all predicted points coincide the scale is 1 and the result finite. Where no point has
    weight the result is NaN.

    Args:
      predicted: `(..., J, 3)`.
      target: `(..., J, 3)`, same J.
      allow_reflection: Let R be a mirror image where that fits better.
      weights: `(..., J)`, not negative; None weighs all joints alike.

    Returns:
      Rotation `(..., 3, 3)`, scale `(...)`, translation `(..., 3)`.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(predicted, target, weights=weights)
    shape = jnp.broadcast_shapes(jnp.shape(predicted), jnp.shape(target))
    if weights is None:
        weights = jnp.ones(shape[:-1], dtype=jnp.result_type(predicted, target))
    w = weights[..., None] / jnp.sum(weights, axis=-1)[..., None, None]

    predicted_mean = jnp.sum(w * predicted, axis=-2, keepdims=True)
    target_mean = jnp.sum(w * target, axis=-2, keepdims=True)
    x, y = predicted - predicted_mean, target - target_mean
    covariance = jnp.einsum("...ja,...jb->...ab", w * y, x, precision=_HIGHEST)
    u, s, vt = jnp.linalg.svd(covariance)
    if not allow_reflection:
        sign = jnp.sign(jnp.linalg.det(u) * jnp.linalg.det(vt))[..., None]
        signs = jnp.concatenate([jnp.ones_like(s[..., :2]), sign], axis=-1)
        u, s = u * signs[..., None, :], s * signs
    rotation = jnp.einsum("...ab,...bc->...ac", u, vt, precision=_HIGHEST)

    # Spread below the rounding error of the mean is noise; a scale fitted to it could be anything.
    spread = jnp.sum(w * x * x, axis=(-2, -1))
    floor = 16.0 * jnp.finfo(spread.dtype).eps ** 2 * jnp.sum(w * predicted**2, axis=(-2, -1))
    point_like = spread <= floor
    scale = jnp.where(point_like, 1.0, jnp.sum(s, axis=-1) / jnp.where(point_like, 1.0, spread))
    moved = jnp.einsum("...ab,...jb->...ja", rotation, predicted_mean, precision=_HIGHEST)
    translation = target_mean - scale[..., None, None] * moved
    return Similarity(rotation, scale, translation[..., 0, :])


def procrustes_align(
    predicted: Array,
    target: Array,
    *,
    allow_reflection: bool = False,
    weights: Array | None = None,
) -> Array:
    """Returns `predicted` after the similarity of `procrustes`, `(..., J, 3)`; same arguments."""
    rotation, scale, translation = procrustes(
        predicted, target, allow_reflection=allow_reflection, weights=weights
    )
    rotated = jnp.einsum("...ab,...jb->...ja", rotation, predicted, precision=_HIGHEST)
    return scale[..., None, None] * rotated + translation[..., None, :]


def _bone_paths(skeleton: Skeleton) -> np.ndarray:
    """0/1 matrix (J, J - 1): which bones lie between each joint and the root."""
    paths = np.zeros((skeleton.num_joints, skeleton.num_joints - 1))
    bone_of = {child: bone for bone, (child, _) in enumerate(skeleton.bones)}
    for joint in skeleton.topological_order:
        if joint in bone_of:
            paths[joint] = paths[skeleton.parents[joint]]
            paths[joint, bone_of[joint]] = 1.0
    return paths


def _rotation_series(vector: Array, first: Array, second: Array) -> Array:
    """Returns `I + first [v]x + second [v]x [v]x`, `(..., 3, 3)`."""
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    zero = jnp.zeros_like(x)
    rows = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    cross = jnp.reshape(rows, (*rows.shape[:-1], 3, 3))
    eye = jnp.broadcast_to(jnp.eye(3, dtype=cross.dtype), cross.shape)
    return eye + first * cross + second * jnp.matmul(cross, cross, precision=_HIGHEST)
