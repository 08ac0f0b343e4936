"""DiffHPE's denoiser (Rommel et al., ICCV workshops 2023): graph layers over joints and frames.

Predicts the noise in a window of poses, told the 2D keypoints or the features of a lifter.
Equation numbers are those of the paper; where the released code differs, it is followed.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.denoisers.grouped import (
    JOINT_GROUPS,
    GroupedNonLocalBlock,
    Grouping,
    Groups,
    check_groups,
    pooled_joints,
)
from posediff_jax.denoisers.joint_graph import CHANNELS, FRAMES, JointGraphLayer
from posediff_jax.denoisers.layers import Dense, kaiming_normal_init
from posediff_jax.denoisers.mixste import (
    MixSTE,
    SplitDense,
    check_keypoints,
    check_window,
    check_window_times,
)
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array

Source = Literal["keypoints", "features", "pose", "none"]
Mix = Literal["concat", "sum"]


class DiffHPEBlock(nn.Module):
    """Graph layer over frames, graph layer over channels, attention to groups, gate, two outputs.

    With h the result of the three, [g, f] = h W_mid and z = sigmoid(g) tanh(f); z W_out is the
    residual and what the block adds to the sum of all blocks.

    Attributes:
      skeleton: Joints and their neighbours.
      width: C.
      groups: Groups of joints for the attention, None to leave it out.
      grouping: See `pooled_joints`.
      over_frames: False leaves the layer over frames out, as for a single frame.
      dropout: Probability of dropping an activation of the graph layers.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    width: int
    groups: Groups | None
    grouping: Grouping = "official"
    over_frames: bool = True
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        layer: dict[str, Any] = {"dropout": self.dropout, "dtype": self.dtype}
        dense: dict[str, Any] = {"kernel_init": kaiming_normal_init, "dtype": self.dtype}
        self.step = Dense(self.width, dtype=self.dtype)
        if self.over_frames:
            self.time_layer = JointGraphLayer(self.skeleton, FRAMES, **layer)
        self.feature_layer = JointGraphLayer(self.skeleton, CHANNELS, **layer)
        if self.groups is not None:
            self.attention = GroupedNonLocalBlock(
                self.groups, dtype=self.dtype, joint_axis=0, grouping=self.grouping
            )
        self.mid = Dense(2 * self.width, **dense)
        self.out = Dense(2 * self.width, **dense)

    def __call__(self, x: Array, embedding: Array, **options: Any) -> tuple[Array, Array]:
        """`run` with the step's embedding, `(N, E)` or `(E,)`."""
        return self.run(x, self.embed_step(embedding), **options)

    def embed_step(self, embedding: Array) -> Array:
        """What the block adds to its input at a step: `(..., E)` to `(..., C)`."""
        return self.step(embedding)

    def run(self, x: Array, step: Array, **options: Any) -> tuple[Array, Array]:
        """Input of the next block and share of the sum.

        Args:
          x: `(J, F, N, C)`.
          step: From `embed_step`, `(N, C)` or `(C,)`.
          **options: `train`, `mask` `(F, N)` and `axis_name`, see `JointGraphLayer`.
        """
        h = x + step
        if self.over_frames:
            h = self.time_layer(h, **options)
        h = self.feature_layer(h, **options)
        if self.groups is not None:
            h = self.attention(h, **options)
        gate, signal = jnp.split(self.mid(h), 2, axis=-1)
        residual, share = jnp.split(self.out(nn.sigmoid(gate) * jnp.tanh(signal)), 2, axis=-1)
        return (x + residual) * np.asarray(0.5**0.5, x.dtype), share


class DiffHPEDenoiser(nn.Module):
    """Predicts the noise in a window of poses (DiffHPE, sections 3.2 and 3.3).

    A sampler calls `encode` once per batch, `embed_times` once per run, and `denoise` in its loop;
    `__call__` is the three in one. Published: 3,201,971 parameters on keypoints; 3,210,099, and
    538,944 of the frozen lifter, on features.

    Attributes:
      skeleton: Joints.
      num_frames: F, fixed by the layers over frames.
      width: C.
      num_blocks: Residual blocks.
      step_width: E, of the step embedding.
      num_timesteps: T.
      dropout: See `DiffHPEBlock`.
      source: The condition: "keypoints" (Eq. 9); the "features" of `lifter` (Eq. 11) or its
        "pose", which the release calls to keep the head; or "none".
      mix: "concat" puts pose and condition side by side, the pose first; "sum" adds them.
      encode_pose: Embed the noisy pose linearly to the width of the lifter (w of Eq. 10).
      depth_only: Only z is diffused; the keypoints stand for x and y.
      visibility: Keypoints have a third channel, 1 for a joint that is seen; the lifter then too.
      lifter: The network whose features are the condition.
      non_local: Attention to groups of joints in each block.
      groups: Those groups; None for the published ones of the skeleton.
      grouping: See `pooled_joints`.
      table: Builds the table of steps, see `step_table`.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    num_frames: int = 27
    width: int = 64
    num_blocks: int = 16
    step_width: int = 128
    num_timesteps: int = 50
    dropout: float = 0.0
    source: Source = "keypoints"
    mix: Mix = "concat"
    encode_pose: bool = False
    depth_only: bool = False
    visibility: bool = False
    lifter: MixSTE | None = None
    non_local: bool = True
    groups: Groups | None = None
    grouping: Grouping = "official"
    table: Callable[[int, int], NDArray] | None = None
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        check_options(self)
        dense: dict[str, Any] = {"kernel_init": kaiming_normal_init, "dtype": self.dtype}
        self.step_in, self.step_out = (Dense(self.step_width, dtype=self.dtype) for _ in range(2))
        if self.encode_pose:
            self.pose_encoder = Dense(_lifter_of(self).width, dtype=self.dtype)
        pose, condition = input_channels(self)
        self.project = SplitDense(pose, condition, self.width, shared=self.mix == "sum", **dense)
        self.blocks = [make_block(self) for _ in range(self.num_blocks)]
        self.hidden = Dense(self.width, **dense)
        self.output = Dense(self.pose_channels, dtype=self.dtype, kernel_init=nn.initializers.zeros)

    @property
    def pose_channels(self) -> int:
        """Coordinates that are diffused: 3, or 1 for z alone."""
        return 1 if self.depth_only else 3

    def __call__(
        self,
        keypoints: Array,
        x_t: Array,
        t: Array,
        *,
        kept: Array | None = None,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """One evaluation. Leading axes broadcast, so hypotheses may share keypoints `(B, 1, ...)`.

        Args:
          keypoints: 2D joints in screen units, `(..., F, J, 2)`, or 3 channels with `visibility`.
          x_t: Noisy poses, metres, `(..., F, J, 3)`, or `(..., F, J, 1)` if only z is diffused.
          t: Timesteps, one per window, `(...)`, or a scalar.
          kept: 1 for a window that is told its condition, 0 for one that is not, `(...)`.
          train: Batch statistics, dropout (rng "dropout"), and stochastic depth of a lifter that
            is trained along (rng "drop_path").
          mask: 1 for frames that count in the statistics, `(..., F)`.
          axis_name: Mapped device axis to share the statistics over.

        Returns:
          The noise, like `x_t`.

        Raises:
          ValueError: Other joints or frames than the network has, or timesteps per frame.
        """
        check_window_times(t, x_t)
        options: dict[str, Any] = {"train": train, "mask": mask, "axis_name": axis_name}
        encoded = self.encode(keypoints, train=train)
        if kept is not None:
            encoded = encoded * kept[..., None, None, None].astype(encoded.dtype)
        return self.denoise(encoded, x_t, self.embed_times(t), **options)

    def encode(self, keypoints: Array, *, train: bool = False) -> Array:
        """The condition's part of the input projection: `(..., F, J, 2)` to `(..., F, J, C)`.

        It is linear in what the condition is, without a constant: a condition of zeros gives zeros.

        Raises:
          ValueError: Other joints or frames than the network has.
        """
        check_keypoints(keypoints, self)
        if self.source == "none":
            return jnp.zeros((*keypoints.shape[:-1], self.width), keypoints.dtype)
        condition = keypoints
        if self.source == "features":
            condition = _lifter_of(self).features(keypoints, train=train)
        elif self.source == "pose":
            condition = _lifter_of(self)(keypoints, train=train)
        return self.project.of_second(condition)

    def embed_times(self, t: Array) -> Array:
        """What the steps add in each of the D blocks: `(...)` to `(..., D, C)`."""
        table = (self.table or step_table)(self.num_timesteps, self.step_width)
        h = nn.silu(self.step_out(nn.silu(self.step_in(jnp.asarray(table)[t]))))
        return jnp.stack([block.embed_step(h) for block in self.blocks], axis=-2)

    def denoise(
        self,
        encoded: Array,
        x_t: Array,
        time_rows: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """The part that runs at each step.

        Args:
          encoded: From `encode`, `(..., F, J, C)`.
          x_t: Noisy poses, metres, `(..., F, J, 3)`.
          time_rows: From `embed_times`, `(..., D, C)`, or `(D, C)` for all windows.
          train: See `__call__`.
          mask: See `__call__`.
          axis_name: See `__call__`.

        Returns:
          The noise, like `x_t`.

        Raises:
          ValueError: Other joints or frames than the network has.
        """
        channels = self.pose_channels
        check_window(x_t, self.skeleton, self.num_frames, channels=channels, name="x_t")
        pose = self.pose_encoder(x_t) if self.encode_pose else x_t
        tokens = nn.relu(encoded + self.project.of_first(pose))
        lead = tokens.shape[:-3]
        x = jnp.transpose(tokens.reshape(-1, *tokens.shape[-3:]), (2, 1, 0, 3))
        if time_rows.ndim > 2:
            rows = jnp.broadcast_to(time_rows, (*lead, *time_rows.shape[-2:]))
            time_rows = rows.reshape(-1, *rows.shape[-2:])
        if mask is not None:
            mask = jnp.broadcast_to(mask, (*lead, self.num_frames)).reshape(-1, self.num_frames).T
        options: dict[str, Any] = {"train": train, "mask": mask, "axis_name": axis_name}
        shares = []
        for i, block in enumerate(self.blocks):
            x, share = block.run(x, time_rows[..., i, :], **options)
            shares.append(share)
        # What the last block passes on is not used: it has no further one.
        h = sum(shares[1:], shares[0]) * np.asarray(self.num_blocks**-0.5, shares[0].dtype)
        noise = self.output(nn.relu(self.hidden(h)))
        return jnp.transpose(noise, (2, 1, 0, 3)).reshape(*lead, *noise.shape[1::-1], channels)


def make_block(model: DiffHPEDenoiser) -> DiffHPEBlock:
    """A block that the attributes of a network describe.

    Raises:
      ValueError: See `joint_groups`.
    """
    return DiffHPEBlock(
        model.skeleton,
        model.width,
        joint_groups(model.skeleton, model.groups) if model.non_local else None,
        grouping=model.grouping,
        over_frames=model.num_frames > 1,
        dropout=model.dropout,
        dtype=model.dtype,
    )


def init_variables(key: Array, model: DiffHPEDenoiser) -> dict[str, Any]:
    """Fresh variables, distributed as those of `model.init` are.

    All blocks are drawn by one program: that of `model.init` takes twice as long to compile.

    Args:
      key: Random key.
      model: The network.

    Returns:
      `params` and `batch_stats`.

    Raises:
      ValueError: Attributes of the network that do not fit together.
    """
    rest_key, block_key = jax.random.split(key)
    window = (1, model.num_frames, model.skeleton.num_joints)
    keypoints = jnp.zeros((*window, 2 + model.visibility))
    inputs = keypoints, jnp.zeros((*window, model.pose_channels))
    variables = dict(model.clone(num_blocks=1).init(rest_key, *inputs, jnp.zeros(1, jnp.int32)))
    x = jnp.zeros((window[2], window[1], 1, model.width))
    draw = jax.vmap(lambda k: make_block(model).init(k, x, jnp.zeros(model.step_width)))
    drawn = draw(jax.random.split(block_key, model.num_blocks))
    for collection, stacked in drawn.items():
        variables[collection] = dict(variables[collection])
        for i in range(model.num_blocks):
            variables[collection][f"blocks_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
    return variables


def step_table(num_timesteps: int, width: int) -> NDArray[np.float32]:
    """Sines, then cosines, of t f_k, f_k = 10^(4 k / (E/2 - 1)), by the release's float32 recipe.

    The frequencies grow, so arguments reach 1e4 T and their rounding decides the values: exponent,
    frequency and argument are each rounded to float32. Weights that were trained with another
    rounding need another table.

    Args:
      num_timesteps: T.
      width: E, even and at least 4.

    Returns:
      `(T, E)`.

    Raises:
      ValueError: `width` is odd or below 4.
    """
    frequencies = step_frequencies(width)
    angles = np.arange(num_timesteps, dtype=np.float32)[:, None] * frequencies
    wide = angles.astype(np.float64)
    return np.concatenate([np.sin(wide), np.cos(wide)], axis=-1).astype(np.float32)


def step_frequencies(width: int) -> NDArray[np.float32]:
    """The frequencies of `step_table`, `(E / 2,)`.

    Raises:
      ValueError: `width` is odd or below 4.
    """
    if width < 4 or width % 2:
        raise ValueError(f"step_width: expected an even number of at least 4, got {width}")
    half = width // 2
    exponents = np.arange(half, dtype=np.float32) / np.float32(half - 1) * np.float32(4)
    # The power correctly rounded: NumPy's and XLA's own in float32 are off by some units.
    return (10.0 ** exponents.astype(np.float64)).astype(np.float32)


def joint_groups(skeleton: Skeleton, groups: Groups | None) -> Groups:
    """The given groups, or the published ones of the skeleton.

    Raises:
      ValueError: Groups that do not cover the skeleton, or none published for it.
    """
    if groups is None:
        if skeleton.name not in JOINT_GROUPS:
            raise ValueError(
                f"groups: published for {sorted(JOINT_GROUPS)}, not for skeleton "
                f"{skeleton.name!r}; name groups of its joints, or switch non_local off"
            )
        groups = JOINT_GROUPS[skeleton.name]
    check_groups(groups, skeleton.num_joints)
    return groups


def input_channels(model: DiffHPEDenoiser) -> tuple[int, int]:
    """Channels of the noisy pose and of the condition, as the input projection sees them."""
    width = 0 if model.lifter is None else model.lifter.width
    keypoints = 2 + model.visibility
    condition = {"keypoints": keypoints, "features": width, "pose": 3, "none": 0}[model.source]
    return width if model.encode_pose else model.pose_channels, condition


def check_options(model: DiffHPEDenoiser) -> None:
    """Refuses options that do not fit together.

    Raises:
      ValueError: A size below 1; an unknown name; a lifter that is missing, not used, or of other
        frames, joints or channels; inputs that cannot be added; or visibility without keypoints.
    """
    for name in ("num_frames", "width", "num_blocks", "num_timesteps"):
        if getattr(model, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(model, name)}")
    step_frequencies(model.step_width)
    pooled_joints(((0,),), model.grouping)
    if model.source not in ("keypoints", "features", "pose", "none"):
        raise ValueError(
            f"source: expected 'keypoints', 'features', 'pose' or 'none', got {model.source!r}"
        )
    if model.mix not in ("concat", "sum"):
        raise ValueError(f"mix: expected 'concat' or 'sum', got {model.mix!r}")
    needed = model.source in ("features", "pose")
    if needed != (model.lifter is not None):
        raise ValueError(
            f"lifter: expected {'one' if needed else 'none'} with source={model.source!r}, "
            f"got {model.lifter}"
        )
    if model.encode_pose and not needed:
        raise ValueError(f"encode_pose: needs a lifter, got source={model.source!r}")
    if model.depth_only and model.source != "keypoints":
        raise ValueError(
            f"depth_only: the keypoints stand for x and y, got source={model.source!r}"
        )
    if model.visibility and model.source == "none":
        raise ValueError("visibility: nothing is shown with source='none', expected False")
    pose, condition = input_channels(model)
    if model.mix == "sum" and pose != condition:
        raise ValueError(
            f"mix: 'sum' needs as many channels on both sides, got {pose} of the pose and "
            f"{condition} of the condition ({model.source}); with source 'features' encode the "
            "pose, with 'pose' do not"
        )
    if model.lifter is not None:
        _check_lifter(model, model.lifter)


def _check_lifter(model: DiffHPEDenoiser, lifter: MixSTE) -> None:
    if lifter.num_frames != model.num_frames:
        raise ValueError(
            f"lifter: expected windows of {model.num_frames} frames, got {lifter.num_frames}"
        )
    if lifter.skeleton != model.skeleton:
        raise ValueError(
            f"lifter: expected skeleton {model.skeleton.name!r}, got {lifter.skeleton.name!r}"
        )
    if lifter.visibility != model.visibility:
        raise ValueError(f"lifter: expected visibility={model.visibility}, got {lifter.visibility}")


def _lifter_of(model: DiffHPEDenoiser) -> MixSTE:
    if model.lifter is None:
        raise ValueError("lifter: expected a network, got None")
    return model.lifter
