"""One pose from many hypotheses, without ground truth, camera or root position."""

import jax.numpy as jnp

from posediff_jax.geometry import safe_norm
from posediff_jax.types import Array


def mean_pose(hypotheses: Array, *, axis: int = 1) -> Array:
    """The mean over hypotheses ("P-Agg"): `(B, H, F, J, 3)` to `(B, F, J, 3)`."""
    return jnp.mean(hypotheses, axis=axis)


def medoid_pose(hypotheses: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """The hypothesis nearest to all others: least sum of mean joint distances.

    Unlike the mean it is a pose that was drawn, so its bones keep their lengths.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`.
      axis: Axis of the hypotheses.

    Returns:
      The chosen poses with `axis` removed, and the chosen index for each frame.
    """
    x = jnp.moveaxis(hypotheses, axis, 0)
    distances = safe_norm(x[:, None] - x[None], axis=-1).mean(axis=-1)
    index = jnp.argmin(distances.sum(axis=1), axis=0)
    return jnp.take_along_axis(x, index[None, ..., None, None], axis=0)[0], index


def joint_spread(hypotheses: Array, *, axis: int = 1) -> Array:
    """Root mean square distance of each joint to its mean over hypotheses, metres.

    `(B, H, F, J, 3)` to `(B, F, J)`. Zero for a single hypothesis.
    """
    centred = hypotheses - jnp.mean(hypotheses, axis=axis, keepdims=True)
    return jnp.sqrt(jnp.mean(jnp.sum(centred**2, axis=-1), axis=axis % hypotheses.ndim))
