"""The denoiser of DiffuPose: a modulated graph network that is told the timestep."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from posediff_jax.denoisers.graph import (
    GraphConv,
    ModulatedGraphConv,
    NonLocalBlock,
    Normalisation,
    ResidualBlock,
)
from posediff_jax.denoisers.layers import Dense, check_timesteps, sinusoid
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array


class TimeStepBlock(nn.Module):
    """SiLU(x (scale + 1) + shift), scale and shift linear in SiLU of the time embedding.

    Attributes:
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, time_embedding: Array) -> Array:
        """Modulates `(..., J, C)` by a `(..., C_t)` embedding, the same for all joints."""
        projected = Dense(2 * x.shape[-1], dtype=self.dtype, name="mlp")(nn.silu(time_embedding))
        scale, shift = jnp.split(projected[..., None, :], 2, axis=-1)
        return nn.silu(x * (scale + 1) + shift)


class TimeMLP(nn.Module):
    """Sinusoid of width C/8, then Linear, exact GELU, Linear to C/2 channels.

    Attributes:
      width: C of the network it serves.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    width: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """Timesteps `(...)` to embeddings `(..., C/2)`."""
        h = sinusoid(t, self.width // 8)
        h = Dense(self.width // 2, dtype=self.dtype, name="in")(h)
        return Dense(self.width // 2, dtype=self.dtype, name="out")(nn.gelu(h, approximate=False))


class DiffuPoseGCN(nn.Module):
    """Predicts the noise in a pose, and its 2D condition, from both (DiffuPose, section III-B).

    Graph layer 5 -> C, residual graph blocks, time block, attention over joints, time block, graph
    convolution C -> 5. The papers do not mention the attention block and draw the time blocks
    between the graph blocks; this is the released network. With `width=384` and 16 joints it has
    3.22 M parameters, 148,224 of them in a third time block that the release never calls and that
    is left out here.

    Attributes:
      skeleton: Joints and their neighbours.
      width: C; a multiple of 16, at least 32.
      num_blocks: Residual blocks.
      non_local: Keep the attention block.
      adjacency: "row" as released, "symmetric" as the papers say.
      modulated: False gives a vanilla GCN (Eq. 6).
      mask: Learn the papers' multiplicative mask P (Eq. 7), which the release does not have.
      dropout: Dropout in the graph layers; 0 in DiffuPose.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    width: int = 384
    num_blocks: int = 4
    non_local: bool = True
    adjacency: Normalisation = "row"
    modulated: bool = True
    mask: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        check_width(self.width)
        self.gconv_input = self._layer()
        self.gconv_layers = [
            ResidualBlock(self._layer(), self._layer()) for _ in range(self.num_blocks)
        ]
        self.time_mlp = TimeMLP(self.width, dtype=self.dtype)
        self.block1 = TimeStepBlock(dtype=self.dtype)
        if self.non_local:
            self.attention = NonLocalBlock(dtype=self.dtype)
        self.block2 = TimeStepBlock(dtype=self.dtype)
        self.gconv_output = self._conv(5)

    def __call__(
        self,
        cond: Array,
        x_t: Array,
        t: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """One evaluation.

        Args:
          cond: 2D joints in screen units, `(..., J, 2)`.
          x_t: Noisy pose in metres, `(..., J, 3)`.
          t: 0-based timesteps, `(...)`, or a scalar for the whole batch.
          train: Batch statistics in the normalisation, and dropout.
          mask: 1 for items that count in the statistics, `(...)`.
          axis_name: Mapped device axis to share the statistics over.

        Returns:
          `(..., J, 5)`: the estimated noise, then the reconstructed condition.

        Raises:
          ValueError: Wrong joint count or channels, or timesteps that do not match `x_t`.
        """
        check_joints(cond, self.skeleton, channels=2, name="cond")
        check_joints(x_t, self.skeleton, channels=3, name="x_t")
        check_timesteps(t, x_t)
        options: dict[str, Any] = {"train": train, "mask": mask, "axis_name": axis_name}
        time_embedding = self.time_mlp(jnp.asarray(t))
        h = jnp.concatenate([x_t, cond], axis=-1)
        h = self.gconv_input(h, **options)
        for block in self.gconv_layers:
            h = block(h, **options)
        h = self.block1(h, time_embedding)
        if self.non_local:
            h = self.attention(h, **options)
        h = self.block2(h, time_embedding)
        return self.gconv_output(h)

    def _conv(self, features: int) -> ModulatedGraphConv:
        return ModulatedGraphConv(
            features,
            skeleton=self.skeleton,
            adjacency=self.adjacency,
            modulated=self.modulated,
            mask=self.mask,
            dtype=self.dtype,
        )

    def _layer(self) -> GraphConv:
        return GraphConv(self._conv(self.width), dropout=self.dropout)


def check_width(width: int) -> None:
    """Refuses a width that the time embedding cannot have.

    Raises:
      ValueError: `width` is not a multiple of 16 or below 32.
    """
    if width < 32 or width % 16:
        raise ValueError(f"width: expected a multiple of 16, at least 32, got {width}")
