"""Weights of DiffuPose and Modulated-GCN checkpoints, to linen variables and back.

file = torch.load("best_model.pt", map_location="cpu")
weights = {k: v.numpy() for k, v in file["ema"].items()}
variables = load_diffupose(weights, DiffuPoseGCN(H36M_16))
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.denoisers.modgcn import ModulatedGCN
from posediff_jax.interop.state_dict import (
    CONV1,
    CONV2,
    PROJECTION2,
    Entry,
    StateDict,
    Which,
    batch_norm_entries,
    dump_state_dict,
    linear_entries,
    load_state_dict,
    select_weights,
)
from posediff_jax.skeleton import SKELETONS, Skeleton
from posediff_jax.types import Variables

# Constants of the diffusion that the release registers beside the network; computed here.
SCHEDULE_BUFFERS = frozenset(
    (
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"),
        *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
        *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"),
        *("posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        "p2_loss_weight",
    )
)


def load_diffupose(
    state_dict: Mapping[str, Any], model: DiffuPoseGCN, *, which: Which = "ema"
) -> dict[str, Any]:
    """Turns DiffuPose weights into variables of `model`.

    Left out: schedule buffers, batch counters, and the third time block, which the release holds
    but never calls.

    Args:
      state_dict: Content of a training file, its `ema` or `model` part, or the network's own state
        dict; NumPy values.
      model: The network, with the skeleton and the width of the weights.
      which: "ema" as the authors evaluate, or "online"; see `select_weights`.

    Returns:
      `params` and `batch_stats`, NumPy leaves of the types in `state_dict`.

    Raises:
      ValueError: Names or shapes do not fit; one error lists them all.
      TypeError: Not a mapping of names to numeric arrays.
    """
    weights = select_weights(state_dict, which=which)
    if any(k.startswith("denoise_fn.") for k in weights):
        weights = {
            k.removeprefix("denoise_fn."): v
            for k, v in weights.items()
            if k not in SCHEDULE_BUFFERS
        }
    return load_state_dict(
        weights,
        diffupose_key_map(model),
        variable_shapes(model),
        ignored=_not_in_model,
        hint=_hint(weights, model),
    )


def dump_diffupose(
    variables: Variables,
    model: DiffuPoseGCN,
    *,
    prefix: str = "",
    fill_unused: bool = False,
) -> StateDict:
    """Writes variables of `model` as DiffuPose's PyTorch state dict.

    Args:
      variables: Variables, or anything shaped like them: `{"params": gradients}` works.
      model: Their network.
      prefix: Put before each name, such as "module.denoise_fn.".
      fill_unused: Also write zeros for what the PyTorch module has and this network has not, batch
        counters and the third time block, so that `load_state_dict(strict=True)` takes the result.

    Raises:
      ValueError: A variable is missing.
    """
    state_dict = dump_state_dict(variables, diffupose_key_map(model))
    if fill_unused:
        _fill_counters(state_dict)
        for name in ("weight", "bias"):
            used = state_dict[f"block1.mlp.1.{name}"]
            state_dict[f"block3.mlp.1.{name}"] = np.zeros_like(used)
    return {prefix + key: value for key, value in state_dict.items()}


def load_modgcn(
    state_dict: Mapping[str, Any], model: ModulatedGCN, *, which: Which = "ema"
) -> dict[str, Any]:
    """Turns Modulated-GCN weights into variables of `model`.

    Args:
      state_dict: Content of a released file, its `state_dict`, or the network's own state dict;
        NumPy values.
      model: The network, of the variant, skeleton and width of the weights.
      which: Matters only for files with averaged weights; see `select_weights`.

    Returns:
      `params` and `batch_stats`, NumPy leaves of the types in `state_dict`.

    Raises:
      ValueError: Names or shapes do not fit; one error lists them all.
      TypeError: Not a mapping of names to numeric arrays.
    """
    weights = select_weights(state_dict, which=which)
    return load_state_dict(
        weights,
        modgcn_key_map(model),
        variable_shapes(model),
        ignored=_is_counter,
        hint=_hint(weights, model),
    )


def dump_modgcn(
    variables: Variables, model: ModulatedGCN, *, prefix: str = "", fill_unused: bool = False
) -> StateDict:
    """Writes variables of `model` as a Modulated-GCN state dict.

    Args:
      variables: Variables, or anything shaped like them: `{"params": gradients}` works.
      model: Their network.
      prefix: Put before each name.
      fill_unused: Also write the batch counters, as zeros.

    Raises:
      ValueError: A variable is missing.
    """
    state_dict = dump_state_dict(variables, modgcn_key_map(model))
    if fill_unused:
        _fill_counters(state_dict)
    return {prefix + key: value for key, value in state_dict.items()}


def diffupose_key_map(model: DiffuPoseGCN) -> list[Entry]:
    """The entries of DiffuPose's denoiser, names without `denoise_fn.`.

    Raises:
      ValueError: `model` has layers that no PyTorch checkpoint has.
    """
    _check_released(model)
    entries = graph_layer_entries("gconv_input.0", ("gconv_input",))
    for i in range(model.num_blocks):
        entries += residual_entries(f"gconv_layers.{i}", (f"gconv_layers_{i}",))
    for i, name in ((1, "in"), (3, "out")):
        entries += linear_entries(f"time_mlp.{i}", ("time_mlp", name))
    for name in ("block1", "block2"):
        entries += linear_entries(f"{name}.mlp.1", (name, "mlp"))
    if model.non_local:
        entries += non_local_entries("non_local", ("attention",))
    return entries + graph_conv_entries("gconv_output", ("gconv_output",))


def modgcn_key_map(model: ModulatedGCN) -> list[Entry]:
    """The entries of a Modulated-GCN; with groups, even layers are residual and odd ones attend.

    Raises:
      ValueError: `model` has layers that no PyTorch checkpoint has.
    """
    _check_released(model)
    entries = graph_layer_entries("gconv_input.0", ("gconv_input",))
    stride = 1 if model.groups is None else 2
    for i in range(model.num_blocks):
        entries += residual_entries(f"gconv_layers.{i * stride}", (f"gconv_layers_{i}",))
    if model.groups is not None:
        entries += grouped_entries("gconv_input.1.non_local", ("grouped_0",))
        for i in range(model.num_blocks):
            key = f"gconv_layers.{2 * i + 1}.non_local"
            entries += grouped_entries(key, (f"grouped_{i + 1}",))
    if model.non_local:
        entries += non_local_entries("non_local", ("attention",))
    return entries + graph_conv_entries("gconv_output", ("gconv_output",))


def graph_conv_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `ModulatedGraphConv`."""
    return [Entry(f"{key}.{n}", ("params", *path, n)) for n in ("W", "M", "adj2", "bias")]


def graph_layer_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `GraphConv`."""
    conv = graph_conv_entries(f"{key}.gconv", (*path, "conv"))
    return conv + batch_norm_entries(f"{key}.bn", (*path, "bn"))


def residual_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `ResidualBlock`."""
    first = graph_layer_entries(f"{key}.gconv1", (*path, "first"))
    return first + graph_layer_entries(f"{key}.gconv2", (*path, "second"))


def non_local_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `NonLocalBlock`."""
    entries = []
    for name in ("g", "theta", "phi"):
        entries += [
            Entry(f"{key}.{name}.weight", ("params", *path, f"{name}_kernel"), CONV2),
            Entry(f"{key}.{name}.bias", ("params", *path, f"{name}_bias")),
        ]
    entries += linear_entries(f"{key}.W.0", (*path, "out"), CONV2)
    return entries + batch_norm_entries(f"{key}.W.1", (*path, "bn"))


def grouped_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `GroupedNonLocalBlock`; phi and g are followed by pooling, so numbered."""
    entries = [Entry(f"{key}.concat_project.0.weight", ("params", *path, "project"), PROJECTION2)]
    for name, field in (("g.0", "g"), ("theta", "theta"), ("phi.0", "phi"), ("W.0", "out")):
        entries += linear_entries(f"{key}.{name}", (*path, field), CONV1)
    return entries + batch_norm_entries(f"{key}.W.1", (*path, "bn"))


def variable_shapes(model: DiffuPoseGCN | ModulatedGCN) -> dict[str, Any]:
    """Shapes and types of the variables that `model.init` would give, without computing them."""
    joints = model.skeleton.num_joints
    inputs = [jnp.zeros((1, joints, 2))]
    if isinstance(model, DiffuPoseGCN):
        inputs += [jnp.zeros((1, joints, 3)), jnp.zeros((1,), jnp.int32)]
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)


def _check_released(model: DiffuPoseGCN | ModulatedGCN) -> None:
    if not model.modulated or model.mask:
        raise ValueError(
            "model: PyTorch checkpoints exist for modulated=True and mask=False only, "
            f"got modulated={model.modulated}, mask={model.mask}"
        )


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def _not_in_model(key: str) -> bool:
    return _is_counter(key) or key.startswith("block3.") or key in SCHEDULE_BUFFERS


def _fill_counters(state_dict: StateDict) -> None:
    for key in [k for k in state_dict if k.endswith(".running_var")]:
        counter = key.replace(".running_var", ".num_batches_tracked")
        state_dict[counter] = np.zeros((), np.int64)


def _hint(weights: Mapping[str, Any], model: DiffuPoseGCN | ModulatedGCN) -> str:
    """Says which attributes of the model the weights contradict, where that can be told."""
    found = {
        "joints": np.shape(weights.get("gconv_output.adj2", ()))[:1],
        "width": np.shape(weights.get("gconv_output.W", ()))[1:2],
    }
    expected = {"joints": model.skeleton.num_joints, "width": model.width}
    clashes = [n for n, size in found.items() if size and size[0] != expected[n]]
    hints = [f"{n}: {found[n][0]} in the weights, {expected[n]} in the model" for n in clashes]
    if "joints" in clashes:
        hints.append(_skeleton_hint(found["joints"][0], model.skeleton))
    return "; ".join(hints)


def _skeleton_hint(joints: int, skeleton: Skeleton) -> str:
    fitting = [name for name, s in SKELETONS.items() if s.num_joints == joints]
    return f"the model's skeleton is {skeleton.name!r}; with {joints} joints there are {fitting}"
