"""Modulated-GCN (Zou and Tang, ICCV 2021): regression from one frame of 2D joints.

The network that DiffuPose's denoiser grew from, as a deterministic system to compare with.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.graph import Normalisation
from posediff_jax.denoisers.modgcn import VARIANTS, ModulatedGCN
from posediff_jax.skeleton import Skeleton, get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.regression import regression_system
from posediff_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `ModulatedGCN` for the fields.

    Attributes:
      variant: "gt", "benchmark" or "grouped": the released values of all fields that the config
        does not name.
      dtype: Compute type; parameters, normalisation and loss stay float32.
    """

    variant: str = "gt"
    width: int = 128
    num_blocks: int = 4
    non_local: bool = False
    groups: tuple[tuple[int, ...], ...] = ()
    adjacency: Normalisation = "row"
    modulated: bool = True
    mask: bool = False
    modulation_init: Literal["xavier", "ones"] = "xavier"
    dropout: float = 0.0
    dtype: str = "float32"


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: Modulated-GCN has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, Modulated-GCN has no frozen part")
    skeleton = get_skeleton(config["skeleton"])
    model = make_network(config["model"], skeleton)
    return regression_system(model, skeleton, config, title="Modulated-GCN")


def make_network(config: Mapping[str, Any], skeleton: Skeleton) -> ModulatedGCN:
    """The network that the section `model` describes.

    Raises:
      ValueError: An unknown field, variant or `dtype`, or groups that do not fit the skeleton.
      TypeError: A value of the wrong type.
    """
    variant = config.get("variant", ModelOptions.variant)
    if variant not in VARIANTS:
        raise ValueError(f"model.variant: expected one of {sorted(VARIANTS)}, got {variant!r}")
    options = read_options(ModelOptions, {**VARIANTS[variant], **dict(config)}, where="model")
    fields = dataclasses.asdict(options)
    del fields["variant"]
    fields["dtype"] = read_dtype(options.dtype, where="model.dtype")
    fields["groups"] = tuple(tuple(group) for group in options.groups) or None
    return ModulatedGCN(skeleton, **fields)
