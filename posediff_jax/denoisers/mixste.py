"""MixSTE (Zhang et al., CVPR 2022), and the denoiser that D3DP (Shan et al., ICCV 2023) made of it.

Attention over joints and over frames in turn, for a window of fixed length; all frames at once.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from numpy.typing import NDArray

from posediff_jax.denoisers.hierarchy import ChildLayout, Walk, arrange_children, child_means
from posediff_jax.denoisers.layers import Dense, torch_kernel_init, uniform_init
from posediff_jax.denoisers.transformer import HEAD_EPSILON, Block, drop_path_rates, layer_norm
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array


class Trunk(nn.Module):
    """D pairs of a block over joints and a block over frames, and the linear head.

    One layer norm is shared by all blocks over joints and another one by all over frames; the
    table of frame positions is added once, between the first two blocks.

    Attributes:
      depth: D.
      num_heads: Heads of each attention.
      drop_path: Rate of the last pair of blocks; it rises linearly from 0 at the first.
      mlp_ratio: Hidden width of the MLPs over C.
      tree: The joints, for the two that follow.
      hrst: Edit the logits of all blocks over joints but the first (DDHPose).
      hrtt: Let all blocks over frames but the first see child features, which are means of the
        first pair's output (DDHPose).
      walk: See `logit_map`.
      child_layout: See `arrange_children`.
      outputs: Channels of the head.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    depth: int = 8
    num_heads: int = 8
    drop_path: float = 0.1
    mlp_ratio: float = 2.0
    tree: Skeleton | None = None
    hrst: bool = False
    hrtt: bool = False
    walk: Walk = "released"
    child_layout: ChildLayout = "released"
    outputs: int = 3
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: Array, *, train: bool = False, head: bool = True) -> Array:
        """Tokens `(..., F, J, C)` to poses `(..., F, J, outputs)`, or to what the head is given."""
        shared: dict[str, Any] = {"mlp_ratio": self.mlp_ratio, "dtype": self.dtype}
        spatial_norm = layer_norm(dtype=self.dtype, name="spatial_norm")
        temporal_norm = layer_norm(dtype=self.dtype, name="temporal_norm")
        frames, _, width = tokens.shape[-3:]
        positions = self.param("frame_positions", nn.initializers.zeros, (frames, width))
        x, children = tokens, None
        for i, rate in enumerate(drop_path_rates(self.depth, self.drop_path)):
            tree = self.tree if self.hrst and i else None
            edit: dict[str, Any] = {"tree": tree, "walk": self.walk, **shared}
            spatial = Block(self.num_heads, "joints", rate, name=f"spatial_{i}", **edit)
            x = spatial_norm(spatial(x, train=train))
            if i == 0:
                x = x + positions[:, None].astype(x.dtype)
            temporal = Block(self.num_heads, "frames", rate, name=f"temporal_{i}", **shared)
            x = temporal_norm(temporal(x, children, train=train))
            if i == 0 and self.hrtt and self.tree is not None:
                children = arrange_children(child_means(x, self.tree), self.child_layout)
        x = layer_norm(epsilon=HEAD_EPSILON, dtype=self.dtype, name="head_norm")(x)
        return Dense(self.outputs, dtype=self.dtype, name="head")(x) if head else x


class MixSTE(nn.Module):
    """Lifts a window of 2D poses to 3D poses (MixSTE, Eq. 1 to 6). 33.8 M parameters as published.

    Attributes:
      skeleton: Joints.
      num_frames: F, fixed by the table of frame positions.
      width: C.
      depth: Pairs of blocks.
      num_heads: Heads of each attention.
      drop_path: See `Trunk`.
      mlp_ratio: See `Trunk`.
      visibility: Keypoints have a third channel, 1 for a joint that is seen.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    num_frames: int = 243
    width: int = 512
    depth: int = 8
    num_heads: int = 8
    drop_path: float = 0.1
    mlp_ratio: float = 2.0
    visibility: bool = False
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        self.embed = Dense(self.width, dtype=self.dtype)
        shape = (self.skeleton.num_joints, self.width)
        self.joint_positions = self.param("joint_positions", nn.initializers.zeros, shape)
        self.trunk = make_trunk(self)

    def __call__(self, keypoints: Array, *, train: bool = False) -> Array:
        """One evaluation.

        Args:
          keypoints: 2D joints in screen units, `(..., F, J, 2)`.
          train: Stochastic depth, from the rng "drop_path".

        Returns:
          Poses in metres, `(..., F, J, 3)`; the root joint is not forced to 0.

        Raises:
          ValueError: Other joints, or another number of frames than the network has.
        """
        return self.trunk(self._tokens(keypoints), train=train)

    def features(self, keypoints: Array, *, train: bool = False) -> Array:
        """What the linear head is given, `(..., F, J, C)`: DiffHPE conditions on it.

        Arguments and errors as in `__call__`.
        """
        return self.trunk(self._tokens(keypoints), train=train, head=False)

    def _tokens(self, keypoints: Array) -> Array:
        check_keypoints(keypoints, self)
        tokens = self.embed(keypoints)
        return tokens + self.joint_positions.astype(tokens.dtype)


class SplitDense(nn.Module):
    """A linear layer on two concatenated inputs, whose halves may be computed apart.

    What does not change between the steps of a sampler is then projected once.

    Attributes:
      first: Channels of the first input.
      second: Channels of the second.
      features: Output channels.
      dtype: Compute type; None keeps the promoted type of input and parameters.
      shared: The inputs are added, not concatenated, so they have as many channels.
      kernel_init: Start of the weight.
    """

    first: int
    second: int
    features: int
    dtype: jnp.dtype | None = None
    shared: bool = False
    kernel_init: Initializer = torch_kernel_init

    def setup(self) -> None:
        """One kernel and bias, as of a layer on all channels."""
        fan_in = self.first if self.shared else self.first + self.second
        self.kernel = self.param("kernel", self.kernel_init, (fan_in, self.features))
        self.bias = self.param("bias", uniform_init(fan_in**-0.5), (self.features,))

    def __call__(self, x: Array, y: Array) -> Array:
        """`(..., first)` and `(..., second)` to `(..., features)`."""
        return self.of_first(x) + self.of_second(y)

    def of_first(self, x: Array) -> Array:
        """The part of the first input, with the bias."""
        x, kernel, bias = nn.dtypes.promote_dtype(
            x, self.kernel[: self.first], self.bias, dtype=self.dtype
        )
        return x @ kernel + bias

    def of_second(self, y: Array) -> Array:
        """The part of the second input."""
        y, kernel = nn.dtypes.promote_dtype(y, self.kernel[-self.second :], dtype=self.dtype)
        return y @ kernel


class TimeEmbedding(nn.Module):
    """Sinusoid of width C, then Linear to 2C, exact GELU, Linear to C (D3DP, DDHPose).

    Attributes:
      width: C.
      num_timesteps: T, rows of the table of sinusoids.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    width: int
    num_timesteps: int = 1000
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, t: Array) -> Array:
        """Timesteps `(...)`, 0 to T - 1, to embeddings `(..., C)`."""
        h = jnp.asarray(sinusoid_table(self.num_timesteps, self.width))[t]
        h = Dense(2 * self.width, dtype=self.dtype, name="in")(h)
        return Dense(self.width, dtype=self.dtype, name="out")(nn.gelu(h, approximate=False))


class D3DPDenoiser(nn.Module):
    """MixSTE that also sees a noisy pose and the timestep, and predicts the clean pose (D3DP).

    A sampler calls `encode` once per batch, `embed_times` once per run, and `denoise` in its loop;
    `__call__` is the three in one. Attributes as of `MixSTE`, and:

    Attributes:
      num_timesteps: T.
    """

    skeleton: Skeleton
    num_frames: int = 243
    width: int = 512
    depth: int = 8
    num_heads: int = 8
    drop_path: float = 0.1
    mlp_ratio: float = 2.0
    num_timesteps: int = 1000
    visibility: bool = False
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        self.embed = SplitDense(2 + self.visibility, 3, self.width, dtype=self.dtype)
        shape = (self.skeleton.num_joints, self.width)
        self.joint_positions = self.param("joint_positions", nn.initializers.zeros, shape)
        self.time = TimeEmbedding(self.width, self.num_timesteps, dtype=self.dtype)
        self.trunk = make_trunk(self)

    def __call__(self, keypoints: Array, x_t: Array, t: Array, *, train: bool = False) -> Array:
        """One evaluation. Leading axes broadcast, so hypotheses may share keypoints `(B, 1, ...)`.

        Args:
          keypoints: 2D joints in screen units, `(..., F, J, 2)`.
          x_t: Noisy poses, metres, `(..., F, J, 3)`.
          t: Timesteps, one per window, `(...)`, or a scalar.
          train: Stochastic depth, from the rng "drop_path".

        Returns:
          Clean poses in metres, `(..., F, J, 3)`; the root joint is not forced to 0.

        Raises:
          ValueError: Other joints or frames than the network has, or timesteps per frame.
        """
        check_window_times(t, x_t)
        return self.denoise(self.encode(keypoints), x_t, self.embed_times(t), train=train)

    def encode(self, keypoints: Array) -> Array:
        """What the network makes of the keypoints alone: `(..., F, J, 2)` to `(..., F, J, C)`.

        Raises:
          ValueError: Other joints or frames than the network has.
        """
        check_keypoints(keypoints, self)
        tokens = self.embed.of_first(keypoints)
        return tokens + self.joint_positions.astype(tokens.dtype)

    def embed_times(self, t: Array) -> Array:
        """Timesteps `(...)` to embeddings `(..., C)`."""
        return self.time(t)

    def denoise(
        self, encoded: Array, x_t: Array, time_rows: Array, *, train: bool = False
    ) -> Array:
        """The part that runs at each step.

        Args:
          encoded: From `encode`, `(..., F, J, C)`.
          x_t: Noisy poses, metres, `(..., F, J, 3)`.
          time_rows: From `embed_times`, `(..., C)`.
          train: Stochastic depth.

        Raises:
          ValueError: Other joints or frames than the network has.
        """
        check_window(x_t, self.skeleton, self.num_frames, channels=3, name="x_t")
        tokens = encoded + self.embed.of_second(x_t)
        return self.trunk(tokens + time_rows[..., None, None, :], train=train)


def make_trunk(model: Any, **options: Any) -> Trunk:
    """The trunk that the attributes of a network describe."""
    return Trunk(
        depth=model.depth,
        num_heads=model.num_heads,
        drop_path=model.drop_path,
        mlp_ratio=model.mlp_ratio,
        dtype=model.dtype,
        **options,
    )


def sinusoid_table(num_timesteps: int, width: int) -> NDArray[np.float64]:
    """Sines, then cosines, of t f_i, f_i = 10000^(-i / (C/2 - 1)), built in float64 on the host.

    In float32 the product t f_i alone would lose 4e-5 near t = 999.

    Args:
      num_timesteps: T.
      width: C, even and at least 4.

    Returns:
      `(T, C)`.

    Raises:
      ValueError: `width` is odd or below 4.
    """
    if width < 4 or width % 2:
        raise ValueError(f"width: expected an even number of at least 4, got {width}")
    half = width // 2
    frequencies = np.exp(-np.arange(half) * (np.log(10000.0) / (half - 1)))
    angles = np.arange(num_timesteps)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def check_window(
    points: Array, skeleton: Skeleton, num_frames: int, *, channels: int, name: str
) -> None:
    """Checks the static shape of `(..., F, J, channels)` points against a network.

    Raises:
      ValueError: Other joints, or another number of frames; the message says what to do.
    """
    check_joints(points, skeleton, channels=channels, name=name)
    shape = jnp.shape(points)
    if len(shape) < 3 or shape[-3] != num_frames:
        raise ValueError(
            f"{name}: expected windows of {num_frames} frames, (..., {num_frames}, "
            f"{skeleton.num_joints}, {channels}), got {shape}; cut or pad the clip with "
            "posediff_jax.data.windows, or build the network with another num_frames"
        )


def check_keypoints(keypoints: Array, model: Any) -> None:
    """`check_window` for the input of a network with or without a channel of visibility.

    Raises:
      ValueError: As `check_window`.
    """
    check_window(
        keypoints,
        model.skeleton,
        model.num_frames,
        channels=2 + model.visibility,
        name="keypoints",
    )


def check_window_times(t: Array, x_t: Array) -> None:
    """Refuses timesteps that are not one per window of `(..., F, J, C)`.

    Raises:
      ValueError: `t` is neither a scalar nor of as many axes as `x_t` has before its last three.
    """
    lead = jnp.ndim(x_t) - 3
    if jnp.ndim(t) not in (0, lead):
        raise ValueError(
            f"t: expected a scalar or one timestep per window of x_t {jnp.shape(x_t)}, "
            f"{lead} axes, got shape {jnp.shape(t)}"
        )
