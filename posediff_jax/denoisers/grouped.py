"""Attention from joints to groups of joints, as a Modulated-GCN variant and DiffHPE have it."""

from collections.abc import Mapping
from functools import reduce
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from posediff_jax.denoisers.layers import BatchNorm, kaiming_normal_init
from posediff_jax.types import Array

Groups = tuple[tuple[int, ...], ...]
Grouping = Literal["official", "groups"]

# The groups of the released code.
GROUPS_16: Groups = ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9), (14, 15), (11, 12), (10, 13))
GROUPS_17: Groups = ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9, 10), (15, 16), (12, 13), (11, 14))
JOINT_GROUPS: Mapping[str, Groups] = {"h36m_16": GROUPS_16, "h36m_17": GROUPS_17}


class GroupedNonLocalBlock(nn.Module):
    """Concatenation attention from joints to groups of joints, added to its input.

    phi and g are max-pooled over groups. With N pooled positions
    f_ij = ReLU(w . [theta_i; phi_j]) / N, and the output is x + BN(W (f g)). The normalisation's
    scale starts at zero, so the block starts as the identity.

    Attributes:
      groups: Each joint once; the released groups are pairs.
      dtype: Compute type; None keeps the promoted type of input and parameters.
      joint_axis: Where the joints are: -2, or 0.
      grouping: See `pooled_joints`.
    """

    groups: Groups
    dtype: jnp.dtype | None = None
    joint_axis: int = -2
    grouping: Grouping = "official"

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """`(..., J, C)`, or `(J, ..., C)` with joints first, to the same shape.

        Args:
          x: Activations.
          train: Batch statistics in the normalisation.
          mask: 1 for items that count in the statistics, shape of the first axes but the joints.
          axis_name: Mapped device axis to share the statistics over.

        Raises:
          ValueError: C is odd, or the groups do not hold each of the J joints once.
        """
        channels = x.shape[-1]
        if channels % 2:
            raise ValueError(f"x: expected an even number of channels, got {channels}")
        check_groups(self.groups, x.shape[self.joint_axis])
        nodes = jnp.moveaxis(x, self.joint_axis, 0)
        project = self.param("project", _vector_kaiming, (channels,))
        half = channels // 2
        # Of theta only its projection is needed, so the two linear maps are made one.
        of_joint = ProjectedDense(half, self.dtype, name="theta")(nodes, project[:half])
        pools = pooled_joints(self.groups, self.grouping)
        phi = _max_pool(self._embed("phi", half)(nodes), pools)
        g = _max_pool(self._embed("g", half)(nodes), pools)
        of_group = phi @ project[half:].astype(phi.dtype)
        f = nn.relu(of_joint[:, None] + of_group[None]) / len(pools)
        # Written out: on a CPU several times faster than many products of this size.
        y = sum(f[:, k, ..., None] * g[k] for k in range(len(pools)))
        y = self._embed("out", channels)(y)
        norm = BatchNorm(scale_init=nn.initializers.zeros, name="bn")
        counted = None if mask is None else mask[None]
        y = norm(y, train=train, mask=counted, axis_name=axis_name)
        return x + jnp.moveaxis(y, 0, self.joint_axis)

    def _embed(self, name: str, features: int) -> nn.Dense:
        return nn.Dense(features, dtype=self.dtype, kernel_init=kaiming_normal_init, name=name)


class ProjectedDense(nn.Module):
    """A linear layer followed by a scalar product, (x W + b) . p, computed as x (W p) + b p.

    Attributes:
      features: Channels between the two.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array, projection: Array) -> Array:
        """`(..., C)` and `(features,)` to `(...)`."""
        kernel = self.param("kernel", kaiming_normal_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, vector, offset = nn.dtypes.promote_dtype(
            x, kernel @ projection, bias @ projection, dtype=self.dtype
        )
        return x @ vector + offset


def pooled_joints(groups: Groups, grouping: Grouping) -> Groups:
    """The joints that share a pooled position.

    "official": the joints in the order of the groups, cut into windows as long as the first group;
    what fills no window is not attended to. With DiffHPE's 17 joints the group of three shifts the
    windows behind it, and joint 14 is left out. "groups" pools each group by itself, whatever its
    size, which is what the papers describe.

    Args:
      groups: Each joint once.
      grouping: The rule.

    Raises:
      ValueError: Unknown rule.

    >>> pooled_joints(GROUPS_17, "official")[4:]
    ((8, 9), (10, 15), (16, 12), (13, 11))
    >>> pooled_joints(GROUPS_17, "groups")[4:]
    ((8, 9, 10), (15, 16), (12, 13), (11, 14))
    """
    if grouping not in ("official", "groups"):
        raise ValueError(f"grouping: expected 'official' or 'groups', got {grouping!r}")
    if grouping == "groups":
        return groups
    order, size = sum(groups, ()), len(groups[0])
    return tuple(order[i : i + size] for i in range(0, len(order) - size + 1, size))


def check_groups(groups: Groups, num_joints: int) -> None:
    """Checks that groups hold each joint once.

    Raises:
      ValueError: They do not, or a group is empty.
    """
    if not groups or not all(groups) or sorted(sum(groups, ())) != list(range(num_joints)):
        raise ValueError(f"groups: expected each of {num_joints} joints once, got {groups}")


def _max_pool(x: Array, pools: Groups) -> Array:
    """Maximum over the joints of each pool: `(J, ..., C)` to `(N, ..., C)`."""
    return jnp.stack([reduce(jnp.maximum, [x[joint] for joint in pool]) for pool in pools])


def _vector_kaiming(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return kaiming_normal_init(key, (*shape, 1), dtype)[:, 0]
