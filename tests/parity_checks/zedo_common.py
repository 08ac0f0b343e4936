"""What the checks of ZeDO share: the process and network that a config describes."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from posediff_jax.process.sdes import SDES, VE, VP

Outputs = Mapping[str, ArrayLike]


def build_sde(config: Mapping[str, Any], name: str = "subvp", *, horizon: float = 1.0) -> VP | VE:
    """The process of that name with the values of `config`."""
    fields = ("beta_min", "beta_max") if name != "ve" else ("sigma_min", "sigma_max")
    values = {f: config[f] for f in fields if f in config}
    return SDES[name](**values, num_steps=config.get("N", 1000), horizon=horizon)
