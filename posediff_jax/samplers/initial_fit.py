"""ZeDO's initial fit: an anchor pose is turned and moved until it meets its keypoints.

A scan over a whole batch, pure; hypotheses are a batch axis like any other. Items do not see each
other: one that cannot be fitted becomes NaN and leaves the rest as it is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from posediff_jax.camera import project, rays
from posediff_jax.geometry import check_points, quaternion_to_matrix
from posediff_jax.types import Array, Camera

_HIGHEST = jax.lax.Precision.HIGHEST


class InitialFit(NamedTuple):
    """What `fit_initial_pose` returns.

    Attributes:
      pose: R P, `(..., J, 3)`, metres.
      translation: T, `(..., 3)`, metres.
      quaternion: Of R, not normalised, (w, x, y, z), `(..., 4)`.
      scale: T over its start, before it is clipped to the bounds, `(...)`.
      objective: Mean L1 error of the fitted keypoints after the last iteration, pixels, `(...)`.
      curve: The objective before each iteration, `(..., N)`.
    """

    pose: Array
    translation: Array
    quaternion: Array
    scale: Array
    objective: Array
    curve: Array


class _Fitted(NamedTuple):
    """The parameters of the initial fit."""

    quaternion: Array
    scale: Array


def fit_initial_pose(
    pose: Array,
    keypoints: Array,
    camera: Camera,
    *,
    joints: Sequence[int] | None = None,
    root: int = 0,
    axes: str = "z",
    depth: float | Array = 3.0,
    bounds: tuple[float, float] = (0.5, 2.0),
    num_iterations: int = 500,
    learning_rate: float = 0.1,
    eps: float = 1e-8,
    seen: Array | None = None,
) -> InitialFit:
    """Turns an anchor pose and moves it along the ray of its root until it meets its keypoints.

    Minimises the mean over keypoints of |project(R P + T) - p|, L1 in pixels, by Adam (ZeDO Eq. 4,
    where the norm is L2 and R and T are free). T = depth * clip(scale, bounds) times the unit ray
    of the root, so outside its bounds the scale has no gradient. The last iterate is kept. An
    anchor that is its own mirror image has two equally good turns, and rounding decides.

    Args:
      pose: Anchors, `(..., J, 3)`, root at the origin, metres; broadcasts against `keypoints`.
      keypoints: `(..., J, 2)`, pixels.
      camera: Its leading axes match the first axes of `keypoints`; distortion is ignored.
      joints: The keypoints that count; None means all. The root says nothing: it is always met.
      root: Joint on whose ray the pose moves.
      axes: The axes of R that are fitted, of "xyz"; "z" is roll in the image plane.
      depth: Start distance of the root, metres; a number, or one for each item, `(...)`.
      bounds: Smallest and largest multiple of it.
      num_iterations: N.
      learning_rate: Of Adam.
      eps: Of Adam. The released objective is also a mean over the batch of B items, which the fit
        of each item on its own equals exactly with eps=1e-8 * B.
      seen: Which keypoints there are, `(..., J)` booleans: the others are left out, whatever they
        hold. None means all, also those that are not finite.

    Returns:
      The fit; NaN where a keypoint that counts, or the root's, is not finite or (of those given by
      `seen`) fewer are left beside the root than the fit needs: one for one axis, two for more.

    Raises:
      ValueError: Shapes do not fit, unknown axes, joints out of range, fewer than one joint beside
        the root, or bounds, depth or N out of range.
    """
    chosen = _check_fit(pose, keypoints, joints, root, axes, seen)
    _check_ranges(depth, bounds, num_iterations)
    lead = jnp.broadcast_shapes(jnp.shape(pose)[:-2], jnp.shape(keypoints)[:-2])
    counted, enough = _counted(seen, chosen, root, len(axes))
    if seen is not None:
        # What is left out must be finite: its gradient is multiplied by zero, not skipped.
        keypoints = jnp.where((seen & enough[..., None])[..., None], keypoints, 0.0)
    keypoints = jnp.broadcast_to(keypoints, (*lead, *jnp.shape(keypoints)[-2:]))
    ray = rays(camera, keypoints)[..., root, :]
    start = jnp.asarray(depth)[..., None] * ray / jnp.linalg.norm(ray, axis=-1, keepdims=True)
    free = jnp.array([1.0, *(float(axis in axes) for axis in "xyz")], start.dtype)

    def place(fitted: _Fitted, points: Array) -> tuple[Array, Array]:
        R = quaternion_to_matrix(fitted.quaternion)
        turned = jnp.einsum("...ab,...jb->...ja", R, points, precision=_HIGHEST)
        return turned, start * jnp.clip(fitted.scale, *bounds)[..., None]

    def objective(fitted: _Fitted) -> Array:
        turned, translation = place(fitted, pose[..., chosen, :])
        found = project(camera, turned + translation[..., None, :], distort=False)
        errors = jnp.mean(jnp.abs(found - keypoints[..., chosen, :]), axis=-1)
        return jnp.mean(errors, axis=-1, where=counted)

    def total(fitted: _Fitted) -> tuple[Array, Array]:
        # The gradient of a sum over items is the gradient of each item.
        errors = objective(fitted)
        return jnp.sum(errors), errors

    adam = optax.adam(learning_rate, eps=eps)

    def step(state: tuple[_Fitted, Any], _: None) -> tuple[tuple[_Fitted, Any], Array]:
        fitted, moments = state
        (_, errors), gradient = jax.value_and_grad(total, has_aux=True)(fitted)
        gradient = gradient._replace(quaternion=gradient.quaternion * free)
        updates, moments = adam.update(gradient, moments)
        fitted = _Fitted(*(p + u for p, u in zip(fitted, updates, strict=True)))
        return (fitted, moments), errors

    identity = jnp.zeros((*lead, 4), start.dtype).at[..., 0].set(1.0)
    first = _Fitted(identity, jnp.ones(lead, start.dtype))
    (fitted, _), curve = jax.lax.scan(step, (first, adam.init(first)), length=num_iterations)
    turned, translation = place(fitted, pose)
    errors = objective(fitted)
    # The objective tells: it is NaN wherever a keypoint that counts is, or the ray of the root.
    bad = ~(jnp.isfinite(errors) & enough)
    return InitialFit(
        pose=jnp.where(bad[..., None, None], jnp.nan, turned),
        translation=jnp.where(bad[..., None], jnp.nan, translation),
        quaternion=fitted.quaternion,
        scale=fitted.scale,
        objective=jnp.where(enough, errors, jnp.nan),
        curve=jnp.moveaxis(curve, 0, -1),
    )


def _counted(
    seen: Array | None, chosen: np.ndarray, root: int, num_axes: int
) -> tuple[Array, Array]:
    """Which of the chosen keypoints count, `(..., K)`, and whether they are enough, `(...)`."""
    if seen is None:
        return jnp.ones(len(chosen), bool), jnp.ones((), bool)
    counted = seen[..., chosen]
    beside_root = jnp.sum(counted & (chosen != root), axis=-1)
    # Two numbers of each keypoint against the axes and the distance.
    return counted, seen[..., root] & (2 * beside_root >= num_axes + 1)


def _check_fit(
    pose: Array,
    keypoints: Array,
    joints: Sequence[int] | None,
    root: int,
    axes: str,
    seen: Array | None,
) -> np.ndarray:
    """Checks shapes and indices; returns the joints that count."""
    check_points(pose, 3, name="pose")
    check_points(keypoints, 2, name="keypoints")
    shapes = jnp.shape(pose), jnp.shape(keypoints)
    if min(map(len, shapes)) < 2 or shapes[0][-2] != shapes[1][-2]:
        raise ValueError(
            f"pose, keypoints: expected (..., J, 3) and (..., J, 2) with the same J, got {shapes}"
        )
    count = shapes[0][-2]
    if seen is not None and jnp.shape(seen) != shapes[1][:-1]:
        raise ValueError(f"seen: expected shape {shapes[1][:-1]}, got {jnp.shape(seen)}")
    chosen = tuple(range(count)) if joints is None else tuple(joints)
    if not all(0 <= j < count for j in (*chosen, root)):
        raise ValueError(
            f"joints, root: expected indices 0 to {count - 1}, got {chosen} and {root}"
        )
    if not set(chosen) - {root}:
        raise ValueError(f"joints: expected at least one beside the root {root}, got {chosen}")
    if not axes or not set(axes) <= set("xyz"):
        raise ValueError(f"axes: expected some of 'xyz', got {axes!r}")
    return np.array(chosen)


def _check_ranges(depth: float | Array, bounds: tuple[float, float], num_iterations: int) -> None:
    if isinstance(depth, (int, float)) and not depth > 0:
        raise ValueError(f"depth: expected a distance above 0 m, got {depth}")
    if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1]:
        raise ValueError(f"bounds: expected 0 <= low < high, got {bounds}")
    if num_iterations < 1:
        raise ValueError(f"num_iterations: expected at least 1, got {num_iterations}")
