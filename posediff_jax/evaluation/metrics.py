"""Pose errors per item: one number per pose (or clip), never averaged over a data set.

Poses are metres, `(..., J, 3)`; who is averaged with whom is decided in `evaluation.protocols`.
`predicted` and `target` broadcast, so hypotheses `(B, H, F, J, 3)` meet a target `(B, 1, F, J, 3)`.
No metric but `rerooted_mpjpe` moves the root: centre poses with `geometry.root_center` first where
a protocol does so.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import check_pose_pair, procrustes_align, root_center, safe_norm
from posediff_jax.types import Array

# What each number rests on, for reports: an aligned metric takes more from the truth than the pose
# it compares with.
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "joint_error": ("ground truth",),
        "mpjpe": ("ground truth",),
        "rerooted_mpjpe": ("ground truth",),
        "p_mpjpe": ("ground truth", "ground-truth rotation, scale and position"),
        "n_mpjpe": ("ground truth", "ground-truth scale"),
        "mpjve": ("ground truth",),
        "pck": ("ground truth",),
        "auc": ("ground truth",),
    }
)

# The 14 joints of the official MPI-INF-3DHP score: without pelvis, spine and head centre.
PCK_JOINTS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "mpi_inf_3dhp_17": tuple(range(14)),
        "h36m_17": (10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6),
    }
)

# 0, 5, ..., 150 mm. Nothing is below 0 mm, so AUC never exceeds 30/31.
AUC_THRESHOLDS: tuple[float, ...] = tuple(5 * i / 1000 for i in range(31))


def joint_error(predicted: Array, target: Array) -> Array:
    """Distance of each joint, `e_j = |p_j - y_j|`. Needs ground truth.

    The gradient is zero, not NaN, where a joint is exact.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.

    Returns:
      `(..., J)`, metres.

    Raises:
      ValueError: The last two axes are not the same `(J, 3)`.

    >>> joint_error(jnp.array([[3.0, 4.0, 0.0]]), jnp.zeros((1, 3))).tolist()
    [5.0]
    """
    check_pose_pair(predicted, target)
    return safe_norm(predicted - target)


def mpjpe(predicted: Array, target: Array) -> Array:
    """Mean per-joint position error, the mean of `joint_error` over joints. Needs ground truth.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.

    Returns:
      `(...)`, metres.

    Raises:
      ValueError: Shapes do not fit.
    """
    return jnp.mean(joint_error(predicted, target), axis=-1)


def rerooted_mpjpe(predicted: Array, target: Array, *, root: int = 0) -> Array:
    """MPJPE after the predicted root is moved to the true one. Needs ground truth.

    What DiffHPE's text says of its protocol 1; its code takes `mpjpe` of root-relative targets
    without moving anything, so that the error of the predicted root counts. The two agree for
    systems that put the root to the origin.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.
      root: Index of the root joint.

    Returns:
      `(...)`, metres.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(predicted, target)
    return mpjpe(root_center(predicted, root=root), root_center(target, root=root))


def p_mpjpe(predicted: Array, target: Array, *, allow_reflection: bool = False) -> Array:
    """MPJPE after the best similarity per pose. Needs ground truth, also to align.

    The literature holds both conventions: most code forbids mirror images, ZeDO allows them.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.
      allow_reflection: Let the alignment mirror the pose.

    Returns:
      `(...)`, metres.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(predicted, target)
    return mpjpe(procrustes_align(predicted, target, allow_reflection=allow_reflection), target)


def n_mpjpe(predicted: Array, target: Array) -> Array:
    """MPJPE after the best scale per pose, `<y, p> / <p, p>`. Needs ground truth, also to scale.

    Args:
      predicted: `(..., J, 3)`, metres, root-relative.
      target: `(..., J, 3)`, metres, root-relative.

    Returns:
      `(...)`, metres.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(predicted, target)
    return mpjpe(best_scale(predicted, target, axis=(-2, -1)) * predicted, target)


def best_scale(predicted: Array, target: Array, *, axis: int | tuple[int, ...]) -> Array:
    """The least-squares scale `<y, p> / <p, p>` over some axes; 1 where `predicted` is zero.

    Args:
      predicted: Any shape.
      target: The same shape.
      axis: The axes that share one scale.

    Returns:
      Like the input, `axis` kept with size 1.
    """
    inner = jnp.sum(target * predicted, axis=axis, keepdims=True)
    square = jnp.sum(predicted * predicted, axis=axis, keepdims=True)
    zero = square == 0
    return jnp.where(zero, 1.0, inner / jnp.where(zero, 1.0, square))


def mpjve(predicted: Array, target: Array) -> Array:
    """Mean per-joint velocity error: MPJPE of frame differences. Needs ground truth.

    Differences stay within a clip. Some released code flattens clips first and so counts the jumps
    between them; reshape to `(1, B * F, J, 3)` to reproduce that.

    Args:
      predicted: `(..., F, J, 3)`, metres, F at least 2.
      target: `(..., F, J, 3)`, metres.

    Returns:
      `(...)`, metres per frame.

    Raises:
      ValueError: Shapes do not fit, or there are fewer than two frames.
    """
    check_pose_pair(predicted, target)
    for name, points in (("predicted", predicted), ("target", target)):
        if jnp.ndim(points) < 3 or jnp.shape(points)[-3] < 2:
            raise ValueError(
                f"{name}: expected (..., F, J, 3) with F >= 2, got shape {jnp.shape(points)}"
            )
    return jnp.mean(mpjpe(_velocity(predicted), _velocity(target)), axis=-1)


def pck(
    predicted: Array,
    target: Array,
    *,
    threshold: float = 0.150,
    joints: Sequence[int] | None = None,
) -> Array:
    """Share of joints with an error strictly below a threshold. Needs ground truth.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.
      threshold: Metres.
      joints: The joints that count, such as `PCK_JOINTS["mpi_inf_3dhp_17"]`; None means all.

    Returns:
      `(...)`, in [0, 1].

    Raises:
      ValueError: Shapes do not fit, or a joint does not exist.
    """
    return auc(predicted, target, thresholds=(threshold,), joints=joints)


def auc(
    predicted: Array,
    target: Array,
    *,
    thresholds: Sequence[float] = AUC_THRESHOLDS,
    joints: Sequence[int] | None = None,
) -> Array:
    """Area under the PCK curve: the mean of `pck` over thresholds. Needs ground truth.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.
      thresholds: Metres.
      joints: As for `pck`.

    Returns:
      `(...)`, in [0, 1].

    Raises:
      ValueError: Shapes do not fit, a joint does not exist, or there is no threshold.
    """
    errors = _chosen(joint_error(predicted, target), joints)
    if len(thresholds) == 0:
        raise ValueError("thresholds: expected at least one, got none")
    below = errors[..., None] < jnp.asarray(np.array(thresholds), dtype=errors.dtype)
    # A NaN error is not below any threshold, but neither is it a miss: keep it visible.
    passed = jnp.where(jnp.isnan(errors)[..., None], jnp.nan, below.astype(errors.dtype))
    return jnp.mean(passed, axis=(-2, -1))


def _chosen(errors: Array, joints: Sequence[int] | None) -> Array:
    if joints is None:
        return errors
    count = errors.shape[-1]
    if len(joints) == 0 or not all(0 <= j < count for j in joints):
        raise ValueError(f"joints: expected indices 0 to {count - 1}, got {tuple(joints)}")
    return errors[..., np.array(joints)]


def _velocity(points: Array) -> Array:
    return points[..., 1:, :, :] - points[..., :-1, :, :]
