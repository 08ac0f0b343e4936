"""A trained network in one small file: its config and its weights in half precision.

One npz: `about`, a JSON text with `format`, `version`, `config` and `source`, and one float16 array
for each leaf of the variables, named by its path (`params/layers_0/dense/kernel`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from posediff_jax._version import __version__
from posediff_jax.data.npz import read_npz, write_npz
from posediff_jax.types import Variables

_FORMAT = 1
# What using a network takes; how it was trained is for its card to say.
_SECTIONS = ("system", "skeleton", "model", "process", "loss", "sampler")


class PriorFile(NamedTuple):
    """What such a file holds.

    Attributes:
      config: Of the system.
      variables: Its weights, float32.
      source: Where they are from, in words.
    """

    config: ConfigDict
    variables: Variables
    source: str


def write_prior(
    path: str | Path, variables: Variables, config: Mapping[str, Any], *, source: str = ""
) -> None:
    """Writes the file, whole or not at all.

    Args:
      path: An `.npz` file.
      variables: Nested dicts of arrays.
      config: Of the run; only what it takes to use the weights is kept.
      source: Where the weights are from, in words.

    Raises:
      ValueError: A weight that half precision cannot hold, or a config without a system.
      OSError: It cannot be written.
    """
    about: dict[str, Any] = {
        "format": _FORMAT,
        "version": __version__,
        "config": {name: _plain(config[name]) for name in _SECTIONS if name in config},
        "source": source,
    }
    if not {"system", "skeleton"} <= set(about["config"]):
        raise ValueError(f"config: expected 'system' and 'skeleton', got {sorted(config)}")
    arrays = {"about": np.array(json.dumps(about))}
    for name, leaf in flatten_dict(dict(variables), sep="/").items():
        wide = np.asarray(leaf)
        with np.errstate(over="ignore"):
            half = wide.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(
                f"variables: expected finite values up to 65504, got {np.abs(wide).max()} in {name}"
            )
        arrays[name] = half
    write_npz(path, arrays)


def read_prior(path: str | Path) -> PriorFile:
    """Reads a file by `write_prior`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is corrupt or another kind of file, or a later version's.
    """
    arrays = read_npz(path)
    try:
        about = json.loads(str(arrays.pop("about")))
        written, config, source = about["format"], about["config"], about["source"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a prior by write_prior, got another file") from error
    if written != _FORMAT:
        raise ValueError(f"{path}: expected format {_FORMAT}, got {written}")
    for name, half in arrays.items():
        if half.dtype != np.float16 or not np.isfinite(half).all():
            raise ValueError(f"{path}: key {name!r}: expected finite float16, got {half.dtype}")
    leaves = {name: half.astype(np.float32) for name, half in arrays.items()}
    return PriorFile(
        ConfigDict({name: _tuples(value) for name, value in config.items()}),
        unflatten_dict(leaves, sep="/"),
        str(source),
    )


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, ConfigDict) else value


def _tuples(value: Any) -> Any:
    """Configs hold tuples, JSON knows only lists."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
