"""Parity of the networks and parts of the released DDHPose, D3DP and MixSTE code."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.denoisers.hierarchy import child_means, edit_logits
from posediff_jax.denoisers.mixste import D3DPDenoiser, MixSTE, sinusoid_table
from posediff_jax.interop.ddhpose import load_mixste
from posediff_jax.process.bones import Bones, bone_tree, compose, disentangle, to_slots
from posediff_jax.process.schedules import cosine_schedule
from posediff_jax.samplers.discrete import _ddim_coefficients, ddim_times
from tests.parity_checks.ddhpose_common import SKELETONS, build_ddhpose, check_fixed, size_of
from tests.parity_checks.ddhpose_data import camera, cameras, chunks
from tests.parity_checks.ddhpose_metrics import aggregate, aggregate_3dhp, metrics, pck_3dhp
from tests.parity_checks.ddhpose_runs import (
    d3dp_sampler,
    d3dp_training,
    ddhpose_sampler,
    ddhpose_training,
)
from tests.parity_checks.diffupose_common import Outputs
from tests.parity_checks.fixture import CHAIN, Check, Fixture, widen


def mixste(fixture: Fixture) -> Outputs:
    check_fixed(fixture.config)
    model = MixSTE(SKELETONS["h36m"], **size_of(fixture.config), drop_path=0.0)
    variables = widen(load_mixste(fixture.weights(), model))
    inner, pose = with_first_layer(model, variables, jnp.asarray(fixture["in_x2d"]))
    return {"out_pose": pose} | {
        # Rows are b * 17 + joint.
        f"out_after_{axis}0": jnp.swapaxes(value, 1, 2).reshape(-1, *value.shape[1::2])
        for axis, value in inner.items()
    }


def with_first_layer(model: Any, variables: Any, *inputs: Any) -> tuple[Mapping[str, Any], Any]:
    """The first outputs of the two shared norms, and the output."""
    run = jax.jit(lambda v, *x: model.apply(v, *x, capture_intermediates=True))
    output, state = run(variables, *inputs)
    trunk = state["intermediates"]["trunk"]
    return {a: trunk[f"{a}_norm"]["__call__"][0] for a in ("spatial", "temporal")}, output


def d3dp_denoiser(fixture: Fixture) -> Outputs:
    check_fixed(fixture.config)
    model = D3DPDenoiser(SKELETONS["h36m"], **size_of(fixture.config), drop_path=0.0)
    variables = widen(load_mixste(fixture.weights(), model))
    keypoints, x_t, t = (jnp.asarray(fixture[f"in_{n}"]) for n in ("x2d", "x3d", "t"))
    return {"out_pose": jax.jit(model.apply)(variables, keypoints[:, None], x_t, t[:, None])}


def disentangled(fixture: Fixture) -> Outputs:
    ours: dict[str, ArrayLike] = {}
    for name, skeleton in SKELETONS.items():
        tree, pose = bone_tree(skeleton), jnp.asarray(fixture[f"in_pose_{name}"], float)
        bones = disentangle(pose, tree)
        slots = to_slots(bones, tree)
        ours |= {
            f"out_bones_{name}": [(parent, child) for child, parent in tree.bones],
            f"out_composed_{name}": compose(bones, tree),
        }
        for short, field in (("dir", "directions"), ("len", "lengths")):
            ours[f"out_{short}_{name}"] = getattr(bones, field)
            ours[f"out_{short}17_{name}"] = getattr(slots, field)
    return ours


def schedule(fixture: Fixture) -> Outputs:
    config = fixture.config
    steps = config["timesteps"]
    tables = cosine_schedule(steps, offset=config["s"], dtype=np.float64)
    ours: dict[str, ArrayLike] = {f"out_{k}": v for k, v in vars(tables).items()}
    for W in config["W"]:
        times = ddim_times(steps, W)
        _, c, sigma = _ddim_coefficients(tables, times, 1.0)
        # The last step, to the clean end, has neither.
        ours |= {f"out_times_W{W}": times, f"out_sigma_W{W}": sigma[:-1], f"out_c_W{W}": c[:-1]}
    ours["out_sin"] = sinusoid_table(steps, config["dim"])[fixture["in_t"]]
    return ours


def hrst(fixture: Fixture) -> Outputs:
    ours: dict[str, ArrayLike] = {}
    for name, skeleton in SKELETONS.items():
        tree = bone_tree(skeleton)
        logits = edit_logits(jnp.asarray(fixture["in_logits"], float), tree)
        ours[f"out_logits_{name}"] = logits
        ours[f"out_weights_{name}"] = jax.nn.softmax(logits, axis=-1)
        chains, longest = sorted(tree.chains), max(map(len, tree.chains))
        ours[f"out_bone_chains_{name}"] = [(*c, *[-1] * (longest - len(c))) for c in chains]
    return ours


def denoiser(fixture: Fixture) -> Outputs:
    model, variables = build_ddhpose(fixture)
    keypoints, t = jnp.asarray(fixture["in_x2d"])[:, None], jnp.asarray(fixture["in_t"])[:, None]
    slots = Bones(*(jnp.asarray(fixture[f"in_{n}"]) for n in ("dir", "len")))
    inner, pose = with_first_layer(model, variables, keypoints, slots, t)
    rows = model.apply(variables, t, method="embed_times")
    encoded = model.apply(variables, keypoints, method="encode")
    tokens = model.apply(variables, encoded, slots, rows, method="tokens")
    as_the_paper_means = model.clone(child_layout="joint")
    first = inner["temporal"].reshape(-1, *inner["temporal"].shape[2:])
    return {
        "out_pose": pose,
        "out_pose_child_in_joint_order": jax.jit(as_the_paper_means.apply)(
            variables, keypoints, slots, t
        ),
        "out_time_embed": rows[:, 0],
        "out_tokens0": tokens.reshape(-1, *tokens.shape[3:]),
        "out_layer0": first,
        "out_child_mean": child_means(first, bone_tree(model.skeleton)),
    }


CHECKS: dict[str, Check] = {
    "aggregate": Check(aggregate),
    "aggregate3dhp": Check(aggregate_3dhp),
    "metrics": Check(metrics),
    "pck": Check(pck_3dhp),
    "camera": Check(camera),
    "chunks": Check(chunks),
    # Stored in float32, from float32.
    "h36m_cameras": Check(cameras, single=("out_intrinsic_normalised",)),
    "sampler": Check(ddhpose_sampler, CHAIN),
    "d3dp_sampler": Check(d3dp_sampler, CHAIN),
    "train": Check(ddhpose_training),
    "train_d3dp": Check(d3dp_training),
    # The intermediates are those of the authors' float32 run.
    "mixste": Check(mixste, single=("out_after_spatial0", "out_after_temporal0")),
    "d3dp_denoiser": Check(d3dp_denoiser),
    "disentangle": Check(disentangled),
    "schedule": Check(schedule),
    "hrst": Check(hrst),
    "denoiser": Check(denoiser, single=("out_tokens0", "out_layer0", "out_child_mean")),
}
