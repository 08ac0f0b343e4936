"""Weights of DiffHPE checkpoints, to linen variables and back.

file = torch.load("diffhpe-wrapper/model.pth", map_location="cpu")
weights = {k: v.numpy() for k, v in file.items()}
variables = load_diffhpe(weights, DiffHPEDenoiser(H36M_17, source="features", encode_pose=True,
    lifter=MixSTE(H36M_17, num_frames=27, width=64)))

The lifter's own files, `conditioners_ckpts/*.pt` and those of the supervised trainer, are those of
a MixSTE: `load_mixste`. Of the repository's other networks, which its paper does not use, neither
the forecasting transformer (CSDI) nor the denoiser `arch=mixste` is supported.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.interop.ddhpose import mixste_key_map
from posediff_jax.interop.diffupose import grouped_entries
from posediff_jax.interop.state_dict import (
    CONV1,
    Entry,
    StateDict,
    batch_norm_entries,
    dump_state_dict,
    linear_entries,
    load_state_dict,
    select_weights,
)
from posediff_jax.systems.diffhpe_parts import join_lifter
from posediff_jax.types import Variables

NETWORK, CONDITION = "diffmodel.", "conditioning."


def load_diffhpe(state_dict: Mapping[str, Any], model: DiffHPEDenoiser) -> dict[str, Any]:
    """Turns DiffHPE weights into variables of `model`.

    The system `diffhpe_wrapper` keeps the lifter apart: `freeze_lifter` takes the result there.

    Args:
      state_dict: Content of a released file or its state dict; NumPy values. `module.` is stripped.
      model: The network, of the size of the weights.

    Returns:
      `params` and `batch_stats`, NumPy leaves of the types in `state_dict`.

    Raises:
      ValueError: Names or shapes do not fit; one error lists them all.
      TypeError: Not a mapping of names to numeric arrays.
    """
    weights = select_weights(state_dict, which="online")
    return load_state_dict(
        weights,
        diffhpe_key_map(model),
        variable_shapes(model),
        ignored=_is_counter,
        hint=_hint(weights, model),
    )


def dump_diffhpe(
    variables: Variables,
    model: DiffHPEDenoiser,
    *,
    prefix: str = "",
    unused: Mapping[str, Any] | None = None,
) -> StateDict:
    """Writes variables of `model` under the authors' names, the inverse of `load_diffhpe`.

    Args:
      variables: Of the network or of its system, or anything shaped like them, such as gradients.
      model: Their network.
      prefix: Put before each name, such as "module.".
      unused: A state dict, as for `load_diffhpe`, to take the batch counters from; they are left
        out by default.

    Raises:
      ValueError: A variable is missing.
      TypeError: `unused` is not a mapping with string keys.
    """
    state_dict = dump_state_dict(join_lifter(variables), diffhpe_key_map(model))
    if unused is not None:
        rest = select_weights(unused, which="online")
        state_dict |= {k: np.array(v) for k, v in rest.items() if _is_counter(k)}
    return {prefix + key: value for key, value in state_dict.items()}


def diffhpe_key_map(model: DiffHPEDenoiser) -> list[Entry]:
    """The entries of the denoiser, and of the conditioner where it has weights."""
    entries = linear_entries(f"{NETWORK}input_projection", ("project",), CONV1)
    for number, name in ((1, "step_in"), (2, "step_out")):
        entries += linear_entries(f"{NETWORK}diffusion_embedding.projection{number}", (name,))
    for number, name in ((1, "hidden"), (2, "output")):
        entries += linear_entries(f"{NETWORK}output_projection{number}", (name,), CONV1)
    for i in range(model.num_blocks):
        entries += block_entries(
            f"{NETWORK}residual_layers.{i}",
            (f"blocks_{i}",),
            over_frames=model.num_frames > 1,
            non_local=model.non_local,
        )
    if model.encode_pose:
        entries += linear_entries(f"{CONDITION}data_enc", ("pose_encoder",))
    return entries + _lifter_entries(model)


def block_entries(
    key: str, path: tuple[str, ...], *, over_frames: bool = True, non_local: bool = True
) -> list[Entry]:
    """The entries of a `DiffHPEBlock`, with the layers that it has."""
    entries = linear_entries(f"{key}.diffusion_projection", (*path, "step"))
    for name, field in (("mid_projection", "mid"), ("output_projection", "out")):
        entries += linear_entries(f"{key}.{name}", (*path, field), CONV1)
    for name in ("time_layer", "feature_layer") if over_frames else ("feature_layer",):
        entries += joint_layer_entries(f"{key}.{name}", (*path, name))
    if non_local:
        entries += grouped_entries(f"{key}.non_local.non_local", (*path, "attention"))
    return entries


def joint_layer_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `JointGraphLayer`."""
    entries = [Entry(f"{key}.gconv.{n}", ("params", *path, "conv", n)) for n in ("W", "bias")]
    return entries + batch_norm_entries(f"{key}.bn", (*path, "bn"))


def variable_shapes(model: DiffHPEDenoiser) -> dict[str, Any]:
    """Shapes and types of the variables that `model.init` would give, without computing them."""
    window = (1, model.num_frames, model.skeleton.num_joints)
    keypoints = jnp.zeros((*window, 2 + model.visibility))
    pose = jnp.zeros((*window, model.pose_channels))
    t = jnp.zeros((1,), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), keypoints, pose, t)


def _lifter_entries(model: DiffHPEDenoiser) -> list[Entry]:
    """MixSTE below `conditioning.`; without its linear layer its head is one norm, not numbered."""
    if model.lifter is None:
        return []
    entries = []
    for entry in mixste_key_map(model.lifter):
        key = entry.key
        if model.source == "features":
            if key.startswith("head.1."):
                continue
            key = key.replace("head.0.", "head.")
        collection, *path = entry.path
        moved = (collection, "lifter", *path)
        entries.append(dataclasses.replace(entry, key=CONDITION + key, path=moved))
    return entries


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def _hint(weights: Mapping[str, Any], model: DiffHPEDenoiser) -> str:
    """Says which attributes of the model the weights contradict, where that can be told."""
    time = np.shape(weights.get(f"{NETWORK}residual_layers.0.time_layer.gconv.W", ()))
    start = f"{NETWORK}residual_layers."
    blocks = {k.removeprefix(start).split(".")[0] for k in weights if k.startswith(start)}
    lifter = any(k.startswith(f"{CONDITION}STEblocks.") for k in weights)
    found = {
        "skeleton.num_joints": time[1:2],
        "num_frames": time[2:3],
        "width": np.shape(weights.get(f"{NETWORK}output_projection1.weight", ()))[:1],
        "num_blocks": (len(blocks),) if blocks else (),
        "a lifter": (lifter,) if weights else (),
    }
    expected = {
        "skeleton.num_joints": model.skeleton.num_joints,
        "a lifter": model.lifter is not None,
        **{name: getattr(model, name) for name in ("num_frames", "width", "num_blocks")},
    }
    return "; ".join(
        f"{name}: {size[0]} in the weights, {expected[name]} in the model"
        for name, size in found.items()
        if size and size[0] != expected[name]
    )
