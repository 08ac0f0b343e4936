"""Residual MLP regression (Martinez et al., ICCV 2017): the plain baseline of every table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.residual_mlp import ResidualMLP
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.regression import regression_system
from posediff_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `ResidualMLP` for the fields."""

    width: int = 1024
    num_blocks: int = 2
    dropout: float = 0.0
    dtype: str = "float32"


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: the MLP has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, the residual MLP has no frozen part")
    skeleton = get_skeleton(config["skeleton"])
    options = read_options(ModelOptions, config["model"], where="model")
    for name in ("width", "num_blocks"):
        if getattr(options, name) < 1:
            raise ValueError(f"model.{name}: expected at least 1, got {getattr(options, name)}")
    fields = dataclasses.asdict(options) | {"dtype": read_dtype(options.dtype, where="model.dtype")}
    model = ResidualMLP(skeleton, **fields)
    return regression_system(model, skeleton, config, title="the residual MLP")
