"""Parity with the released DiffuPose and Modulated-GCN code."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.calibration import make_camera
from posediff_jax.camera import (
    camera_from_vector,
    camera_to_world,
    project,
    to_screen,
    world_to_camera,
)
from posediff_jax.data.official import official_epoch
from posediff_jax.denoisers.diffupose import TimeStepBlock
from posediff_jax.denoisers.graph import (
    GraphConv,
    ModulatedGraphConv,
    NonLocalBlock,
    ResidualBlock,
    row_normalised_adjacency,
)
from posediff_jax.denoisers.layers import sinusoid
from posediff_jax.denoisers.modgcn import ModulatedGCN
from posediff_jax.evaluation.metrics import mpjpe, mpjve, n_mpjpe, p_mpjpe
from posediff_jax.evaluation.protocols import diffupose_official, n_mpjpe_per_axis
from posediff_jax.geometry import flip
from posediff_jax.interop import load_modgcn
from posediff_jax.interop.diffupose import (
    graph_conv_entries,
    non_local_entries,
    residual_entries,
)
from posediff_jax.interop.state_dict import Entry, linear_entries, load_state_dict
from posediff_jax.process.schedules import (
    Schedule,
    make_schedule,
    posterior_mean,
    x0_from_eps,
)
from posediff_jax.samplers.aggregate import mean_pose
from posediff_jax.samplers.discrete import ddim_times, sample_ddim, sample_ddpm
from posediff_jax.systems.diffupose import joint_weights
from posediff_jax.training.ema import ema_decay, make_ema, update_ema
from tests.parity_checks.diffupose_common import (
    BY_JOINTS,
    Outputs,
    bind,
    build_denoiser,
    build_schedule,
    check_assumptions,
    skeleton_of,
)
from tests.parity_checks.diffupose_training import loss
from tests.parity_checks.fixture import CHAIN, Check, Fixture, widen


def schedules(fixture: Fixture) -> Outputs:
    pattern = re.compile(r"out_(?P<name>[a-z]+)_T(?P<T>\d+)_(?P<table>\w+?)(?P<f32>_f32)?$")
    ours: dict[str, ArrayLike] = {}
    for output in fixture.outputs:
        match = pattern.fullmatch(output)
        if match is None:
            continue
        T, dtype = int(match["T"]), np.float32 if match["f32"] else np.float64
        if match["table"] == "p2_loss_weight":
            # gamma = 0: the loss has no such weight here.
            ours[output] = np.ones(T, dtype)
        else:
            ours[output] = getattr(make_schedule(match["name"], T, dtype=dtype), match["table"])
    return ours


def graph(fixture: Fixture) -> Outputs:
    ours: dict[str, ArrayLike] = {}
    for joints in sorted({int(m[1]) for n in fixture.arrays if (m := re.search(r"_(\d+)", n))}):
        parents = fixture.arrays.get(f"in_parents_{joints}")
        skeleton = skeleton_of(joints, parents)
        A = row_normalised_adjacency(skeleton)
        ours[f"out_adj_{joints}"] = A
        ours[f"out_adj_sym_{joints}"] = (A + A.T) / 2
        if joints in BY_JOINTS:
            weights = joint_weights("diffupose", BY_JOINTS[joints])
            ours[f"out_w_{joints}"] = ours[f"out_w_{joints}_intended"] = weights
    return ours


def layers(fixture: Fixture) -> Outputs:
    config, weights = fixture.config, fixture.weights()
    skeleton = skeleton_of(config["n_joints"], fixture.meta.get("parents"))
    width = config["cout"]

    def conv() -> ModulatedGraphConv:
        return ModulatedGraphConv(width, skeleton=skeleton)

    def run(prefix: str, module: Any, entries: list[Entry], *inputs: ArrayLike) -> ArrayLike:
        own = {k: v for k, v in weights.items() if k.startswith(f"{prefix}.")}
        template = jax.eval_shape(module.init, jax.random.key(0), *inputs)
        counter = ".num_batches_tracked"
        variables = load_state_dict(
            own, entries, template, ignored=lambda key: key.endswith(counter)
        )
        return module.apply(widen(variables), *inputs)

    x, h = jnp.asarray(fixture["in_x"]), jnp.asarray(fixture["in_h"])
    temb = jnp.asarray(fixture["in_temb"])
    block = ResidualBlock(GraphConv(conv()), GraphConv(conv()))
    return {
        "out_gconv": run("gconv", conv(), graph_conv_entries("gconv", ()), x),
        "out_tstep": run(
            "tstep", TimeStepBlock(), linear_entries("tstep.mlp.1", ("mlp",)), h, temb
        ),
        "out_nonlocal": run("nl2d", NonLocalBlock(), non_local_entries("nl2d", ()), h),
        "out_res": run("res", block, residual_entries("res", ()), h),
        "out_sinusoid": sinusoid(jnp.asarray(fixture["in_t"]), width),
        "out_sinusoid_f32": sinusoid(jnp.asarray(fixture["in_t"]), width),
    }


def denoiser(fixture: Fixture) -> Outputs:
    model, variables = build_denoiser(fixture)
    t = jnp.asarray(fixture["in_t"])
    inputs = fixture["in_cond_2d"], fixture["in_x_t"], t[:, None]
    run = jax.jit(lambda v, *x: model.apply(v, *x, capture_intermediates=True))
    output, state = run(variables, *map(jnp.asarray, inputs))
    inner = {k: v["__call__"][0] for k, v in state["intermediates"].items() if k != "__call__"}
    ours = {
        "out_pred": output,
        "out_mid_sinusoid": sinusoid(t, model.width // 8),
        "out_mid_time_emb": inner["time_mlp"][:, 0],
        "out_mid_gconv_input": inner["gconv_input"][:, 0],
        "out_mid_block1": inner["block1"][:, 0],
        "out_mid_non_local": inner["attention"][:, 0],
        "out_mid_block2": inner["block2"][:, 0],
    }
    for i in range(model.num_blocks):
        ours[f"out_mid_res{i}"] = inner[f"gconv_layers_{i}"][:, 0]
    return ours


def ddpm(fixture: Fixture) -> Outputs:
    model, variables = build_denoiser(fixture)
    schedule, cond = build_schedule(fixture.config), jnp.asarray(fixture["in_cond_2d"])
    predict = bind(fixture, model, variables, cond, schedule)
    x_init, noise = (jnp.asarray(fixture[n]) for n in ("in_noise_init", "in_noise_steps"))
    result = run_ddpm(predict, x_init, noise, schedule)
    ours = {"out_final": result.samples, "out_traj": result.trajectory}
    if "in_single_t" in fixture.arrays:
        ours |= single_steps(fixture, model, variables, cond)
    return ours


def single_steps(fixture: Fixture, model: Any, variables: Any, cond: Any) -> Outputs:
    """One reverse step at each of some timesteps, by the sampler itself."""
    # Only the notes say which schedule these have.
    note = re.search(r"with the T=(\d+) (cosine|linear) schedule", fixture.meta.get("notes", ""))
    name, steps = (note[2], int(note[1])) if note else (fixture.config["beta_schedule"], 100)
    schedule = build_schedule({**fixture.config, "beta_schedule": name}, steps)
    predict = bind(fixture, model, variables, cond, schedule)
    x_t, noise = (jnp.asarray(fixture[n]) for n in ("in_single_x_t", "in_single_noise"))

    @jax.jit
    def one(t: Any, before: int, tables: Schedule) -> Any:
        # The sampler on two rows of the tables, of which the first step is row t.
        result = sample_ddpm(
            jax.random.key(0),
            lambda x, i: predict(x, t - before + i),
            x_t,
            schedule=tables,
            noise=jnp.broadcast_to(noise, (tables.num_timesteps, *noise.shape)),
            return_trajectory=True,
        )
        return result.trajectory[0]

    ours: dict[str, list] = {"x_prev": [], "mean": [], "x0_unclipped": []}
    for t in fixture["in_single_t"]:
        before = min(int(t), 1)
        rows = jax.tree.map(lambda table, t=t, b=before: table[t - b : t + 1], schedule)
        ours["x_prev"].append(one(jnp.asarray(t), before, rows))
        x0, eps, _ = jax.jit(predict)(x_t, jnp.asarray(t))
        ours["mean"].append(posterior_mean(schedule, x0, x_t, t))
        ours["x0_unclipped"].append(x0_from_eps(schedule, x_t, t, eps))
    return {f"out_single_{name}": jnp.stack(values) for name, values in ours.items()}


def ddim(fixture: Fixture) -> Outputs:
    model, variables = build_denoiser(fixture)
    schedule, cond = build_schedule(fixture.config), jnp.asarray(fixture["in_cond_2d"])
    # These fixtures are not the authors': all their coefficients come from the rounded abar.
    abar = schedule.alphas_cumprod
    schedule = schedule.replace(
        sqrt_recip_alphas_cumprod=np.sqrt(1 / abar),
        sqrt_recipm1_alphas_cumprod=np.sqrt(1 / abar - 1),
    )
    predict = bind(fixture, model, variables, cond, schedule)
    x_init = jnp.asarray(fixture["in_noise_init"])
    eta = fixture.config.get("eta", 0.0)
    ours: dict[str, ArrayLike] = {}
    for output in fixture.outputs:
        match = re.fullmatch(r"out_(times|traj|final)_S(\d+)(?:_rederive([01]))?", output)
        if match is None:
            continue
        steps = int(match[2])
        if match[1] == "times":
            ours[output] = ddim_times(schedule.num_timesteps, steps)
            continue
        result = sample_ddim(
            jax.random.key(0),
            predict,
            x_init,
            schedule=schedule,
            num_steps=steps,
            eta=eta,
            rederive=match[3] != "0",
            noise=jnp.asarray(fixture[f"in_noise_steps_S{steps}"]) if eta else None,
            return_trajectory=True,
        )
        ours[output] = result.trajectory if match[1] == "traj" else result.samples
    return ours


def protocol(fixture: Fixture) -> Outputs:
    model, variables = build_denoiser(fixture)
    schedule, skeleton = build_schedule(fixture.config), model.skeleton
    cond, truth = (jnp.asarray(fixture[n]) for n in ("in_2d", "in_3d_with_traj"))
    inits, steps = (jnp.asarray(fixture[n]) for n in ("in_noise_init", "in_noise_steps"))

    @jax.jit
    def chain(condition: Any, x_init: Any, noise: Any) -> Any:
        predict = bind(fixture, model, variables, condition[:, None], schedule)
        return run_ddpm(predict, x_init, noise, schedule).samples

    samples = []
    for init, noise in zip(inits, steps, strict=True):
        samples.append(chain(cond, init[0], noise[0]))
        samples.append(flip(chain(flip(cond, skeleton), init[1], noise[1]), skeleton))
    raw = mean_pose(jnp.stack(samples, axis=1))[:, 0]
    # Joint 0 holds the trajectory, the others are relative to it.
    target = truth.at[:, 0].set(0.0)
    vector = jnp.asarray(fixture["in_cam_intrinsic"])
    official = diffupose_official(raw, cond, truth[:, 0, 2], vector)
    ours: dict[str, ArrayLike] = {
        "out_all_samples": jnp.stack(samples, axis=1),
        "out_pred_mean": raw[:, None],
        "out_pred_after_post": official[:, None],
        "out_backproj_xyz": official.at[:, 0, 2].set(0.0)[:, None],
        "out_sample_mode_half_mix": ((raw + official) / 2)[:, None],
        "out_nmpjpe_raw_3d": jnp.mean(n_mpjpe(raw, target)),
        "out_nmpjpe_raw_official4d": jnp.mean(n_mpjpe_per_axis(raw, target)),
        "out_nmpjpe_official": jnp.mean(n_mpjpe_per_axis(official, target)),
    }
    for name, pose in (("raw", raw), ("official", official)):
        ours[f"out_mpjpe_{name}"] = jnp.mean(mpjpe(pose, target))
        ours[f"out_pmpjpe_{name}"] = jnp.mean(p_mpjpe(pose, target))
        ours[f"out_mpjve_{name}"] = mpjve(pose, target)
    return ours


def data(fixture: Fixture) -> Outputs:
    config, arrays = fixture.config, fixture.arrays
    ours: dict[str, ArrayLike] = {}
    if "in_seq2d_0" in arrays:
        count = sum(name.startswith("in_seq2d_") for name in arrays)
        skeleton = skeleton_of(arrays["in_seq2d_0"].shape[1])
        sides = {"joints_left": list(skeleton.left), "joints_right": list(skeleton.right)}
        check_assumptions(config, sides | {"chunk_length": 1})
        epoch = official_epoch(
            *(
                [fixture[f"in_{part}_{i}"] for i in range(count)]
                for part in ("seq2d", "seq3d", "cam")
            ),
            skeleton,
            seed=config.get("shuffle_seed", 1234),
            augment=config.get("augment", True),
        )
        ours |= zip(("out_epoch_2d", "out_epoch_3d", "out_epoch_cam"), epoch, strict=True)
        starts = np.arange(0, len(epoch[0]), config["batch_size"])
        ours["out_batch_sizes"] = np.diff([*starts, len(epoch[0])])
    if "in_q" in arrays:
        camera = make_camera(
            1.0, (0.0, 0.0), (2, 2), orientation=fixture["in_q"], position=fixture["in_t"]
        )
        ours["out_cam"] = world_to_camera(camera, jnp.asarray(fixture["in_world"]))
        ours["out_world_back"] = camera_to_world(camera, ours["out_cam"])
    for output in fixture.outputs:
        if match := re.fullmatch(r"out_norm_(\d+)x(\d+)", output):
            size = int(match[1]), int(match[2])
            ours[output] = to_screen(jnp.asarray(fixture["in_px"]), size)
    if "in_camvec" in arrays:
        # Screen units are the pixels of an image of 2 x 2, moved by 1.
        camera = camera_from_vector(jnp.asarray(fixture["in_camvec"])[0], (2, 2))
        pixels = project(camera, jnp.asarray(fixture["in_pts_cam"]), clamp=1.0)
        ours["out_proj"] = to_screen(pixels, (2, 2))
    return ours


def ema(fixture: Fixture) -> Outputs:
    """The online weights are sin(0.01 i) and cos(0.013 i), as `notes` says."""
    options = make_ema(fixture.config)
    assert options is not None
    calls = jnp.arange(max(len(a) for a in fixture.outputs.values()))
    online = {"w": jnp.sin(0.01 * calls), "b": jnp.cos(0.013 * calls)}

    def step(average: Any, inputs: Any) -> tuple[Any, Any]:
        i, weights = inputs
        average = update_ema(average, weights, i, options)
        return average, average

    first = jax.tree.map(lambda a: a[0], online)
    _, trace = jax.lax.scan(step, first, (calls, online))
    return {
        "out_ema_w": trace["w"],
        "out_ema_b": trace["b"],
        "out_decay": ema_decay(calls, options),
    }


def modgcn(fixture: Fixture, *, non_local: bool = False) -> Outputs:
    config = fixture.config
    check_assumptions(config, {"coords_dim": [2, 3], "bn_eps": 1e-5})
    groups = config.get("nodes_group")
    model = ModulatedGCN(
        skeleton_of(config["n_joints"], fixture.meta.get("parents")),
        width=config["hid_dim"],
        num_blocks=config["num_layers"],
        non_local=non_local,
        groups=None if groups is None else tuple(tuple(g) for g in groups),
    )
    variables = widen(load_modgcn(fixture.weights(), model))
    return {"out_3d": jax.jit(model.apply)(variables, jnp.asarray(fixture["in_2d"]))}


def run_ddpm(predict: Any, x_init: Any, noise: Any, schedule: Schedule) -> Any:
    return sample_ddpm(
        jax.random.key(0),
        predict,
        x_init,
        schedule=schedule,
        noise=noise,
        return_trajectory=True,
    )


CHECKS: dict[str, Check] = {
    "schedule": Check(schedules),
    "graph": Check(graph),
    "layer": Check(layers),
    "denoiser": Check(denoiser),
    "loss": Check(loss),
    "ddpm": Check(ddpm, CHAIN),
    "ddim": Check(ddim, CHAIN),
    "protocol": Check(protocol, CHAIN),
    "data": Check(data),
    "ema": Check(ema),
    "modgcn": Check(modgcn),
    "modgcn_benchmark": Check(partial(modgcn, non_local=True)),
}
