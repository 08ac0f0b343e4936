"""Rules that choose among hypotheses by the ground truth: for tables, never for use.

Report them as oracles, with the number of hypotheses: a minimum falls as that number grows.
"""

import jax.numpy as jnp

from posediff_jax.types import Array

NEEDS = ("ground truth",)


def best_hypothesis(errors: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """The least error over hypotheses and its index ("minMPJPE", "P-Best"). Needs ground truth.

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
