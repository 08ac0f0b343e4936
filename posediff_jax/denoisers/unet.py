"""A 1-D U-Net along the joint axis: this package's own baseline for the graph network.

DiffuPose compares with a "conventional denoising U-Net" of 2.99 M parameters but released neither
code nor sizes. This one has about as many parameters; it is not the authors'.
"""

import flax.linen as nn
import jax.numpy as jnp

from posediff_jax.denoisers.layers import Dense, check_timesteps, sinusoid
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array


class UNetBlock(nn.Module):
    """Two normalised convolutions along the joints, told the timestep, added to the input.

    Conv(SiLU(Norm(h))) with h = Conv(SiLU(Norm(x))) (scale + 1) + shift, scale and shift linear in
    SiLU of the time embedding; the input passes a 1x1 convolution where the channels change.

    Attributes:
      features: Output channels; a multiple of 8.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, time_embedding: Array) -> Array:
        """`(B, L, C_in)` and `(B, C_t)` to `(B, L, features)`."""
        h = self._conv("first", 3)(nn.silu(_group_norm("norm1", self.dtype)(x)))
        projected = Dense(2 * self.features, dtype=self.dtype, name="time")(nn.silu(time_embedding))
        scale, shift = jnp.split(projected[:, None], 2, axis=-1)
        h = h * (scale + 1) + shift
        h = self._conv("second", 3)(nn.silu(_group_norm("norm2", self.dtype)(h)))
        return h + (x if x.shape[-1] == self.features else self._conv("skip", 1)(x))

    def _conv(self, name: str, size: int) -> nn.Conv:
        return nn.Conv(self.features, (size,), dtype=self.dtype, name=name)


class PoseUNet(nn.Module):
    """Predicts the noise in a pose, and its 2D condition, from both; called like `DiffuPoseGCN`.

    The joints, in the skeleton's order, are the pixels of a one-dimensional image with 5 channels,
    padded with zeros to a length that halves evenly. Two blocks per level on the way down and on
    the way up, skip connections by concatenation. 3.0 M parameters with 17 joints by default.

    Attributes:
      skeleton: Joints; their order matters, their tree does not.
      width: Channels of the first level; a multiple of 8.
      multipliers: Channels of each level over `width`; each further level halves the length.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    width: int = 72
    multipliers: tuple[int, ...] = (1, 2, 2)
    dtype: jnp.dtype | None = None

    @nn.compact
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
          train: Not used, as `mask` and `axis_name`: no statistics of the batch, no dropout.
          mask: Not used.
          axis_name: Not used.

        Returns:
          `(..., J, 5)`: the estimated noise, then the reconstructed condition.

        Raises:
          ValueError: Wrong joint count or channels, timesteps that do not match `x_t`, or a width
            that the normalisation refuses.
        """
        del train, mask, axis_name
        check_joints(cond, self.skeleton, channels=2, name="cond")
        check_joints(x_t, self.skeleton, channels=3, name="x_t")
        check_timesteps(t, x_t)
        if self.width < 8 or self.width % 8:
            raise ValueError(f"width: expected a multiple of 8, got {self.width}")
        joints = self.skeleton.num_joints
        x = jnp.concatenate([x_t, cond], axis=-1)
        lead = x.shape[:-2]
        h = self._run(x.reshape(-1, joints, 5), jnp.broadcast_to(t, lead).reshape(-1))
        return h.reshape(*lead, joints, 5)

    def _run(self, x: Array, t: Array) -> Array:
        """`(B, J, 5)` and `(B,)` to `(B, J, 5)`."""
        embedding = sinusoid(t, self.width)
        embedding = nn.silu(Dense(4 * self.width, dtype=self.dtype, name="time_in")(embedding))
        embedding = Dense(4 * self.width, dtype=self.dtype, name="time_out")(embedding)
        joints, depth = x.shape[1], len(self.multipliers) - 1
        h = jnp.pad(x, ((0, 0), (0, -joints % 2**depth), (0, 0)))
        h = self._conv(self.width, "in")(h)
        skips = []
        for level, multiplier in enumerate(self.multipliers):
            if level:
                h = self._conv(h.shape[-1], f"down{level}", stride=2)(h)
            for i in range(2):
                h = self._block(multiplier, f"down{level}_block{i}")(h, embedding)
                skips.append(h)
        h = self._block(self.multipliers[-1], "middle")(h, embedding)
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for i in range(2):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(multiplier, f"up{level}_block{i}")(h, embedding)
            if level:
                h = self._conv(h.shape[-1], f"up{level}")(jnp.repeat(h, 2, axis=1))
        h = nn.silu(_group_norm("norm_out", self.dtype)(h))
        return self._conv(5, "out")(h)[:, :joints]

    def _block(self, multiplier: int, name: str) -> UNetBlock:
        return UNetBlock(multiplier * self.width, dtype=self.dtype, name=name)

    def _conv(self, features: int, name: str, stride: int = 1) -> nn.Conv:
        return nn.Conv(features, (3,), strides=(stride,), dtype=self.dtype, name=name)


def _group_norm(name: str, dtype: jnp.dtype | None) -> nn.GroupNorm:
    # The fast variance loses digits where the mean is large.
    return nn.GroupNorm(8, epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)
