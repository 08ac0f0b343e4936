"""Means over the frames of a batch that count, on one device or many."""

import jax
import jax.numpy as jnp

from posediff_jax.types import Array


def masked_mean(values: Array, mask: Array, *, axis_name: str | None = None) -> Array:
    """Mean of `values` where `mask` is 1.

    With `axis_name` each device divides its own sum by the mean count of all devices, so that the
    `pmean` of what they return, and of its gradient, is the mean over the global batch even if
    their counts differ.

    Args:
      values: One number per frame, `(B, F)`.
      mask: 1 for a real frame, 0 for padding, `(B, F)`.
      axis_name: Mapped device axis.
    """
    mask = mask.astype(values.dtype)
    count = jnp.sum(mask)
    if axis_name is not None:
        count = jax.lax.pmean(count, axis_name)
    # Padding may hold anything, a NaN too: it must not reach the sum by way of 0 * NaN.
    return jnp.sum(jnp.where(mask > 0, values, 0) * mask) / jnp.maximum(count, 1e-12)
