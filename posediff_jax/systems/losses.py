"""What the losses of all systems share: checked inputs, keys, means over the frames that count."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array, PoseBatch


def check_factors(options: Any, *names: str) -> None:
    """Refuses factors of a section `loss` that would turn its sense, or make it no number.

    Args:
      options: The section.
      *names: Its fields that are factors.

    Raises:
      ValueError: One is negative or not finite.
    """
    for name in names:
        value = getattr(options, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"loss.{name}: expected a finite factor of at least 0, got {value}")


def training_pair(batch: PoseBatch, skeleton: Skeleton) -> tuple[Array, Array]:
    """Poses and keypoints to train on, with zeros in padded frames.

    Padding may hold anything, and a NaN would reach the gradient by way of 0 * NaN.

    Args:
      batch: The batch, `(B, F, J, .)`.
      skeleton: What its joints must be.

    Returns:
      `(B, F, J, 3)` metres and `(B, F, J, 2)` screen units.

    Raises:
      ValueError: The batch has no poses, other joints, or a mask that is not `(B, F)`.
    """
    if batch.pose is None:
        raise ValueError("batch.pose: expected root-relative poses to train on, got None")
    check_joints(batch.pose, skeleton, channels=3, name="batch.pose")
    check_joints(batch.keypoints, skeleton, channels=2, name="batch.keypoints")
    if jnp.shape(batch.mask) != jnp.shape(batch.pose)[:2]:
        raise ValueError(
            f"batch.mask: expected {jnp.shape(batch.pose)[:2]} (B, F), got {jnp.shape(batch.mask)}"
        )
    real = jnp.asarray(batch.mask)[..., None, None] > 0
    return jnp.where(real, batch.pose, 0), jnp.where(real, batch.keypoints, 0)


def device_key(key: Array, axis_name: str | None) -> Array:
    """A key of its own for each device of a mapped axis, for what no item index reaches."""
    return jax.random.fold_in(key, 0 if axis_name is None else jax.lax.axis_index(axis_name))


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
