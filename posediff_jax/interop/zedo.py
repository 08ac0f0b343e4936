"""Weights of ZeDO and GFPose score networks, to linen variables and back.

file = torch.load("checkpoint_1500.pth", map_location="cpu")
# Tensors to NumPy, also in file["ema"]["shadow_params"], which is a list.
variables = load_score_mlp(weights, ScoreMLP())
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.score_mlp import ScoreMLP
from posediff_jax.interop.state_dict import (
    Entry,
    StateDict,
    Which,
    dump_state_dict,
    linear_entries,
    load_state_dict,
    select_weights,
)
from posediff_jax.types import Variables

# A table of noise levels that the release registers beside the network and never reads.
BUFFER = "sigmas"


def load_score_mlp(
    checkpoint: Mapping[str, Any], model: ScoreMLP, *, which: Which = "ema"
) -> dict[str, Any]:
    """Turns weights of the released score network into variables of `model`.

    Args:
      checkpoint: Content of a training file (`model_state_dict`, `ema` with its nameless list
        `shadow_params`), or a state dict; NumPy values. `module.` is stripped.
      model: The network, with the joints and widths of the weights.
      which: "ema" for the averaged weights; "online" for the trained ones, which the ZeDO release
        uses at inference by mistake (it loads the average and never copies it). A plain state dict
        is taken as it is.

    Returns:
      `params`, NumPy leaves of the types in the checkpoint.

    Raises:
      ValueError: Names or shapes do not fit, one error lists them all; the list has another
        length; or the file has no weights of the kind asked for.
      TypeError: Not a mapping of names to numeric arrays.
    """
    key_map = score_mlp_key_map(model)
    weights = _weights(checkpoint, key_map, which)
    return load_state_dict(
        weights,
        key_map,
        score_mlp_shapes(model),
        ignored=lambda key: key == BUFFER,
        hint=_hint(weights, model),
    )


def dump_score_mlp(
    variables: Variables, model: ScoreMLP, *, prefix: str = "", fill_unused: bool = False
) -> StateDict:
    """Writes variables of `model` as a PyTorch state dict, in the order of its parameters.

    Args:
      variables: Variables, or anything shaped like them: `{"params": gradients}` works.
      model: Their network.
      prefix: Put before each name, such as "module.".
      fill_unused: Also write the table of noise levels, so that `load_state_dict(strict=True)`
        takes the result.

    Raises:
      ValueError: A variable is missing.
    """
    state_dict = dump_state_dict(variables, score_mlp_key_map(model))
    if fill_unused:
        state_dict[BUFFER] = np.exp(np.linspace(np.log(50.0), np.log(0.01), 1000))
    return {prefix + key: value for key, value in state_dict.items()}


def score_mlp_key_map(model: ScoreMLP) -> list[Entry]:
    """The entries of the score network, in the order of the PyTorch module's parameters."""
    parts = ("", "_t", "_cond") if model.conditional else ("", "_t")
    entries = _layer_entries("pre_dense", "pre_gnorm", 0, parts)
    entries += linear_entries("shared_time_embed.0", ("time_embed",))
    if model.conditional:
        entries += linear_entries("cond_embed.0", ("cond_embed",))
    for i in range(2 * model.num_blocks):
        block, number = i // 2 + 1, i % 2 + 1
        names = f"b{block}_dense{number}", f"b{block}_gnorm{number}"
        entries += _layer_entries(*names, i + 1, parts)
    return entries + linear_entries("post_dense", ("out",))


def score_mlp_shapes(model: ScoreMLP) -> dict[str, Any]:
    """Shapes and types of the variables that `model.init` would give, without computing them."""
    x_t = jnp.zeros((1, model.num_joints, 3))
    cond = x_t if model.conditional else None
    return jax.eval_shape(model.init, jax.random.key(0), x_t, jnp.zeros(1), cond=cond)


def _layer_entries(dense: str, norm: str, index: int, parts: tuple[str, ...]) -> list[Entry]:
    """The entries of a `ScoreLayer`: linear layers of pose, time and condition, then the norm."""
    path = (f"layers_{index}",)
    fields = {"": "dense", "_t": "time", "_cond": "cond"}
    entries = []
    for part in parts:
        entries += linear_entries(dense + part, (*path, fields[part]))
    return [
        *entries,
        Entry(f"{norm}.weight", ("params", *path, "norm", "scale")),
        Entry(f"{norm}.bias", ("params", *path, "norm", "bias")),
    ]


def _weights(checkpoint: Mapping[str, Any], key_map: list[Entry], which: Which) -> dict[str, Any]:
    if isinstance(checkpoint, Mapping) and "model_state_dict" in checkpoint:
        online = select_weights(checkpoint["model_state_dict"], which=which)
        if which == "online":
            return online
        average = checkpoint.get("ema")
        if not isinstance(average, Mapping) or "shadow_params" not in average:
            raise ValueError(
                "which: the checkpoint has 'model_state_dict' (trained weights) but no "
                "'ema' with 'shadow_params'; pass which='online'"
            )
        return _name_shadow(average["shadow_params"], key_map)
    return select_weights(checkpoint, which=which)


def _name_shadow(shadow: Any, key_map: list[Entry]) -> dict[str, Any]:
    """The nameless list of averaged parameters, under the names of the module's parameters."""
    if len(shadow) != len(key_map):
        raise ValueError(
            f"ema.shadow_params: expected {len(key_map)} arrays, one per parameter of the model, "
            f"got {len(shadow)}"
        )
    return {entry.key: value for entry, value in zip(key_map, shadow, strict=True)}


def _hint(weights: Mapping[str, Any], model: ScoreMLP) -> str:
    """Says which attributes of the model the weights contradict, where that can be told."""
    width, inputs = (*np.shape(weights.get("pre_dense.weight", ())), 0, 0)[:2]
    embedding = (*np.shape(weights.get("shared_time_embed.0.bias", ())), 0)[0]
    found = {"num_joints": inputs // 3, "width": width, "embedding": embedding}
    clashes = {n: size for n, size in found.items() if size and size != getattr(model, n)}
    hints = [
        f"{n}: {s} in the weights, {getattr(model, n)} in the model" for n, s in clashes.items()
    ]
    if "cond_embed.0.weight" in weights and not model.conditional:
        hints.append("conditional: the weights have a condition path, as GFPose's do")
    return "; ".join(hints)
