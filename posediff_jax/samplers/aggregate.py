"""One pose from many hypotheses, without ground truth. What else a rule uses stands in `NEEDS`."""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp

from posediff_jax.camera import fit_translation, project, rays
from posediff_jax.geometry import check_points, safe_norm
from posediff_jax.types import Array, Camera

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mean_pose": (),
        "medoid_pose": (),
        "reprojection_pose": ("camera", "2D keypoints", "root trajectory (estimated by default)"),
    }
)

# Fixed-point steps that undo lens distortion for the estimated root; each gains a decimal.
_UNDISTORT_ITERATIONS = 6


def mean_pose(hypotheses: Array, *, axis: int = 1) -> Array:
    """The mean over hypotheses ("P-Agg"): `(B, H, F, J, 3)` to `(B, F, J, 3)`."""
    return jnp.mean(hypotheses, axis=axis)


def medoid_pose(hypotheses: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """The hypothesis nearest to all others: least sum of mean joint distances.

    Unlike the mean it was drawn, so its bones keep their lengths. A hypothesis that is
    not finite is neither chosen nor counted, unless all are so.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`.
      axis: Axis of the hypotheses.

    Returns:
      The chosen poses with `axis` removed, and the chosen index for each frame.
    """
    x = jnp.moveaxis(hypotheses, axis, 0)
    finite = jnp.all(jnp.isfinite(x), axis=(-2, -1))
    distances = safe_norm(x[:, None] - x[None], axis=-1).mean(axis=-1)
    sums = jnp.sum(jnp.where(finite[None], distances, 0), axis=1)
    index = jnp.argmin(jnp.where(finite, sums, jnp.inf), axis=0)
    return jnp.take_along_axis(x, index[None, ..., None, None], axis=0)[0], index


def reprojection_pose(
    hypotheses: Array,
    keypoints_px: Array,
    camera: Camera | None,
    *,
    root: Array | None = None,
    confidence: Array | None = None,
    axis: int = 1,
    distort: bool = True,
    clamp: float | None = None,
) -> tuple[Array, Array]:
    """Joint by joint the hypothesis whose projection is nearest to the 2D input ("J-Agg", D3DP).

    The papers place all hypotheses at the GROUND-TRUTH root trajectory; their J-Agg figures rest on
    it. Here `root` is any trajectory; by default it is the one that brings the mean pose nearest to
    the keypoints (`camera.fit_translation`), so nothing but camera and input is used.
    The result mixes joints of several poses: bones need not keep their lengths.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`, metres,
        root-relative, camera axes.
      keypoints_px: 2D joints in pixels, the axes of `hypotheses` without `axis`, `(B, F, J, 2)`.
      camera: The camera of each clip, leaves `(B, ...)` or without leading axes.
      root: Root in camera axes, metres, `(B, F, 3)`; None estimates it.
      confidence: `(B, F, J)`; a joint of confidence 0 is taken from the hypothesis that fits the
        frame's other joints best, and has no say in the estimated root. None trusts all.
      axis: Axis of the hypotheses, counted from the front.
      distort: As for `camera.project`.
      clamp: As for `camera.project`; the released code has 1.0.

    Returns:
      Poses without `axis`, `(B, F, J, 3)`, and the index of the hypothesis that each joint is from,
      `(B, F, J)`. The first of equals is chosen; so is the first hypothesis where no projection is
      a number, or all lie behind the camera.

    Raises:
      ValueError: No camera, or shapes that do not fit.
    """
    if camera is None:
        raise ValueError(
            "camera: J-Agg compares projections with keypoints and needs a camera, got None; "
            "mean_pose and medoid_pose need none"
        )
    lead = _without(hypotheses, axis)
    _check_axes(keypoints_px, (*lead, 2), "keypoints_px")
    if confidence is not None:
        _check_axes(confidence, lead, "confidence")
    if root is None:
        view = rays(camera, keypoints_px, undistort_iterations=_UNDISTORT_ITERATIONS)
        root = fit_translation(view, mean_pose(hypotheses, axis=axis), weights=confidence)
    _check_axes(root, (*lead[:-1], 3), "root")
    points = hypotheses + jnp.expand_dims(jnp.asarray(root)[..., None, :], axis)
    projected = project(camera, points, distort=distort, clamp=clamp)
    distance = safe_norm(projected - jnp.expand_dims(jnp.asarray(keypoints_px), axis))
    distance = jnp.where((points[..., 2] > 0) & ~jnp.isnan(distance), distance, jnp.inf)
    if confidence is not None:
        seen = jnp.expand_dims(jnp.asarray(confidence) > 0, axis)
        total = jnp.sum(jnp.where(seen, distance, 0), axis=-1, keepdims=True)
        distance = jnp.where(seen, distance, total)
    index = jnp.argmin(distance, axis=axis)
    return take_joints(hypotheses, index, axis=axis), index


def take_joints(hypotheses: Array, index: Array, *, axis: int = 1) -> Array:
    """The joints of the hypotheses that `index` names, one for each joint.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`.
      index: The axes of `hypotheses` without `axis` and coordinates, `(B, F, J)`.
      axis: Axis of the hypotheses, counted from the front.

    Returns:
      `hypotheses` without `axis`.

    Raises:
      ValueError: Shapes do not fit.
    """
    _check_axes(index, _without(hypotheses, axis), "index")
    wide = jnp.expand_dims(index, (axis, -1))
    return jnp.squeeze(jnp.take_along_axis(jnp.asarray(hypotheses), wide, axis=axis), axis=axis)


def joint_spread(hypotheses: Array, *, axis: int = 1) -> Array:
    """Root mean square distance of each joint to its mean over hypotheses, metres.

    `(B, H, F, J, 3)` to `(B, F, J)`. Zero for a single hypothesis.
    """
    centred = hypotheses - jnp.mean(hypotheses, axis=axis, keepdims=True)
    axis = axis % hypotheses.ndim
    # The norm of all deviations at once: its gradient is 0, not NaN, where hypotheses are equal.
    deviations = jnp.moveaxis(centred, axis, -2)
    flat = deviations.reshape(*deviations.shape[:-2], -1)
    return safe_norm(flat) / hypotheses.shape[axis] ** 0.5


def _without(hypotheses: Array, axis: int) -> tuple[int, ...]:
    """The axes `(..., J)` of the hypotheses without their own."""
    check_points(hypotheses, 3, name="hypotheses")
    shape = jnp.shape(hypotheses)
    if not 0 <= axis < len(shape) - 2 or not shape[axis]:
        raise ValueError(f"hypotheses: expected some on axis {axis}, got shape {shape}")
    return (*shape[:axis], *shape[axis + 1 : -1])


def _check_axes(value: Array, expected: tuple[int, ...], name: str) -> None:
    if jnp.shape(value) != expected:
        raise ValueError(
            f"{name}: expected {expected}, the axes of hypotheses without their own, "
            f"got shape {jnp.shape(value)}"
        )
