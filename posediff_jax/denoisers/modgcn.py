"""Modulated-GCN, the regression network DiffuPose grew from: 2D joints in, a 3D pose out.

Zou and Tang, "Modulated Graph Convolutional Network for 3D Human Pose Estimation" (ICCV 2021),
in the variants its authors released.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from posediff_jax.denoisers.graph import (
    GraphConv,
    ModulatedGraphConv,
    NonLocalBlock,
    Normalisation,
    ResidualBlock,
)
from posediff_jax.denoisers.grouped import GROUPS_16, GroupedNonLocalBlock, Groups, check_groups
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "gt": {"width": 128, "modulation_init": "ones"},
    "benchmark": {"width": 384, "non_local": True, "dropout": 0.2},
    "grouped": {"width": 128, "modulation_init": "ones", "groups": GROUPS_16},
}


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
