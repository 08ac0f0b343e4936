"""The score network of GFPose and ZeDO: a residual MLP over one pose that estimates its noise."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.denoisers.layers import Dense, sinusoid
from posediff_jax.types import Array, Variables

LABEL_SCALE = 999.0  # The network is told 999 t, not rounded.


class GroupNorm(nn.Module):
    """Normalises each of G contiguous groups of channels of each item on its own.

    Unlike `flax.linen.GroupNorm`, statistics never run over leading axes.

    Attributes:
      groups: G.
      epsilon: Added to the variance.
      centred: The mean of each group is 0 already, see `centre_groups`.
    """

    groups: int = 32
    epsilon: float = 1e-5
    centred: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises `(..., C)`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # Statistics in at least float32, whatever the compute type.
        wide = x.astype(jnp.promote_types(x.dtype, scale.dtype))
        centred = _grouped(wide, self.groups)
        if not self.centred:
            centred = centred - _group_means(wide, self.groups)
        variance = _group_means((centred**2).reshape(x.shape), self.groups)
        normal = (centred * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return (normal * scale + bias).astype(x.dtype)


def _grouped(x: Array, groups: int) -> Array:
    """`(..., C)` to `(..., G, C / G)`."""
    return x.reshape(*x.shape[:-1], groups, -1)


def _group_means(x: Array, groups: int) -> Array:
    """`(..., C)` to `(..., G, 1)`, as a product: sums over a few neighbours are slow on a CPU."""
    size = x.shape[-1] // groups
    average = np.kron(np.eye(groups), np.full((size, 1), 1 / size))
    return jnp.matmul(x, jnp.asarray(average, x.dtype), precision="highest")[..., None]


class ScoreLayer(nn.Module):
    """Dropout(SiLU(GroupNorm(Linear(h) + shift))), shift from the time and the condition.

    Attributes:
      width: Output channels.
      groups: Groups of the normalisation.
      dropout: Dropout rate.
      conditional: Has a linear layer for a condition.
      dtype: Compute type; None keeps the promoted type of input and parameters.
      centred: What its linear layers give has groups of mean 0, see `centre_groups`.
    """

    width: int
    groups: int = 32
    dropout: float = 0.25
    conditional: bool = False
    dtype: jnp.dtype | None = None
    centred: bool = False

    def setup(self) -> None:
        """Builds the layers."""
        self.dense = Dense(self.width, dtype=self.dtype)
        self.time = Dense(self.width, dtype=self.dtype)
        if self.conditional:
            self.cond = Dense(self.width, dtype=self.dtype)
        self.norm = GroupNorm(self.groups, centred=self.centred)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, h: Array, shift: Array, cond: Array | None, *, train: bool) -> Array:
        """`(..., C)` and a shift `(..., width)` to `(..., width)`."""
        h = self.dense(h) + shift
        if cond is not None:
            h = h + self.cond(cond)
        return self.drop(nn.silu(self.norm(h)), deterministic=not train)

    def time_shift(self, embedding: Array) -> Array:
        """What the layer adds at a time, `(..., E)` to `(..., width)`."""
        return self.time(embedding)


class ScoreMLP(nn.Module):
    """Estimates the noise z in x_t = signal x_0 + std z; score = -output / std ("ScoreModelFC").

    The published network has width 1024, embedding 512, 7.2 M parameters. Its time part does not
    see the pose: `embed_time` gives all a sampler's steps at once, outside the loop, and `denoise`
    does the rest.

    Attributes:
      num_joints: J.
      width: H, a multiple of `groups`.
      embedding: Width of the time embedding, even.
      num_blocks: Residual blocks of two layers.
      groups: Groups of the normalisation.
      dropout: Dropout rate in training; 0.25 in the released code whatever its config says.
      conditional: GFPose's condition path, which ZeDO removed.
      dtype: Compute type; None keeps the promoted type of input and parameters.
      centred: The weights are from `centre_groups`; others give another network.
    """

    num_joints: int = 17
    width: int = 1024
    embedding: int = 512
    num_blocks: int = 2
    groups: int = 32
    dropout: float = 0.25
    conditional: bool = False
    dtype: jnp.dtype | None = None
    centred: bool = False

    def setup(self) -> None:
        """Builds the layers."""
        check_score_width(self.width, self.groups)
        self.time_embed = Dense(self.embedding, dtype=self.dtype)
        if self.conditional:
            self.cond_embed = Dense(self.width, dtype=self.dtype)
        self.layers = [
            ScoreLayer(
                self.width, self.groups, self.dropout, self.conditional, self.dtype, self.centred
            )
            for _ in range(1 + 2 * self.num_blocks)
        ]
        self.out = Dense(3 * self.num_joints, dtype=self.dtype)

    def __call__(
        self,
        x_t: Array,
        t: Array,
        *,
        cond: Array | None = None,
        mask: Array | None = None,
        train: bool = False,
    ) -> Array:
        """One evaluation.

        Args:
          x_t: Noisy pose, metres minus the root, `(..., J, 3)`.
          t: Times in [0, 1], `(...)`, or a scalar for the whole batch.
          cond: GFPose's condition, like `x_t`; a z column of zeros means a 2D pose.
          mask: 1 for values of the condition that count, `(..., J, 3)`.
          train: Dropout.

        Returns:
          The estimated noise, `(..., J, 3)`.

        Raises:
          ValueError: Wrong joint count, times that do not match `x_t`, or a condition for a
            network without one, or none for a network with one.
        """
        shifts = self.embed_time(LABEL_SCALE * jnp.asarray(t))
        return self.denoise(x_t, shifts, cond=cond, mask=mask, train=train)

    def embed_time(self, label: Array) -> Array:
        """What the layers add at labels 999 t: `(...)` to `(..., 1 + 2 blocks, H)`."""
        e = nn.silu(self.time_embed(sinusoid(jnp.asarray(label), self.embedding)))
        return jnp.stack([layer.time_shift(e) for layer in self.layers], axis=-2)

    def denoise(
        self,
        x_t: Array,
        shifts: Array,
        *,
        cond: Array | None = None,
        mask: Array | None = None,
        train: bool = False,
    ) -> Array:
        """As `__call__`, with the result of `embed_time` for the time."""
        self._check(x_t, shifts, cond)
        features = self._embed_condition(x_t, cond, mask)
        h = self.layers[0](_flat(x_t), shifts[..., 0, :], features, train=train)
        for i in range(1, len(self.layers), 2):
            branch = self.layers[i](h, shifts[..., i, :], features, train=train)
            h = h + self.layers[i + 1](branch, shifts[..., i + 1, :], features, train=train)
        return self.out(h).reshape(x_t.shape)

    def _embed_condition(self, x_t: Array, cond: Array | None, mask: Array | None) -> Array | None:
        if cond is None:
            return None
        difference = x_t - cond
        flat = jnp.all(cond[..., 2:] == 0, axis=(-2, -1), keepdims=True)
        depth = jnp.where(flat, 0.0, difference[..., 2:])
        difference = jnp.concatenate([difference[..., :2], depth], axis=-1)
        return nn.silu(self.cond_embed(_flat(difference if mask is None else difference * mask)))

    def _check(self, x_t: Array, shifts: Array, cond: Array | None) -> None:
        if jnp.shape(x_t)[-2:] != (self.num_joints, 3):
            raise ValueError(
                f"x_t: expected (..., {self.num_joints}, 3), got shape {jnp.shape(x_t)}"
            )
        lead = jnp.shape(shifts)[:-2]
        if lead and lead != jnp.shape(x_t)[:-2]:
            raise ValueError(
                f"t: expected a scalar or shape {jnp.shape(x_t)[:-2]}, one per pose of x_t "
                f"{jnp.shape(x_t)}, got {lead}"
            )
        if (cond is not None) != self.conditional:
            expected = "a condition" if self.conditional else "None"
            found = "None" if cond is None else f"shape {jnp.shape(cond)}"
            raise ValueError(
                f"cond: expected {expected} with conditional={self.conditional}, got {found}"
            )
        if cond is not None and jnp.shape(cond) != jnp.shape(x_t):
            raise ValueError(
                f"cond: expected the shape of x_t {jnp.shape(x_t)}, got {jnp.shape(cond)}"
            )


def centre_groups(model: ScoreMLP, variables: Variables) -> tuple[ScoreMLP, dict[str, Any]]:
    """The same network for a loop: its norms need not take off the mean of a group any more.

    That mean is linear in what the linear layers before a norm add up, so it is taken off their
    weights, once. It spares one of a layer's two products with the groups. This package's own.

    Args:
      model: The network.
      variables: Its weights; kernels `(C_in, C)` and biases `(C,)` before a norm are replaced.

    Returns:
      The network to apply and its weights: equal outputs but for rounding. Weights of fewer bits
      become float32, so that they are not rounded again.

    Raises:
      ValueError: The weights are centred already, or are not those of such a network.
    """
    if model.centred:
        raise ValueError("model: expected centred=False, these weights are centred already")
    found = sorted(variables.get("params", {}))
    expected = [f"layers_{n}" for n in range(1 + 2 * model.num_blocks)]
    if not set(expected) <= set(found):
        raise ValueError(f"variables: expected params with {expected}, got {found}")

    def centre(weights: Array) -> Array:
        if weights.shape[-1] != model.width:
            raise ValueError(
                f"variables: expected layers of width {model.width}, got {weights.shape}"
            )
        weights = weights.astype(jnp.promote_types(weights.dtype, jnp.float32))
        means = _group_means(weights, model.groups)
        return (_grouped(weights, model.groups) - means).reshape(weights.shape)

    params = dict(variables["params"])
    for name in expected:
        parts = dict(params[name])
        linear = {part: parts[part] for part in parts if part != "norm"}
        params[name] = parts | jax.tree.map(centre, linear)
    return model.clone(centred=True), {**variables, "params": params}


def check_score_width(width: int, groups: int) -> None:
    """Refuses a width that the normalisation cannot split.

    Raises:
      ValueError: `width` is not a positive multiple of `groups`.
    """
    if groups < 1 or width < groups or width % groups:
        raise ValueError(f"width: expected a multiple of groups ({groups}), got {width}")


def condition_mask(
    key: Array,
    shape: Sequence[int],
    *,
    parts: Sequence[Sequence[int]],
    pose_prob: float = 0.1,
    part_prob: float = 0.1,
    joint_prob: float = 0.1,
) -> Array:
    """GFPose's random masking of the condition in training: poses, body parts and joints.

    Args:
      key: Random key.
      shape: Leading axes of the result.
      parts: Joints of each body part; together all J joints.
      pose_prob: Chance that a whole pose is masked.
      part_prob: The same for each part of a pose.
      joint_prob: The same for each joint.

    Returns:
      1 where the condition counts, `(*shape, J, 1)`; nothing is rescaled.

    Raises:
      ValueError: The parts are not a partition of 0 .. J - 1.
    """
    outside = part_masks(parts)
    keys = jax.random.split(key, 3)
    pose = jax.random.bernoulli(keys[0], 1 - pose_prob, (*shape, 1))
    part = jax.random.bernoulli(keys[1], 1 - part_prob, (*shape, len(parts), 1))
    joint = jax.random.bernoulli(keys[2], 1 - joint_prob, (*shape, outside.shape[1]))
    kept = pose & joint & jnp.all(part | (outside > 0), axis=-2)
    return kept[..., None].astype(jnp.result_type(float))


def part_masks(parts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """One row per body part, `(P, J)`: 0 for its joints, 1 for the others.

    Raises:
      ValueError: The parts are not a partition of 0 .. J - 1.
    """
    joints = sorted(j for part in parts for j in part)
    if not joints or joints != list(range(len(joints))):
        raise ValueError(f"parts: expected each joint 0 to J - 1 once, got {tuple(parts)}")
    masks = np.ones((len(parts), len(joints)))
    for mask, members in zip(masks, parts, strict=True):
        mask[list(members)] = 0.0
    return masks


def _flat(x: Array) -> Array:
    return x.reshape(*x.shape[:-2], -1)
