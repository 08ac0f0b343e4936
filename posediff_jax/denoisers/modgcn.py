"""Modulated-GCN, the regression network DiffuPose grew from: 2D joints in, a 3D pose out.

Zou and Tang, "Modulated Graph Convolutional Network for 3D Human Pose Estimation" (ICCV 2021),
in the variants its authors released.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.graph import (
    GraphConv,
    ModulatedGraphConv,
    NonLocalBlock,
    Normalisation,
    ResidualBlock,
)
from posediff_jax.denoisers.layers import BatchNorm
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

Groups = tuple[tuple[int, ...], ...]

# The pairs of the released code, for 16 joints.
GROUPS_16: Groups = ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9), (14, 15), (11, 12), (10, 13))

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "gt": {"width": 128, "modulation_init": "ones"},
    "benchmark": {"width": 384, "non_local": True, "dropout": 0.2},
    "grouped": {"width": 128, "modulation_init": "ones", "groups": GROUPS_16},
}

_kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class GroupedNonLocalBlock(nn.Module):
    """Concatenation attention from joints to groups of joints, added to its input.

    The joints are put in the order of `groups`; phi and g are max-pooled over windows as long as
    the first group (joints that fill no window are not attended to). With N pooled positions
    f_ij = ReLU(w . [theta_i; phi_j]) / N, and the output is x + BN(W (f g)). The normalisation's
    scale starts at zero, so the block starts as the identity.

    Attributes:
      groups: Each joint once; the released groups are pairs.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    groups: Groups
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
          ValueError: C is odd, or the groups do not hold each of the J joints once.
        """
        channels = x.shape[-1]
        if channels % 2:
            raise ValueError(f"x: expected an even number of channels, got {channels}")
        check_groups(self.groups, x.shape[-2])
        order = np.concatenate(self.groups)
        grouped = x[..., order, :]
        size = len(self.groups[0])
        theta = self._embed("theta", channels // 2)(grouped)
        phi = _max_pool(self._embed("phi", channels // 2)(grouped), size)
        g = _max_pool(self._embed("g", channels // 2)(grouped), size)
        project = self.param("project", _vector_kaiming, (channels,)).astype(theta.dtype)
        of_joint = theta @ project[: channels // 2]
        of_group = phi @ project[channels // 2 :]
        f = nn.relu(of_joint[..., :, None] + of_group[..., None, :]) / phi.shape[-2]
        y = self._embed("out", channels)(f @ g)
        norm = BatchNorm(scale_init=nn.initializers.zeros, name="bn")
        y = norm(y, train=train, mask=mask, axis_name=axis_name)
        return x + y[..., np.argsort(order), :]

    def _embed(self, name: str, features: int) -> nn.Dense:
        return nn.Dense(features, dtype=self.dtype, kernel_init=_kaiming_normal, name=name)


class ModulatedGCN(nn.Module):
    """Lifts 2D joints to a pose by modulated graph convolutions.

    Graph layer 2 -> C, residual graph blocks, optionally attention, graph convolution C -> 3.
    `modulated_gcn` builds the released variants. With 16 joints, "gt" has 287,923 parameters. The
    attention of "benchmark" is in no figure of the paper and is why its parameter count is higher
    than one expects.

    Attributes:
      skeleton: Joints and their neighbours.
      width: C.
      num_blocks: Residual blocks.
      non_local: Attention over joints before the last layer ("benchmark").
      groups: Grouped attention after the first layer and each residual block ("grouped").
      adjacency: "row" as released, "symmetric" as the papers say.
      modulated: False gives a vanilla GCN.
      mask: Learn a multiplicative mask on the affinity, which the release does not have.
      modulation_init: Start of M: "ones" ("gt") or "xavier" ("benchmark").
      dropout: Dropout in the graph layers.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    width: int = 128
    num_blocks: int = 4
    non_local: bool = False
    groups: Groups | None = None
    adjacency: Normalisation = "row"
    modulated: bool = True
    mask: bool = False
    modulation_init: Literal["xavier", "ones"] = "xavier"
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        self.gconv_input = self._layer()
        self.gconv_layers = [
            ResidualBlock(self._layer(), self._layer()) for _ in range(self.num_blocks)
        ]
        if self.groups is not None:
            check_groups(self.groups, self.skeleton.num_joints)
            self.grouped = [
                GroupedNonLocalBlock(self.groups, dtype=self.dtype)
                for _ in range(self.num_blocks + 1)
            ]
        if self.non_local:
            self.attention = NonLocalBlock(dtype=self.dtype)
        self.gconv_output = self._conv(3)

    def __call__(
        self,
        keypoints: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """One lifting.

        Args:
          keypoints: 2D joints in screen units, `(..., J, 2)`.
          train: Batch statistics in the normalisation, and dropout.
          mask: 1 for items that count in the statistics, `(...)`.
          axis_name: Mapped device axis to share the statistics over.

        Returns:
          `(..., J, 3)` pose in metres.

        Raises:
          ValueError: Wrong joint count or channels.
        """
        check_joints(keypoints, self.skeleton, channels=2, name="keypoints")
        options: dict[str, Any] = {"train": train, "mask": mask, "axis_name": axis_name}
        h = self.gconv_input(keypoints, **options)
        if self.groups is not None:
            h = self.grouped[0](h, **options)
        for i, block in enumerate(self.gconv_layers):
            h = block(h, **options)
            if self.groups is not None:
                h = self.grouped[i + 1](h, **options)
        if self.non_local:
            h = self.attention(h, **options)
        return self.gconv_output(h)

    def _conv(self, features: int) -> ModulatedGraphConv:
        return ModulatedGraphConv(
            features,
            skeleton=self.skeleton,
            adjacency=self.adjacency,
            modulated=self.modulated,
            mask=self.mask,
            modulation_init=self.modulation_init,
            dtype=self.dtype,
        )

    def _layer(self) -> GraphConv:
        return GraphConv(self._conv(self.width), dropout=self.dropout)


def modulated_gcn(variant: str, skeleton: Skeleton, **overrides: Any) -> ModulatedGCN:
    """Builds a released variant: "gt", "benchmark" or "grouped".

    Args:
      variant: Name in `VARIANTS`. "grouped" has groups for 16 joints; give others as `groups`.
      skeleton: Joints and their neighbours.
      **overrides: Attributes of `ModulatedGCN` that differ from the variant's.

    Raises:
      ValueError: Unknown variant.

    >>> from posediff_jax.skeleton import H36M_16
    >>> modulated_gcn("gt", H36M_16).width
    128
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {sorted(VARIANTS)}, got {variant!r}")
    return ModulatedGCN(skeleton, **{**VARIANTS[variant], **overrides})


def check_groups(groups: Groups, num_joints: int) -> None:
    """Checks that groups hold each joint once.

    Raises:
      ValueError: They do not, or the first group is empty.
    """
    if not groups or not groups[0] or sorted(sum(groups, ())) != list(range(num_joints)):
        raise ValueError(f"groups: expected each of {num_joints} joints once, got {groups}")


def _max_pool(x: Array, size: int) -> Array:
    """Maximum over windows of `size` joints: `(..., J, C)` to `(..., J // size, C)`."""
    windows = x.shape[-2] // size
    x = x[..., : windows * size, :]
    return x.reshape(*x.shape[:-2], windows, size, x.shape[-1]).max(axis=-2)


def _vector_kaiming(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    return _kaiming_normal(key, (*shape, 1), dtype)[:, 0]
