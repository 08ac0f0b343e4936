"""Graph layers of DiffHPE: a weight of its own for each joint, over channels or over frames.

Activations are `(J, F, N, C)`, N windows, joints first: a layer over channels is then one product
per joint of `(F N, C)` rows, a layer over frames one of `(F, N C)` columns, and the sum over
neighbours one product of a `(J, J)` matrix with all the rest. Nothing is transposed in between.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.graph import mean_adjacency
from posediff_jax.denoisers.layers import BatchNorm, uniform_init, xavier_init
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array

CHANNELS, FRAMES = -1, 1


class PreAggregatedConv(nn.Module):
    """Pre-aggregated graph convolution with decoupled self-connections (Liu et al., ECCV 2020).

    y_i = A_ii x_i W[0, i] + sum_{j != i} A_ij x_j W[1, j] + b: what a joint sends depends on who
    sends it. Coupled, y_i = sum_j A_ij x_j W[0, j] + b. A is `mean_adjacency`.

    Attributes:
      features: Size of the output along `axis`.
      skeleton: Joints and their neighbours.
      axis: What is mapped: `CHANNELS` or `FRAMES`.
      decoupled: A weight apart for what a joint sends to itself.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    features: int
    skeleton: Skeleton
    axis: int = CHANNELS
    decoupled: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`(J, F, N, C)` to the same but for `features` along `axis`."""
        joints, fan, banks = self.skeleton.num_joints, x.shape[self.axis], 1 + self.decoupled
        size = fan * self.features
        # The bound PyTorch gives a tensor of four axes: ten times smaller than that of a matrix.
        shape = (banks, joints, fan, self.features)
        W = self.param("W", xavier_init(joints * size, banks * size), shape)
        bias = self.param("bias", uniform_init(fan**-0.5), (self.features,))
        A = jnp.asarray(mean_adjacency(self.skeleton))
        own = jnp.diag(A)[:, None, None]
        x, W, A, own, bias = nn.dtypes.promote_dtype(x, W, A, own, bias, dtype=self.dtype)
        if self.axis == FRAMES:
            bias = bias[:, None, None]
        sent = _map_joints(x, W[-1], self.axis)
        if not self.decoupled:
            return _over_neighbours(A, sent) + bias
        others = _over_neighbours(A * (1 - np.eye(joints, dtype=np.int8)), sent)
        return _map_joints(x, own * W[0], self.axis) + others + bias


class JointGraphLayer(nn.Module):
    """Pre-aggregated graph convolution, batch normalisation, ReLU, dropout.

    Attributes:
      skeleton: Joints and their neighbours.
      axis: What is mapped onto itself: `CHANNELS` or `FRAMES`.
      dropout: Probability of dropping an activation.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    axis: int = CHANNELS
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """`(J, F, N, C)` to the same.

        Args:
          x: Activations.
          train: Batch statistics and dropout, from the rng "dropout".
          mask: 1 for frames that count in the statistics, `(F, N)`.
          axis_name: Mapped device axis to share the statistics over.
        """
        size = x.shape[self.axis]
        conv = PreAggregatedConv(size, self.skeleton, self.axis, dtype=self.dtype, name="conv")
        norm = BatchNorm(axis=self.axis, name="bn")
        counted = None if mask is None else mask[None]
        x = nn.relu(norm(conv(x), train=train, mask=counted, axis_name=axis_name))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


def _map_joints(x: Array, weights: Array, axis: int) -> Array:
    """Joint j of `(J, F, N, C)` through `weights[j]`, `(in, out)`, along one axis."""
    joints, frames, windows, channels = x.shape
    if axis == FRAMES:
        y = jnp.swapaxes(weights, 1, 2) @ x.reshape(joints, frames, windows * channels)
        return y.reshape(joints, -1, windows, channels)
    y = x.reshape(joints, frames * windows, channels) @ weights
    return y.reshape(joints, frames, windows, -1)


def _over_neighbours(A: Array, x: Array) -> Array:
    return (A @ x.reshape(len(x), -1)).reshape(x.shape)
