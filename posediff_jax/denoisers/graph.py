"""Graph layers over the joints of one frame: adjacencies, modulated graph convolution, attention.

Shapes are `(..., J, C)`. Modulated graph convolution is Zou and Tang (ICCV 2021), as DiffuPose
uses it.

Why two weight matrices? A joint's own features and its neighbours' features play different roles,
so W[0] maps a joint onto itself (the diagonal of the affinity) and W[1] maps the other joints. M
then makes both joint-specific at the price of one vector per joint ("weight modulation"), and
`adj2` lets joints that the skeleton does not connect see each other ("affinity modulation").
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.denoisers.layers import (
    BatchNorm,
    Dense,
    torch_kernel_init,
    uniform_init,
    xavier_init,
)
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array

Normalisation = Literal["row", "symmetric"]


def row_normalised_adjacency(skeleton: Skeleton) -> NDArray[np.float64]:
    """The released code's affinity: neighbours' rows divided by their sum, then a unit diagonal.

    Not symmetric; the layer symmetrises it. Values are those of the float32 arithmetic that
    released weights were trained with, widened.
    """
    neighbours = skeleton.neighbours().astype(np.float32)
    rows = neighbours / neighbours.sum(axis=1, keepdims=True)
    np.fill_diagonal(rows, 1)
    return rows.astype(np.float64)


def symmetric_adjacency(skeleton: Skeleton) -> NDArray[np.float64]:
    """The papers' affinity, D^-1/2 (A + I) D^-1/2 (Kipf and Welling; DiffuPose Eq. 6)."""
    loops = skeleton.neighbours() + np.eye(skeleton.num_joints)
    inverse_root = loops.sum(axis=1) ** -0.5
    return inverse_root[:, None] * loops * inverse_root[None, :]


def mean_adjacency(skeleton: Skeleton) -> NDArray[np.float64]:
    """Each joint with its neighbours in equal shares: A + I, rows divided by their sum (DiffHPE).

    Not symmetric. Values are those of the float32 arithmetic of the release, widened.
    """
    loops = (skeleton.neighbours() + np.eye(skeleton.num_joints)).astype(np.float32)
    return (loops / loops.sum(axis=1, keepdims=True)).astype(np.float64)


def make_adjacency(skeleton: Skeleton, normalisation: Normalisation) -> NDArray[np.float64]:
    """The constant affinity by its name in a config: "row" (released) or "symmetric" (papers).

    Raises:
      ValueError: Unknown name.
    """
    builders = {"row": row_normalised_adjacency, "symmetric": symmetric_adjacency}
    if normalisation not in builders:
        raise ValueError(f"adjacency: expected one of {sorted(builders)}, got {normalisation!r}")
    return builders[normalisation](skeleton)


def _sum_over_joints(S: Array, h: Array) -> Array:
    """S h for each item of `(..., J, C)`.

    As a batched product the data stay in place; one product with S as the left factor would first
    turn all of `h` around, which on a CPU takes longer than the product, in the gradient twice.
    """
    return jnp.matmul(jnp.broadcast_to(S, (*h.shape[:-2], *S.shape)), h)


def _for_each_item(weights: Array, items: Array) -> Array:
    """`(J, C)` repeated for items `(..., J, .)`: `(..., J, C)`.

    By a product with ones, so that the gradient sums over items by a product too: on a CPU many
    times faster than a sum over rows.
    """
    lead = items.shape[:-2]
    ones = jnp.ones((math.prod(lead), 1), weights.dtype)
    return (ones @ weights.reshape(1, -1)).reshape(*lead, *weights.shape)


class ModulatedGraphConv(nn.Module):
    """Modulated graph convolution, or its vanilla form.

    S = A + adj2, made symmetric; Y = (S I) (M X W0) + (S (1 - I)) (M X W1) + bias, where S I and
    S (1 - I) are the diagonal and the rest of S, and M scales the source joint. With `mask` the
    papers' A (.) P + Q replaces A + adj2, which no released code does.

    Attributes:
      features: Output channels.
      skeleton: Joints and their neighbours.
      adjacency: "row" as released, "symmetric" as the papers say.
      modulated: False gives the vanilla layer of DiffuPose Eq. 6: one W, no M, no adj2.
      mask: Learn the papers' multiplicative mask P (starts at one).
      modulation_init: "xavier" (DiffuPose, Modulated-GCN benchmark) or "ones" (Modulated-GCN gt).
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    features: int
    skeleton: Skeleton
    adjacency: Normalisation = "row"
    modulated: bool = True
    mask: bool = False
    modulation_init: Literal["xavier", "ones"] = "xavier"
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`(..., J, C_in)` to `(..., J, features)`."""
        joints, features, fan = self.skeleton.num_joints, self.features, x.shape[-1]
        # The bound PyTorch gives a (2, in, out) tensor: fans in*out and 2*out, not in and out.
        num_weights = 2 if self.modulated else 1
        W = self.param("W", xavier_init(fan * features, 2 * features), (num_weights, fan, features))
        bias = self.param("bias", uniform_init(features**-0.5), (features,))
        S = self._affinity()
        if not self.modulated:
            x, W, S, bias = nn.dtypes.promote_dtype(x, W, S, bias, dtype=self.dtype)
            return _sum_over_joints(S, x @ W[0]) + bias
        if self.modulation_init == "ones":
            M = self.param("M", nn.initializers.ones, (joints, features))
        else:
            M = self.param("M", xavier_init(joints, features), (joints, features))
        x, W, S, M, bias = nn.dtypes.promote_dtype(x, W, S, M, bias, dtype=self.dtype)
        diagonal = jnp.diag(S)
        own = _for_each_item(diagonal[:, None] * M, x) * (x @ W[0])
        others = _sum_over_joints(S - jnp.diag(diagonal), _for_each_item(M, x) * (x @ W[1]))
        return own + others + bias

    def _affinity(self) -> Array:
        joints = self.skeleton.num_joints
        S = jnp.asarray(make_adjacency(self.skeleton, self.adjacency))
        if self.mask:
            S = S * self.param("P", nn.initializers.ones, (joints, joints))
        if self.modulated:
            S = S + self.param("adj2", nn.initializers.constant(1e-6), (joints, joints))
        return (S + S.T) / 2


class GraphConv(nn.Module):
    """Graph convolution, batch normalisation, ReLU; dropout and a second ReLU where p > 0.

    Attributes:
      conv: The graph convolution to apply; a module instance.
      dropout: Probability of dropping an activation; DiffuPose always has 0.
    """

    conv: ModulatedGraphConv
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """`(..., J, C_in)` to `(..., J, C)`."""
        x = self.conv(x)
        x = BatchNorm(name="bn")(x, train=train, mask=mask, axis_name=axis_name)
        x = nn.relu(x)
        if self.dropout > 0:
            x = nn.relu(nn.Dropout(self.dropout, deterministic=not train)(x))
        return x


class ResidualBlock(nn.Module):
    """x + GraphConv(GraphConv(x)), with nothing after the addition.

    Attributes:
      first: First layer.
      second: Second layer.
    """

    first: GraphConv
    second: GraphConv

    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """`(..., J, C)` to the same shape."""
        options: dict[str, Any] = {"train": train, "mask": mask, "axis_name": axis_name}
        return x + self.second(self.first(x, **options), **options)


class NonLocalBlock(nn.Module):
    """Embedded-Gaussian attention over the joints of one frame, added to its input.

    x + BN(W (softmax(theta phi^T) g)), without 1/sqrt(d). The normalisation's scale starts at
    zero, so the block starts as the identity.

    Attributes:
      dtype: Compute type; the softmax runs in at least float32.
    """

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
        """`(..., J, C)` to the same shape.

        Raises:
          ValueError: C is odd.
        """
        channels = x.shape[-1]
        if channels % 2:
            raise ValueError(f"x: expected an even number of channels, got {channels}")
        # One product for the three embeddings; separate parameters, as checkpoints have them.
        embeddings = [self._embedding(name, channels) for name in ("theta", "phi", "g")]
        kernel = jnp.concatenate([kernel for kernel, _ in embeddings], axis=-1)
        bias = jnp.concatenate([bias for _, bias in embeddings])
        x_, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        theta, phi, g = jnp.split(x_ @ kernel + bias, 3, axis=-1)
        logits = jnp.einsum("...ic,...jc->...ij", theta, phi)
        wide = jnp.promote_types(logits.dtype, jnp.float32)
        attention = jax.nn.softmax(logits.astype(wide), axis=-1).astype(g.dtype)
        y = jnp.einsum("...ij,...jc->...ic", attention, g)
        y = Dense(channels, dtype=self.dtype, name="out")(y)
        norm = BatchNorm(scale_init=nn.initializers.zeros, name="bn")
        return x + norm(y, train=train, mask=mask, axis_name=axis_name)

    def _embedding(self, name: str, channels: int) -> tuple[Array, Array]:
        kernel = self.param(f"{name}_kernel", torch_kernel_init, (channels, channels // 2))
        bias = self.param(f"{name}_bias", uniform_init(channels**-0.5), (channels // 2,))
        return kernel, bias
