"""Rules that choose among hypotheses by the ground truth: for tables, never for use.

Report them as oracles, with the number of hypotheses: a minimum falls as that number grows.
"""

import jax
import jax.numpy as jnp

from posediff_jax.geometry import safe_norm
from posediff_jax.samplers.aggregate import take_joints
from posediff_jax.types import Array

NEEDS = ("ground truth",)


def best_hypothesis(errors: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """The least error of each pose and its index ("minMPJPE", "P-Best"). Needs ground truth.

    ZeDO chooses per frame and separately for each protocol: by the aligned error for aligned
    tables. A hypothesis without an answer (NaN) is never chosen unless all are.

    Args:
      errors: One error per pose, such as `mpjpe`, `(B, H, F)` or any shape with hypotheses on
        `axis`.
      axis: Axis of the hypotheses.

    Returns:
      The least errors and the index of the first hypothesis that has them, `axis` removed.

    Raises:
      ValueError: `errors` has no such axis, or no hypotheses.
    """
    shape = jnp.shape(errors)
    if not -len(shape) <= axis < len(shape) or shape[axis] == 0:
        raise ValueError(f"errors: expected hypotheses on axis {axis}, got shape {shape}")
    errors = jnp.asarray(errors)
    index = jnp.argmin(jnp.where(jnp.isnan(errors), jnp.inf, errors), axis=axis)
    least = jnp.take_along_axis(errors, jnp.expand_dims(index, axis), axis=axis)
    return jnp.squeeze(least, axis=axis), index


def best_hypothesis_of_batch(
    errors: Array, *, axis: int = 1, mask: Array | None = None
) -> tuple[Array, Array]:
    """ONE hypothesis for the whole batch, that of the least mean error. Needs ground truth.

    What the released D3DP and DDHPose code prints as "P-Best". D3DP's text chooses for each pose:
    `best_hypothesis`. The figure grows with the batch, so a batch size belongs to it.

    Args:
      errors: One error per pose, `(B, H, F)` or any shape with hypotheses on `axis`; vmap over
        stored iterations.
      axis: Axis of the hypotheses.
      mask: 1 for a pose that counts, the axes of `errors` without `axis`; None counts all.

    Returns:
      The least mean error and the index of the first hypothesis that has it, scalars.

    Raises:
      ValueError: `errors` has no such axis, or no hypotheses; or a mask of another shape.
    """
    shape = jnp.shape(errors)
    if not -len(shape) <= axis < len(shape) or shape[axis] == 0:
        raise ValueError(f"errors: expected hypotheses on axis {axis}, got shape {shape}")
    rows = jnp.moveaxis(jnp.asarray(errors), axis, 0)
    real = jnp.ones(rows.shape[1:], bool) if mask is None else jnp.asarray(mask) > 0
    if real.shape != rows.shape[1:]:
        raise ValueError(f"mask: expected {rows.shape[1:]} for these errors, got {real.shape}")
    within = tuple(range(1, rows.ndim))
    means = jnp.sum(jnp.where(real, rows, 0), axis=within) / jnp.maximum(jnp.sum(real), 1)
    return best_hypothesis(means, axis=0)


def best_of_groups(errors: Array, group: Array, mask: Array) -> Array:
    """For each group of a batch the hypothesis of the least mean error. Needs ground truth.

    Args:
      errors: One error per pose, `(B, H, F)`.
      group: The group of each item, `(B,)` integers in [0, B).
      mask: True for a pose that counts, `(B, F)`.

    Returns:
      The index of the first hypothesis that is best for the group of each item, `(B,)`; see
      `best_hypothesis_of_batch`.
    """
    counted = jnp.where(jnp.asarray(mask)[:, None], errors, 0)
    # All hypotheses of a group have as many poses that count: sums rank as means do.
    sums = jax.ops.segment_sum(counted.sum(axis=2), group, num_segments=len(errors))
    return best_hypothesis(sums, axis=1)[1][jnp.asarray(group)]


def best_joints(hypotheses: Array, target: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """Joint by joint the hypothesis nearest to the truth ("J-Best"). Needs ground truth.

    The upper bound of what `reprojection_pose` (J-Agg) could choose.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`, metres.
      target: `(B, F, J, 3)`, metres; the axes of `hypotheses` without `axis`, or such as broadcast.
      axis: Axis of the hypotheses, counted from the front.

    Returns:
      Poses `(B, F, J, 3)`, and the index of the hypothesis that each joint is from, `(B, F, J)`.

    Raises:
      ValueError: Shapes do not fit.
    """
    if jnp.ndim(target) != jnp.ndim(hypotheses) - 1:
        raise ValueError(
            f"target: expected the axes of hypotheses {jnp.shape(hypotheses)} without axis {axis}, "
            f"got shape {jnp.shape(target)}"
        )
    distance = safe_norm(hypotheses - jnp.expand_dims(jnp.asarray(target), axis))
    _, index = best_hypothesis(distance, axis=axis)
    return take_joints(hypotheses, index, axis=axis), index


def take_hypothesis(hypotheses: Array, index: Array, *, axis: int = 1) -> Array:
    """The hypothesis that `index` names for each frame.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`.
      index: As from `best_hypothesis`: the leading axes of `hypotheses` without `axis`.
      axis: Axis of the hypotheses, counted from the front.

    Returns:
      `hypotheses` without `axis`.

    Raises:
      ValueError: Shapes do not fit.
    """
    lead = jnp.shape(hypotheses)[:-2]
    if not 0 <= axis < len(lead) or jnp.shape(index) != (*lead[:axis], *lead[axis + 1 :]):
        raise ValueError(
            f"index: expected the leading axes {lead} of hypotheses without axis {axis}, "
            f"got shape {jnp.shape(index)}"
        )
    wide = jnp.expand_dims(index, (axis, -2, -1))
    return jnp.squeeze(jnp.take_along_axis(jnp.asarray(hypotheses), wide, axis=axis), axis=axis)
