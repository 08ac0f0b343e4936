"""Weights of MixSTE, D3DP and DDHPose checkpoints, to linen variables and back.

file = torch.load("best_epoch.bin", map_location="cpu", weights_only=False)
weights = {k: v.numpy() for k, v in file["model_pos"].items()}
variables = load_ddhpose(weights, DDHPoseDenoiser(H36M_17))

and `load_mixste` for the other two. `weights_only=False` because the authors stored a NumPy random
state beside the weights; PyTorch is needed for nothing else.
"""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.denoisers.mixste import D3DPDenoiser, MixSTE
from posediff_jax.interop.diffupose import SCHEDULE_BUFFERS
from posediff_jax.interop.state_dict import (
    Entry,
    Layout,
    StateDict,
    dump_state_dict,
    linear_entries,
    load_state_dict,
)
from posediff_jax.process.bones import Bones
from posediff_jax.systems.ddhpose import SamplerOptions
from posediff_jax.types import Variables

Network = MixSTE | D3DPDenoiser | DDHPoseDenoiser
# Tables are stored with an axis of size 1 for the batch.
TABLE = Layout(lambda a: a[0], lambda a: a[None])
PREFIXES = ("module.", "pose_estimator.", "dir_bone_estimator.", "model.")
# What weights do not tell and all released ones were trained with.
RELEASED_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {"hrst": True, "walk": "released", "child_layout": "released"}
)
# Without that part of the network a setting does not matter.
_PART = {"walk": "hrst", "child_layout": "hrtt"}


def load_mixste(state_dict: Mapping[str, Any], model: MixSTE | D3DPDenoiser) -> dict[str, Any]:
    """Turns MixSTE or D3DP weights into variables of `model`.

    Args:
      state_dict: Content of a checkpoint file, its `model_pos`, or the network's own state dict;
        NumPy values. `module.`, `pose_estimator.`, `dir_bone_estimator.` and DiffHPE's `model.` are
        stripped, the diffusion's constants left out.
      model: The network, with the frames, width and depth of the weights.

    Returns:
      `params`, NumPy leaves of the types in `state_dict`.

    Raises:
      ValueError: Names or shapes do not fit; one error lists them all.
      TypeError: Not a mapping of names to numeric arrays.
    """
    weights = bare_weights(state_dict)
    return load_state_dict(
        weights, mixste_key_map(model), variable_shapes(model), hint=_hint(weights, model)
    )


def dump_mixste(
    variables: Variables, model: MixSTE | D3DPDenoiser, *, prefix: str = ""
) -> StateDict:
    """Writes variables of `model` under the authors' names, the inverse of `load_mixste`.

    Args:
      variables: Variables, or anything shaped like them, such as gradients.
      model: Their network.
      prefix: Put before each name, such as "module.pose_estimator.".

    Raises:
      ValueError: A variable is missing.
    """
    state_dict = dump_state_dict(variables, mixste_key_map(model))
    return {prefix + key: value for key, value in state_dict.items()}


def load_ddhpose(
    state_dict: Mapping[str, Any],
    model: DDHPoseDenoiser,
    *,
    trained_with: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turns DDHPose weights into variables of `model`.

    Left out: `qkv_xc` of the blocks over joints, which the release holds but never uses. The
    weights alone do not say how the release samples with them: see `released_sampler`. Nor do they
    tell `num_heads`, 8 in the release.

    Args:
      state_dict: As for `load_mixste`.
      model: Likewise.
      trained_with: Settings that fit weights of any, where they are not `RELEASED_SETTINGS`: some
        of `hrst`, `walk` and `child_layout`. Under others the same weights give other poses, so
        those of `model` must be these.

    Raises:
      ValueError: As `load_mixste`; or settings of `model` that the weights were not trained with.
      TypeError: As `load_mixste`.

    Warns:
      UserWarning: The skeleton is one whose released sampler is not this package's default.
    """
    _check_settings(model, trained_with or {})
    weights = bare_weights(state_dict)
    slots = released_sampler(model)["noise_slots"]
    if slots != SamplerOptions.noise_slots:
        warnings.warn(
            f"the released code samples {model.skeleton.name} with "
            f"sampler.noise_slots={slots!r}, the default is {SamplerOptions.noise_slots!r}; "
            "name one of them where num_steps is more than 1",
            stacklevel=2,
        )
    return load_state_dict(
        weights,
        ddhpose_key_map(model),
        variable_shapes(model),
        ignored=_is_dead,
        hint=_hint(weights, model),
    )


def dump_ddhpose(
    variables: Variables,
    model: DDHPoseDenoiser,
    *,
    prefix: str = "",
    unused: Mapping[str, Any] | None = None,
) -> StateDict:
    """Writes variables of `model` under the authors' names, the inverse of `load_ddhpose`.

    Args:
      variables: Variables, or anything shaped like them, such as gradients.
      model: Their network.
      prefix: Put before each name, such as "module.dir_bone_estimator.".
      unused: A state dict, as for `load_ddhpose`, to take the never used entries from; they are
        left out by default.

    Raises:
      ValueError: A variable is missing.
      TypeError: `unused` is not a mapping with string keys.
    """
    state_dict = dump_state_dict(variables, ddhpose_key_map(model))
    if unused is not None:
        state_dict |= {k: np.array(v) for k, v in bare_weights(unused).items() if _is_dead(k)}
    return {prefix + key: value for key, value in state_dict.items()}


def released_sampler(model: DDHPoseDenoiser) -> dict[str, Any]:
    """The fields of the section `sampler` that repeat the released sampling with these weights.

    For MPI-INF-3DHP the released code takes the state of slots 1 to 16 for that of the bones, which
    sit in other slots: `noise_slots="official"`. With one step both rules give the same poses.

    Args:
      model: The denoiser.

    >>> from posediff_jax.skeleton import MPI_INF_3DHP_17
    >>> released_sampler(DDHPoseDenoiser(MPI_INF_3DHP_17))["noise_slots"]
    'official'
    """
    slots = "fixed" if model.skeleton.root == 0 else "official"
    return {"noise_slots": slots, "eta": 1.0, "flip": True}


def bare_weights(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The network's own entries of a checkpoint file or of a part of one.

    Raises:
      TypeError: Not a mapping with string keys.
    """
    if not isinstance(state_dict, Mapping) or not all(isinstance(k, str) for k in state_dict):
        raise TypeError(f"state_dict: expected names to arrays, got {type(state_dict).__name__}")
    if isinstance(state_dict.get("model_pos"), Mapping):
        return bare_weights(state_dict["model_pos"])
    weights = dict(state_dict)
    for prefix in PREFIXES:
        weights = {k.removeprefix(prefix): v for k, v in weights.items()}
    return {k: v for k, v in weights.items() if k not in SCHEDULE_BUFFERS}


def mixste_key_map(model: MixSTE | D3DPDenoiser) -> list[Entry]:
    """The entries of a network, names without prefixes."""
    entries = common_entries(model)
    for i in range(model.depth):
        entries += block_entries(f"STEblocks.{i}", ("trunk", f"spatial_{i}"))
        entries += block_entries(f"TTEblocks.{i}", ("trunk", f"temporal_{i}"))
    return entries + head_entries("head")


def ddhpose_key_map(model: DDHPoseDenoiser) -> list[Entry]:
    """The entries of DDHPose's denoiser: the first pair of blocks apart, the others from 0 again.

    Raises:
      ValueError: `model` has no level embedding, or another input or output than bones in, poses
        out: there is no such PyTorch checkpoint.
    """
    released = {"levels": True, "disentangled_input": True, "disentangled_output": False}
    for name, value in released.items():
        if getattr(model, name) != value:
            raise ValueError(
                f"model: PyTorch checkpoints exist for {name}={value} only, got {name}={not value}"
            )
    entries = common_entries(model)
    entries.append(Entry("group", ("params", "level_embedding"), TABLE))
    for i in range(model.depth):
        for kind, name in (("STE", "spatial"), ("TTE", "temporal")):
            key = f"{kind}blocks.{i - 1}" if i else f"{kind}blocks_0.0"
            path = ("trunk", f"{name}_{i}")
            entries += block_entries(key, path)
            if i and name == "temporal" and model.hrtt:
                entries += linear_entries(f"{key}.attn.qkv_xc", (*path, "attention", "child"))
    return entries + head_entries("head_pose")


def common_entries(model: Network) -> list[Entry]:
    """The entries before the blocks: tables, input projection, time path, shared norms."""
    entries = [
        Entry("Spatial_pos_embed", ("params", "joint_positions"), TABLE),
        Entry("Temporal_pos_embed", ("params", "trunk", "frame_positions"), TABLE),
        *linear_entries("Spatial_patch_to_embedding", ("embed",)),
        *norm_entries("Spatial_norm", ("trunk", "spatial_norm")),
        *norm_entries("Temporal_norm", ("trunk", "temporal_norm")),
    ]
    if not isinstance(model, MixSTE):
        entries += linear_entries("time_mlp.1", ("time", "in"))
        entries += linear_entries("time_mlp.3", ("time", "out"))
    return entries


def block_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `Block`."""
    entries = norm_entries(f"{key}.norm1", (*path, "norm1"))
    entries += norm_entries(f"{key}.norm2", (*path, "norm2"))
    for part, names in (("attn", ("qkv", "proj")), ("mlp", ("fc1", "fc2"))):
        module = "attention" if part == "attn" else part
        for name in names:
            entries += linear_entries(f"{key}.{part}.{name}", (*path, module, name))
    return entries


def head_entries(key: str) -> list[Entry]:
    """The entries of the output head."""
    norm = norm_entries(f"{key}.0", ("trunk", "head_norm"))
    return norm + linear_entries(f"{key}.1", ("trunk", "head"))


def norm_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a layer norm at `path` (without the collection)."""
    return [
        Entry(f"{key}.weight", ("params", *path, "scale")),
        Entry(f"{key}.bias", ("params", *path, "bias")),
    ]


def variable_shapes(model: Network) -> dict[str, Any]:
    """Shapes and types of the variables that `model.init` would give, without computing them."""
    window = (1, model.num_frames, model.skeleton.num_joints)
    inputs = [jnp.zeros((*window, 2))]
    noisy: Any = jnp.zeros((*window, 3))
    if isinstance(model, DDHPoseDenoiser) and model.disentangled_input:
        noisy = Bones(noisy, jnp.zeros((*window, 1)))
    if not isinstance(model, MixSTE):
        inputs += [noisy, jnp.zeros((1,), jnp.int32)]
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)


def _check_settings(model: DDHPoseDenoiser, trained_with: Mapping[str, Any]) -> None:
    unknown = sorted(set(trained_with) - set(RELEASED_SETTINGS))
    if unknown:
        raise ValueError(
            f"trained_with: expected some of {sorted(RELEASED_SETTINGS)}, got {unknown[0]!r}"
        )
    for name, value in {**RELEASED_SETTINGS, **trained_with}.items():
        found, part = getattr(model, name), _PART.get(name)
        matters = part is None or getattr(model, part)
        if matters and found != value:
            raise ValueError(
                f"model: expected {name}={value!r}, which the weights were trained with and do "
                f"not tell, got {found!r}; say trained_with={{{name!r}: {found!r}}} for weights "
                "that were trained so"
            )


def _is_dead(key: str) -> bool:
    return key.startswith("STEblocks.") and ".qkv_xc." in key


def _hint(weights: Mapping[str, Any], model: Network) -> str:
    """Says which attributes of the model the weights contradict, where that can be told."""
    found = {
        "skeleton.num_joints": np.shape(weights.get("Spatial_pos_embed", ()))[1:2],
        "num_frames": np.shape(weights.get("Temporal_pos_embed", ()))[1:2],
        "width": np.shape(weights.get("Spatial_pos_embed", ()))[2:3],
        "depth": _depth(weights),
    }
    expected = {
        "skeleton.num_joints": model.skeleton.num_joints,
        **{name: getattr(model, name) for name in ("num_frames", "width", "depth")},
    }
    return "; ".join(
        f"{name}: {size[0]} in the weights, {expected[name]} in the model"
        for name, size in found.items()
        if size and size[0] != expected[name]
    )


def _depth(weights: Mapping[str, Any]) -> tuple[int, ...]:
    names = {k.split(".attn")[0] for k in weights if k.startswith("STEblocks") and ".attn." in k}
    return (len(names),) if names else ()
