"""Parity of the networks and parts of the released DiffHPE code."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.denoisers.diffhpe import (
    DiffHPEBlock,
    joint_groups,
    step_frequencies,
    step_table,
)
from posediff_jax.denoisers.grouped import GroupedNonLocalBlock, pooled_joints
from posediff_jax.denoisers.joint_graph import (
    CHANNELS,
    FRAMES,
    JointGraphLayer,
    PreAggregatedConv,
)
from posediff_jax.denoisers.layers import Dense
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.interop import load_mixste
from posediff_jax.interop.diffhpe import block_entries, joint_layer_entries
from posediff_jax.interop.diffupose import grouped_entries
from posediff_jax.interop.state_dict import Entry, linear_entries, load_state_dict
from posediff_jax.systems import diffhpe as system
from posediff_jax.systems import mixste as supervised
from tests.parity_checks.diffhpe_common import build, check_adjacency, ours, theirs, turned
from tests.parity_checks.diffhpe_runs import loss, sampling
from tests.parity_checks.diffupose_common import Outputs, check_assumptions, skeleton_of
from tests.parity_checks.fixture import CHAIN, Check, Fixture, widen


def schedules(fixture: Fixture) -> Outputs:
    found: dict[str, ArrayLike] = {}
    for combo in fixture.meta["combos"]:
        options = system.ProcessOptions(
            schedule=combo["schedule"],
            num_timesteps=combo["num_steps"],
            beta_start=combo["beta_start"],
            beta_end=combo["beta_end"],
        )
        tables = system.diffhpe_schedule(options, dtype=np.float64)
        values = {
            "beta": tables.betas,
            "alpha": 1 - tables.betas,
            "alpha_bar": tables.alphas_cumprod,
            "sigma": np.sqrt(tables.posterior_variance[1:]),
        }
        found |= {f"out_{combo['index']}_{name}": value for name, value in values.items()}
    return found


def step_embedding(fixture: Fixture) -> Outputs:
    steps, width = fixture.config["num_steps"], fixture.config["embedding_dim"]
    entries = linear_entries("projection1", ("0",)) + linear_entries("projection2", ("1",))
    template = {"params": {n: _shapes(Dense(width), (1, width))["params"] for n in "01"}}
    params = widen(load_state_dict(fixture.weights(), entries, template))["params"]
    # The projection is compared on the authors' own table.
    h = jnp.asarray(fixture["out_table"])[fixture["in_steps"]]
    for name in "01":
        h = jax.nn.silu(Dense(width).apply({"params": params[name]}, h))
    found = {"out_table": step_table(steps, width), "out_freqs": step_frequencies(width)}
    return {**found, "out_projected": h}


def graph_convolution(fixture: Fixture) -> Outputs:
    config = fixture.config
    skeleton, x = skeleton_of(config["joints"]), fixture["in_x"].astype(float)
    check_adjacency(fixture, skeleton)
    rows = jnp.asarray(x.swapaxes(0, 1)[:, None])
    found: dict[str, ArrayLike] = {}
    for name in ("decoupled", "plain"):
        conv = PreAggregatedConv(config["out_features"], skeleton, decoupled=name == "decoupled")
        entries = [Entry(f"gconv.{n}", ("params", n)) for n in ("W", "bias")]
        variables = _load(fixture.weights(f"conv_{name}"), entries, conv, rows.shape)
        found[f"out_{name}"] = jnp.swapaxes(conv.apply(variables, rows)[:, 0], 0, 1)
    layer = JointGraphLayer(skeleton, CHANNELS)
    weights = {f"layer.{k}": v for k, v in fixture.weights("layer").items()}
    variables = _load(weights, joint_layer_entries("layer", ()), layer, rows.shape)
    trained, moved = layer.apply(variables, rows, train=True, mutable=["batch_stats"])
    stats = moved["batch_stats"]["bn"]
    found |= {
        "out_layer_eval": jnp.swapaxes(layer.apply(variables, rows)[:, 0], 0, 1),
        "out_layer_train": jnp.swapaxes(trained[:, 0], 0, 1),
        "out_layer_train_running_mean": stats["mean"],
        "out_layer_train_running_var": stats["var"],
    }
    columns = jnp.transpose(jnp.asarray(fixture["in_xt"], float), (1, 2, 0))[..., None]
    layer = JointGraphLayer(skeleton, FRAMES)
    entries = joint_layer_entries("time_layer", ())
    variables = _load(fixture.weights("time_layer"), entries, layer, columns.shape)
    y = layer.apply(variables, columns)[..., 0]
    return found | {"out_time_layer_eval": jnp.transpose(y, (2, 0, 1))}


def non_local(fixture: Fixture) -> Outputs:
    config = fixture.config
    groups = tuple(map(tuple, config["groups"]))
    derived = {"inter_channels": config["channels"] // 2, "sub_sample": len(groups[0])}
    check_assumptions(config, derived)
    x = jnp.asarray(fixture["in_x"], float)
    order = np.concatenate(groups)
    if not np.array_equal(fixture["in_grouped_order"], order):
        raise ValueError("in_grouped_order: not that of config.groups")
    block = GroupedNonLocalBlock(groups)
    variables = _load(fixture.weights(), grouped_entries("non_local", ()), block, x.shape)
    evaluated, state = block.apply(variables, x, capture_intermediates=True)
    trained, moved = block.apply(variables, x, train=True, mutable=["batch_stats"])
    found = {"out_eval": evaluated, "out_train": trained}
    for name in ("phi", "g"):
        rows = state["intermediates"][name]["__call__"][0]
        pooled = [rows[np.array(pool)].max(axis=0) for pool in pooled_joints(groups, "official")]
        found[f"out_{name}"] = jnp.stack(pooled, axis=-1)
    stats = moved["batch_stats"]["bn"]
    return found | {"out_running_mean": stats["mean"], "out_running_var": stats["var"]}


def residual_block(fixture: Fixture) -> Outputs:
    config = fixture.config
    skeleton = skeleton_of(config["joints"])
    check_adjacency(fixture, skeleton)
    groups = joint_groups(skeleton, None) if config["use_nonlocal"] else None
    over_frames = config["seq_len"] > 1
    block = DiffHPEBlock(skeleton, config["channels"], groups, over_frames=over_frames)
    x, embedding = turned(fixture["in_x"]), jnp.asarray(fixture["in_emb"], float)

    template = jax.eval_shape(block.init, jax.random.key(0), x, embedding)
    weights = {f"block.{k}": v for k, v in fixture.weights().items()}
    entries = block_entries("block", (), over_frames=over_frames, non_local=groups is not None)
    variables = widen(load_state_dict(weights, entries, template, ignored=_is_counter))
    (y, skip), state = block.apply(variables, x, embedding, capture_intermediates=True)
    inner = state["intermediates"]
    return {
        "out_y": turned(y),
        "out_skip": turned(skip),
        **{
            f"out_after_{name}": turned(inner[f"{name}_layer"]["__call__"][0])
            for name in ("time", "feature")
            if f"{name}_layer" in inner
        },
    }


def denoiser(fixture: Fixture) -> Outputs:
    model, variables = build(fixture)
    keypoints, x_t = ours(fixture, "pose_2d"), ours(fixture, "noisy_3d")
    kept = partial(model.apply, capture_intermediates=lambda _, name: name in ("__call__", "run"))
    run = jax.jit(kept)
    output, state = run(variables, keypoints, x_t, jnp.asarray(fixture["in_t"]))
    inner = state["intermediates"]
    condition, pose = keypoints, x_t
    if model.lifter is not None:
        condition = inner["lifter"]["trunk"]["__call__"][0]
    if model.encode_pose:
        pose = inner["pose_encoder"]["__call__"][0]
    both = [pose + condition] if model.mix == "sum" else [pose, condition]
    found = {
        "out_predicted_noise": theirs(output),
        "out_features_2d": theirs(condition),
        "out_total_input": theirs(jnp.concatenate(both, axis=-1)),
        "out_embedding": jax.nn.silu(inner["step_out"]["__call__"][0]),
    }
    for i in range(model.num_blocks):
        x, share = inner[f"blocks_{i}"]["run"][0]
        found |= {f"out_block{i}_x": turned(x), f"out_block{i}_skip": turned(share)}
    return found


def mixste(fixture: Fixture) -> Outputs:
    config = fixture.config
    check_assumptions(config, {"qkv_bias": True})
    skeleton = skeleton_of(config["joints"])
    model = MixSTE(
        skeleton,
        num_frames=config["seq_len"],
        width=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        drop_path=0.0,
    )
    variables = widen(load_mixste(fixture.weights(), model))
    keypoints, pose = ours(fixture, "pose_2d"), ours(fixture, "pose_3d")
    lifted = jax.jit(model.apply)(variables, keypoints)
    features = jax.jit(partial(model.apply, method="features"))(variables, keypoints)
    options = supervised.LossOptions(
        joint_weights="uniform", position="squared", smoothness_weight=0.0, velocity_weight=0.0
    )
    weights = supervised.joint_weights(options.joint_weights, skeleton)
    terms = supervised.loss_terms(lifted, pose, weights, position=options.position)
    value = supervised.total_loss({k: jnp.mean(v) for k, v in terms.items()}, options)
    return {"out_features": theirs(features), "out_pose3d": theirs(lifted), "out_loss": value}


def _load(
    weights: Mapping[str, Any], entries: Sequence[Entry], module: Any, shape: tuple[int, ...]
) -> Any:
    template = _shapes(module, shape)
    return widen(load_state_dict(weights, entries, template, ignored=_is_counter))


def _shapes(module: Any, shape: tuple[int, ...]) -> Any:
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


CHECKS: dict[str, Check] = {
    "schedules": Check(schedules),
    # Stored in float32, from float32.
    "step_embedding": Check(step_embedding, single=("out_table", "out_freqs")),
    "gconv": Check(graph_convolution),
    "nonlocal": Check(non_local),
    "resblock": Check(residual_block),
    "denoiser": Check(denoiser),
    "mixste": Check(mixste),
    "loss": Check(loss),
    "sampling": Check(sampling, CHAIN),
}
# Networks of the repository that its paper does not use.
EXCLUDED: dict[str, str] = {
    "extra_csdi": "the forecasting transformer is no part of DiffHPE's lifting systems",
    "extra_diffmixste": "the alternative denoiser arch=mixste is not used in the paper",
}
