"""Layers shared by several denoisers, with the defaults of the papers' PyTorch code."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer, variance_scaling
from numpy.typing import DTypeLike

from posediff_jax.types import Array

# PyTorch's default for Linear and Conv weights: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
torch_kernel_init: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
# Kaiming normal with gain sqrt(2), not cut off.
kaiming_normal_init: Initializer = variance_scaling(2.0, "fan_in", "normal")


def uniform_init(bound: float) -> Callable[..., Array]:
    """U(-bound, bound)."""

    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, jnp.dtype(dtype), -bound, bound)

    return init


def xavier_init(fan_in: int, fan_out: int, gain: float = 1.414) -> Callable[..., Array]:
    """U(+-gain sqrt(6 / (fan_in + fan_out))), with the fans that PyTorch reads off a shape."""
    return uniform_init(gain * (6 / (fan_in + fan_out)) ** 0.5)


class Dense(nn.Module):
    """A linear layer that starts like PyTorch's: weight and bias U(+-1/sqrt(fan_in)).

    Attributes:
      features: Output channels.
      dtype: Compute type; None keeps the promoted type of input and parameters.
      kernel_init: Start of the weight where it is another.
    """

    features: int
    dtype: jnp.dtype | None = None
    kernel_init: Initializer = torch_kernel_init

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`(..., C_in)` to `(..., features)`."""
        fan_in = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features))
        bias = self.param("bias", uniform_init(fan_in**-0.5), (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return x @ kernel + bias


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but one, as PyTorch does it.

    Differs from `flax.linen.BatchNorm`: the running variance is the unbiased one, padded items do
    not count, and the statistics of several devices are those of the whole batch.

    Attributes:
      momentum: Weight of the new statistics in the running ones.
      epsilon: Added to the variance.
      scale_init: Start of the scale; the papers' non-local blocks start at zero.
      axis: What is normalised apart: the last axis, or another by its number from the front.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones
    axis: int = -1

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """Normalises `(..., C)`.

        Args:
          x: Activations.
          train: Use the statistics of the batch and update the running ones.
          mask: 1 for items that count, 0 for padding; broadcasts against the leading axes of `x`.
          axis_name: Mapped device axis to share statistics over.
        """
        channels = x.shape[self.axis]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        scale = self.param("scale", self.scale_init, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # Statistics and affine map in at least float32, whatever the compute type.
        wide = x.astype(jnp.promote_types(x.dtype, scale.dtype))
        if train:
            mean, var, count = _batch_statistics(wide, mask, axis_name, self.axis)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                # What is padding in the whole batch teaches nothing.
                momentum = jnp.where(count > 0, self.momentum, 0.0).astype(mean.dtype)
                running_mean.value += momentum * (mean - running_mean.value)
                running_var.value += momentum * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        factor, shift = (_along(v, x.ndim, self.axis) for v in (factor, shift))
        return (wide * factor + shift).astype(x.dtype)


def _along(values: Array, ndim: int, axis: int) -> Array:
    """`(C,)` as an array that broadcasts along one axis of `ndim`."""
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


def _batch_statistics(
    x: Array, mask: Array | None, axis_name: str | None, axis: int
) -> tuple[Array, Array, Array]:
    """Mean, biased variance and count over all axes but one, padding left out."""
    weight = jnp.ones(x.shape[:-1], x.dtype)
    if mask is not None:
        weight *= mask.reshape(mask.shape + (1,) * (weight.ndim - mask.ndim)).astype(x.dtype)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def total(values: Array) -> Array:
        # Products with ones and weights: on a CPU many times faster than sums over the rows.
        if axis == -1:
            local = product(weight.reshape(-1), values.reshape(-1, values.shape[-1]))
        else:
            others = tuple(i for i in range(weight.ndim) if i != axis)
            rows = product(values, jnp.ones(values.shape[-1], x.dtype))
            local = jnp.sum(weight * rows, axis=others)
        return local if axis_name is None else jax.lax.psum(local, axis_name)

    count = total(jnp.ones((*x.shape[:-1], 1 if axis == -1 else x.shape[-1]), x.dtype))
    # A frame that is padding in all windows of a batch has no statistics, and a count of 0.
    divisor = jnp.maximum(count, 1)
    mean = total(x) / divisor
    var = total((x - _along(mean, x.ndim, axis)) ** 2) / divisor
    return mean, var, count


def sinusoid(t: Array, width: int) -> Array:
    """Sinusoidal embedding of integer timesteps (DiffuPose): all sines, then all cosines.

    f_k = 10000^(-k / (width / 2 - 1)), k = 0 .. width / 2 - 1. The frequencies are built on the
    host in float64.

    Args:
      t: Timesteps `(...)`.
      width: Even and at least 4.

    Returns:
      `(..., width)`.

    Raises:
      ValueError: `width` is odd or below 4.
    """
    if width < 4 or width % 2:
        raise ValueError(f"width: expected an even number of at least 4, got {width}")
    half = width // 2
    frequencies = jnp.asarray(np.exp(-np.arange(half) * (np.log(10000.0) / (half - 1))))
    angles = t[..., None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def check_timesteps(t: Array, x_t: Array) -> None:
    """Refuses timesteps that would broadcast against the wrong axis of `(..., J, 3)`.

    Raises:
      ValueError: `t` is neither a scalar nor one number per pose.
    """
    if jnp.ndim(t) and jnp.shape(t) != jnp.shape(x_t)[:-2]:
        raise ValueError(
            f"t: expected a scalar or shape {jnp.shape(x_t)[:-2]}, one per pose of x_t "
            f"{jnp.shape(x_t)}, got {jnp.shape(t)}"
        )
