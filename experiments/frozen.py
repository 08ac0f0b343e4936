"""The frozen lifter under a system, by the path that a config gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from posediff_jax.data import read_occlusion
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.interop import load_mixste
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems.diffhpe import WrapperModelOptions
from posediff_jax.systems.windows import ModelOptions
from posediff_jax.training import load_variables
from posediff_jax.types import Variables

# Fields of a MixSTE, and where the config of the system above has them.
SIZES = {
    "num_frames": "num_frames",
    "width": "lifter_width",
    "depth": "lifter_depth",
    "num_heads": "lifter_heads",
    "mlp_ratio": "lifter_mlp_ratio",
    "visibility": "visibility",
}


def load_lifter(config: ConfigDict) -> Variables | None:
    """Reads the lifter at `frozen.checkpoint`, the `frozen` of `make_system`.

    Args:
      config: An experiment's config.

    Returns:
      Variables of a MixSTE; None where the config names no checkpoint.

    Raises:
      FileNotFoundError: There is no checkpoint at that path.
      ValueError: A checkpoint of another system, size, skeleton, or convention of what a missing
        joint is.
    """
    path = config.get("frozen", {}).get("checkpoint", "")
    if not path:
        return None
    if Path(path).suffix == ".npz":
        return _read_released(Path(path), config)
    variables, info = load_variables(path, skeleton=get_skeleton(config.skeleton).name)
    about = info.config or {}
    if about.get("system") != "mixste":
        raise ValueError(
            f"frozen.checkpoint: expected a run of 'mixste', {path} is one of "
            f"{about.get('system')!r}"
        )
    check_sizes(path, about["model"], config.model)
    _check_missing(path, about.get("data", {}).get("occlusion"))
    return variables


def _read_released(path: Path, config: ConfigDict) -> Variables:
    """A state dict of the authors as `np.savez(FILE, **weights)` writes it."""
    network = MixSTE(get_skeleton(config.skeleton), **_expected_sizes(config.model))
    with np.load(path, allow_pickle=False) as archive:
        weights = {name: archive[name] for name in archive.files}
    # In the precision of training, whatever the file has.
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), load_mixste(weights, network))


def check_sizes(path: str, lifter: Mapping[str, Any], model: ConfigDict) -> None:
    """Refuses a lifter that is not of the size that the system above asks for.

    Args:
      path: Where the lifter is, or what it is called.
      lifter: The section `model` of its config.
      model: The section `model` of the system above.

    Raises:
      ValueError: Another size.
    """
    defaults = ModelOptions()
    clashes = []
    for field, wanted in _expected_sizes(model).items():
        found = lifter.get(field, getattr(defaults, field))
        if wanted != found:
            clashes.append(f"model.{SIZES[field]} is {wanted}, the lifter's {field} {found}")
    if clashes:
        raise ValueError(f"frozen.checkpoint: {path} does not fit: {'; '.join(clashes)}")


def _expected_sizes(model: ConfigDict) -> dict[str, Any]:
    """Fields of the lifter that the section `model` of the system above asks for."""
    defaults = WrapperModelOptions()
    return {field: model.get(name, getattr(defaults, name)) for field, name in SIZES.items()}


def _check_missing(path: str, occlusion: Mapping[str, Any] | None) -> None:
    """Refuses a lifter that was shown missing joints in a way that this package does not have."""
    if occlusion is None:
        return
    try:
        read_occlusion(occlusion)
    except (TypeError, ValueError) as error:
        raise ValueError(f"frozen.checkpoint: {path} was trained otherwise: {error}") from error
