"""Transformer layers over joints and over frames, as MixSTE and its heirs have them.

Tokens stay `(..., F, J, C)` throughout: a block attends along one of the two token axes, and
nothing is folded or transposed between blocks.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.hierarchy import Walk, edit_logits
from posediff_jax.denoisers.layers import Dense
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array

Axis = Literal["joints", "frames"]
BLOCK_EPSILON, HEAD_EPSILON = 1e-6, 1e-5


def layer_norm(
    *, epsilon: float = BLOCK_EPSILON, dtype: jnp.dtype | None = None, name: str | None = None
) -> nn.LayerNorm:
    """Layer normalisation over channels with PyTorch's two-pass variance.

    Args:
      epsilon: Added to the variance; 1e-6 in blocks, 1e-5 in output heads.
      dtype: Type of the result; None keeps that of input and parameters. Statistics are float32
        at least.
      name: Of the parameters, within a compact method.
    """
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for whole rows of tokens, and rescales the rest.

    A row is what the released code has on its leading axis: one frame of a window under attention
    over joints, one joint of a window under attention over frames. Rows are drawn independently.

    Attributes:
      rate: Probability to drop, 0 to below 1.
      axis: What the block attends over.
    """

    rate: float
    axis: Axis

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """`(..., F, J, C)` to the same; draws from the rng "drop_path" if `train`."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate: expected 0 <= rate < 1, got {self.rate}")
        if not train or self.rate == 0:
            return x
        *lead, frames, joints, _ = x.shape
        rows = (*lead, frames, 1, 1) if self.axis == "joints" else (*lead, 1, joints, 1)
        keep = jax.random.bernoulli(self.make_rng("drop_path"), 1 - self.rate, rows)
        return jnp.where(keep, x / (1 - self.rate), 0)


class Attention(nn.Module):
    """Multi-head self-attention along one token axis, softmax(q k^T / sqrt(C / heads)) v.

    Attributes:
      num_heads: Heads; divides C.
      axis: "joints": the joints of one frame; "frames": the frames of one joint.
      tree: Edit the logits between joints along this tree (HRST); None leaves them.
      walk: See `logit_map`.
      dtype: Compute type; None keeps the promoted type. The softmax is float32 at least.
    """

    num_heads: int
    axis: Axis
    tree: Skeleton | None = None
    walk: Walk = "released"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, children: Array | None = None) -> Array:
        """`(..., F, J, C)` to the same.

        With `children` (HRTT), of the same shape, the logits are q k^T + q kc^T = q (k + kc)^T, kc
        a linear function of the child features.

        Raises:
          ValueError: C is not a multiple of `num_heads`.
        """
        channels = x.shape[-1]
        if channels % self.num_heads:
            raise ValueError(
                f"num_heads: expected a divisor of the width {channels}, got {self.num_heads}"
            )
        size = channels // self.num_heads
        qkv = Dense(3 * channels, dtype=self.dtype, name="qkv")(x)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        if children is not None:
            k = k + Dense(channels, dtype=self.dtype, name="child")(children)
        joints = self.axis == "joints"
        # Heads before tokens: on a CPU the products below are several times as fast so.
        q, k, v = (_split_heads(part, self.num_heads, joints=joints) for part in (q, k, v))
        logits = jnp.einsum("...id,...jd->...ij", q * size**-0.5, k)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        if self.tree is not None and joints:
            logits = edit_logits(logits, self.tree, walk=self.walk)
        # Softmax, its division put behind the sum over values, which is narrower.
        top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = jnp.einsum("...ij,...jd->...id", weights.astype(v.dtype), v)
        out = _join_heads((out / total).astype(v.dtype), joints=joints)
        return Dense(channels, dtype=self.dtype, name="proj")(out)


def _split_heads(x: Array, num_heads: int, *, joints: bool) -> Array:
    """`(..., F, J, C)` to `(..., F, H, J, C / H)`, or to `(..., J, H, F, C / H)` for frames."""
    x = x.reshape(*x.shape[:-1], num_heads, -1)
    return jnp.swapaxes(x, -3, -2) if joints else jnp.moveaxis(x, -4, -2)


def _join_heads(x: Array, *, joints: bool) -> Array:
    """The inverse of `_split_heads`."""
    x = jnp.swapaxes(x, -3, -2) if joints else jnp.moveaxis(x, -2, -4)
    return x.reshape(*x.shape[:-2], -1)


def gelu(x: Array) -> Array:
    """Exact GELU, x (1 + erf(x / sqrt 2)) / 2: PyTorch's form, half the time of Flax's by erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


class MLP(nn.Module):
    """Linear C to ratio C, exact (erf) GELU, linear back.

    Attributes:
      ratio: Of the hidden width to C.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    ratio: float = 2.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`(..., C)` to the same."""
        hidden = Dense(int(self.ratio * x.shape[-1]), dtype=self.dtype, name="fc1")(x)
        return Dense(x.shape[-1], dtype=self.dtype, name="fc2")(gelu(hidden))


class Block(nn.Module):
    """Pre-norm transformer block: x += attention(norm1(x)); x += mlp(norm2(x)).

    Attributes:
      num_heads: Heads of the attention.
      axis: What it attends over.
      drop_path: Rate of stochastic depth, separate draws for the two branches.
      mlp_ratio: Hidden width of the MLP over C.
      tree: See `Attention`.
      walk: See `logit_map`.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    num_heads: int
    axis: Axis
    drop_path: float = 0.0
    mlp_ratio: float = 2.0
    tree: Skeleton | None = None
    walk: Walk = "released"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, children: Array | None = None, *, train: bool = False) -> Array:
        """`(..., F, J, C)`, and HRTT's child features of that shape where given, to the same."""
        attention = Attention(
            self.num_heads, self.axis, self.tree, self.walk, dtype=self.dtype, name="attention"
        )
        norm1 = layer_norm(dtype=self.dtype, name="norm1")
        branch = attention(norm1(x), None if children is None else norm1(children))
        x = x + DropPath(self.drop_path, self.axis)(branch, train=train)
        mlp = MLP(self.mlp_ratio, dtype=self.dtype, name="mlp")
        branch = mlp(layer_norm(dtype=self.dtype, name="norm2")(x))
        return x + DropPath(self.drop_path, self.axis)(branch, train=train)


def drop_path_rates(depth: int, rate: float) -> tuple[float, ...]:
    """The rate of each block, rising linearly from 0 at the first to `rate` at the last.

    Raises:
      ValueError: `depth` below 1.

    >>> drop_path_rates(3, 0.1)
    (0.0, 0.05, 0.1)
    """
    if depth < 1:
        raise ValueError(f"depth: expected at least 1, got {depth}")
    return tuple(rate * i / max(depth - 1, 1) for i in range(depth))
