"""Systems: a paper's network, process, loss and sampler bound by a config."""

from collections.abc import Callable, Mapping
from typing import Any

from posediff_jax.systems import d3dp, ddhpose, diffupose, mixste, modgcn, residual_mlp
from posediff_jax.systems.base import System as System
from posediff_jax.types import Variables

SYSTEMS: dict[str, Callable[..., System]] = {
    "d3dp": d3dp.from_config,
    "ddhpose": ddhpose.from_config,
    "diffupose": diffupose.from_config,
    "mixste": mixste.from_config,
    "modgcn": modgcn.from_config,
    "residual_mlp": residual_mlp.from_config,
}


def make_system(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system that `config.system` names.

    Args:
      config: An experiment's config.
      frozen: Variables of a frozen part, for systems that have one.

    Raises:
      ValueError: Unknown system, or a config that the system refuses.
    """
    name = config["system"]
    if name not in SYSTEMS:
        raise ValueError(f"system: expected one of {sorted(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name](config, frozen=frozen)
