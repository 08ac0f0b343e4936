"""Whether hypotheses spread as much as they err: ranks, quantile coverage, CRPS, energy score.

A minimum over hypotheses falls with any added spread; these figures do not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import safe_norm
from posediff_jax.types import Array


def truth_ranks(hypotheses: Array, target: Array, *, axis: int = 1) -> Array:
    """How many hypotheses lie below the truth, for each coordinate. Needs ground truth.

    If truth and hypotheses come from one distribution, all ranks 0 ... H are equally likely.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any shape with the hypotheses on `axis`.
      target: The same shape without `axis`.
      axis: Axis of the hypotheses.

    Returns:
      Integers in [0, H], shaped like `target`.

    Raises:
      ValueError: The shapes do not fit.
    """
    _check(hypotheses, target, axis)
    return jnp.sum(hypotheses < jnp.expand_dims(target, axis), axis=axis)


def coverage_error(rank_counts: Any) -> float:
    """Mean error of quantile coverage (ECE): how often the truth is below each quantile.

    `1/H sum_{k < H} |F(k) - (k + 1) / (H + 1)|`, F the share of ranks up to k. 0 is calibrated;
    hypotheses that are all alike approach 1/4 if they are off to both sides equally often.

    Args:
      rank_counts: How often each rank of `truth_ranks` occurs, `(H + 1,)`.

    Raises:
      ValueError: Fewer than two ranks, or nothing counted.

    >>> coverage_error([5, 5, 5, 5]), coverage_error([10, 0, 0, 10])
    (0.0, 0.16666666666666666)
    """
    counts = np.asarray(rank_counts, np.float64)
    if counts.ndim != 1 or len(counts) < 2 or not counts.sum() > 0:
        raise ValueError(f"rank_counts: expected counts of ranks 0 ... H, got {rank_counts}")
    reached = np.cumsum(counts)[:-1] / counts.sum()
    nominal = np.arange(1, len(counts)) / len(counts)
    return float(np.abs(reached - nominal).mean())


def crps(hypotheses: Array, target: Array, *, axis: int = 1) -> Array:
    """Continuous ranked probability score of each coordinate, lower is better. Needs ground truth.

    `E|X - y| - E|X - X'| / 2`, the second mean over pairs of different hypotheses ("fair"), so its
    expectation does not depend on H. With one hypothesis it is the absolute error.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any shape with the hypotheses on `axis`.
      target: The same shape without `axis`.
      axis: Axis of the hypotheses.

    Returns:
      Shaped and measured like `target`.

    Raises:
      ValueError: The shapes do not fit.
    """
    _check(hypotheses, target, axis)
    x = jnp.moveaxis(jnp.asarray(hypotheses), axis, 0)
    error = jnp.mean(jnp.abs(x - target), axis=0)
    count = x.shape[0]
    if count == 1:
        return error
    # Half the mean of |x_i - x_j| over pairs: x_(k) is added k times, taken off count - 1 - k.
    times = (2 * np.arange(count) - count + 1) / (count * (count - 1))
    return error - jnp.tensordot(times.astype(x.dtype), jnp.sort(x, axis=0), axes=1)


def energy_score(hypotheses: Array, target: Array, *, axis: int = 1) -> Array:
    """Energy score of each joint, the CRPS of points in space. Needs ground truth.

    `E|X - y| - E|X - X'| / 2` with Euclidean norms; see `crps`.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., 3)` with the hypotheses on `axis`, metres.
      target: The same shape without `axis`.
      axis: Axis of the hypotheses.

    Returns:
      `target` without its last axis, metres.

    Raises:
      ValueError: The shapes do not fit.
    """
    _check(hypotheses, target, axis)
    x = jnp.moveaxis(jnp.asarray(hypotheses), axis, 0)
    error = jnp.mean(safe_norm(x - target), axis=0)
    count = x.shape[0]
    if count == 1:
        return error
    # One hypothesis against all at a time: memory grows with H, not with its square.
    to_all = jax.lax.map(lambda one: jnp.sum(safe_norm(x - one), axis=0), x)
    return error - jnp.sum(to_all, axis=0) / (2.0 * count * (count - 1))


def _check(hypotheses: Array, target: Array, axis: int) -> None:
    shape = list(jnp.shape(hypotheses))
    if not 0 <= axis < len(shape) or shape[axis] == 0:
        raise ValueError(f"hypotheses: expected hypotheses on axis {axis}, got {tuple(shape)}")
    del shape[axis]
    if jnp.shape(target) != tuple(shape):
        raise ValueError(f"target: expected {tuple(shape)}, got {jnp.shape(target)}")
