"""Systems: a paper's network, process, loss and sampler bound by a config."""

from collections.abc import Callable, Mapping
from typing import Any

from posediff_jax.systems import (
    d3dp,
    ddhpose,
    diffhpe,
    diffupose,
    mixste,
    modgcn,
    residual_mlp,
    zedo,
)
from posediff_jax.systems.base import System as System
from posediff_jax.types import Variables

SYSTEMS: dict[str, Callable[..., System]] = {
    "d3dp": d3dp.from_config,
    "ddhpose": ddhpose.from_config,
    "diffhpe_2d": diffhpe.from_config_2d,
    "diffhpe_wrapper": diffhpe.from_config_wrapper,
    "diffupose": diffupose.from_config,
    "mixste": mixste.from_config,
    "modgcn": modgcn.from_config,
    "residual_mlp": residual_mlp.from_config,
    "zedo": zedo.from_config,
}


# What a config may hold; a section that it leaves out has the defaults of its options.
SECTIONS = ("model", "process", "loss", "sampler")
OTHERS = (
    *("system", "skeleton", "seed", "num_hypotheses", "frozen"),
    *("data", "optimizer", "ema", "training", "evaluation"),
)


def make_system(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system that `config.system` names.

    Args:
      config: An experiment's config.
      frozen: Variables of a frozen part, for systems that have one.

    Raises:
      ValueError: Unknown system, an unknown or missing name at the top of the config, or a section
        that the system refuses.
    """
    for name in ("system", "skeleton"):
        if name not in config:
            raise ValueError(f"config: expected the field {name!r}, got {sorted(config)}")
    unknown = sorted(set(config) - {*SECTIONS, *OTHERS})
    if unknown:
        raise ValueError(f"config: expected fields of {sorted(SECTIONS + OTHERS)}, got {unknown}")
    name = config["system"]
    if name not in SYSTEMS:
        raise ValueError(f"system: expected one of {sorted(SYSTEMS)}, got {name!r}")
    return SYSTEMS[name]({**{s: {} for s in SECTIONS}, **config}, frozen=frozen)
