"""Parity of the sampling chains and of the training steps of DDHPose and D3DP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from posediff_jax.denoisers.mixste import D3DPDenoiser
from posediff_jax.interop.ddhpose import dump_ddhpose, dump_mixste, load_mixste, released_sampler
from posediff_jax.process.bones import Bones, bone_tree, from_slots, to_slots
from posediff_jax.process.schedules import Schedule, cosine_schedule, q_sample
from posediff_jax.samplers.discrete import ddim_times
from posediff_jax.systems import d3dp, ddhpose, windows
from posediff_jax.training.optimizers import make_optimizer
from tests.parity_checks.ddhpose_common import SKELETONS, build_ddhpose, check_fixed, size_of
from tests.parity_checks.diffupose_common import Outputs
from tests.parity_checks.fixture import Fixture, widen

CLIP = 1.1


def build_d3dp(fixture: Fixture) -> tuple[D3DPDenoiser, dict[str, Any]]:
    """D3DP's denoiser that `config` describes, and its imported weights in float64."""
    check_fixed(fixture.config)
    model = D3DPDenoiser(SKELETONS["h36m"], **size_of(fixture.config), drop_path=0.0)
    return model, widen(load_mixste(fixture.weights(), model))


def tables(fixture: Fixture) -> Schedule:
    return cosine_schedule(fixture.config["timesteps"], dtype=np.float64)


def array(fixture: Fixture, name: str) -> Any:
    return jnp.asarray(fixture[f"in_{name}"], float)


def padded(noise: Any) -> Any:
    """Noise is given for the transitions; the last step, to the clean end, takes none."""
    return jnp.concatenate([noise, jnp.zeros_like(noise, shape=(1, *noise.shape[1:]))])


def run_chain(
    fixture: Fixture, model: Any, variables: Any, bind: Callable, x_init: Any, noise: Any
) -> tuple[Any, Any, Any]:
    """Timesteps, states before each call (W, B, H, ...), poses (B, W, H, ...)."""
    schedule, W = tables(fixture), fixture.config["iterations"]
    times = ddim_times(schedule.num_timesteps, W)[:-1]
    pair = jnp.stack([array(fixture, "x2d"), array(fixture, "x2d_flip")])[:, :, None]

    @jax.jit
    def chain(variables: Any, x_init: Any, noise: Any) -> Any:
        encoded = model.apply(variables, pair, method="encode")
        predict = bind(model, variables, encoded, schedule=schedule, times=times, clip=CLIP)
        return windows.run_ddim(
            jax.random.key(0),
            predict,
            x_init,
            schedule=schedule,
            num_steps=W,
            eta=fixture.config["eta"],
            noise=noise,
            return_trajectory=True,
        )

    result = chain(variables, x_init, noise)
    states = jax.tree.map(
        lambda x, later: jnp.concatenate([x[None], later[:-1]]), x_init, result.trajectory
    )
    return times, states, jnp.swapaxes(result.records, 0, 1)


def d3dp_sampler(fixture: Fixture) -> Outputs:
    model, variables = build_d3dp(fixture)
    x_init, noise = array(fixture, "noise_init"), padded(array(fixture, "noise_step"))
    times, states, poses = run_chain(fixture, model, variables, d3dp.bind_predict, x_init, noise)
    return {"out_times": times, "out_state": states, "out_poses": poses}


def ddhpose_sampler(fixture: Fixture) -> Outputs:
    model, variables = build_ddhpose(fixture)
    tree = bone_tree(model.skeleton)
    slots = Bones(*(array(fixture, f"noise_{n}_init") for n in ("dir", "len")))
    root = jax.tree.map(lambda x: x[..., tree.root, None, :], slots)
    noise = Bones(*(padded(array(fixture, f"noise_{n}_step")) for n in ("dir", "len")))

    slot_rule = released_sampler(model)["noise_slots"]

    def bind(model: Any, variables: Any, encoded: Any, **options: Any) -> Any:
        return ddhpose.bind_predict(
            model, variables, encoded, root, noise_slots=slot_rule, **options
        )

    x_init = from_slots(slots, tree)
    times, states, poses = run_chain(fixture, model, variables, bind, x_init, noise)
    roots = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(times), *x.shape)), root)
    seen = to_slots(states, tree, root=roots)
    unit = 1000.0 if fixture.config["skeleton"] == "3dhp" else 1.0
    return {
        "out_times": times,
        "out_state_dir": seen.directions,
        "out_state_len": seen.lengths,
        "out_poses": poses * unit,
    }


def d3dp_training(fixture: Fixture) -> Outputs:
    model, variables = build_d3dp(fixture)
    schedule = tables(fixture)

    def evaluate(params: Any, step: int) -> tuple[Any, Any]:
        keypoints, pose, noise = (array(fixture, n)[step] for n in ("x2d", "y3d", "noise_pose"))
        t = jnp.asarray(fixture["in_t"])[step]
        x_t = jnp.clip(q_sample(schedule, pose, t, noise), -CLIP, CLIP)
        output = model.apply({"params": params}, keypoints, x_t, t)
        terms = {"pos": jnp.mean(windows.joint_distance(output, pose))}
        return terms["pos"], (terms, {"noisy_pose": x_t, "pred": output})

    return train(fixture, variables["params"], evaluate, lambda tree: dump_mixste(tree, model))


def ddhpose_training(fixture: Fixture) -> Outputs:
    model, variables = build_ddhpose(fixture)
    schedule, tree = tables(fixture), bone_tree(model.skeleton)
    unit = {"m": 1.0, "mm": 1000.0}[fixture.config["units"]]
    weights = fixture.config["loss_weights"]
    options = ddhpose.LossOptions(
        length_weight=float(weights["len"]), direction_weight=float(weights["dir"])
    )

    def evaluate(params: Any, step: int) -> tuple[Any, Any]:
        keypoints, pose = array(fixture, "x2d")[step], array(fixture, "y3d")[step] / unit
        noise = Bones(*(array(fixture, f"noise_{n}")[step] for n in ("dir", "len")))
        t = jnp.asarray(fixture["in_t"])[step]
        slots = ddhpose.noisy_slots(schedule, pose, t, noise, tree, clip=CLIP)
        output = model.apply({"params": params}, keypoints, slots, t)
        mask = jnp.ones(pose.shape[:2])
        per_frame = ddhpose.loss_terms(output, pose, mask, tree, unit=unit)
        terms = {k: jnp.mean(v) for k, v in per_frame.items()}
        named = {short: terms[k] for short, k in zip(("pos", "len", "dir"), terms, strict=True)}
        inner = {"noisy_dir": slots[0], "noisy_len": slots[1], "pred": output * unit}
        return ddhpose.total_loss(terms, options), (named, inner)

    def dump(tree: Any) -> Any:
        return dump_ddhpose(tree, model, unused=widen(fixture.weights()))

    return train(fixture, variables["params"], evaluate, dump)


def train(fixture: Fixture, params: Any, evaluate: Callable, dump: Callable) -> Outputs:
    """Gradients of the first step, loss terms of all, and the parameters after them.

    The released scripts' gradient is the loss times its gradient; the one that the fixture holds
    is not multiplied.
    """
    config = fixture.config
    optimizer = make_optimizer(
        {
            "name": "adamw",
            "learning_rate": config["lr"],
            "weight_decay": config["weight_decay"],
            "betas": tuple(config["betas"]),
            "eps": config["eps"],
        }
    )

    def scaled(params: Any, step: Any) -> tuple[Any, Any]:
        loss, inner = evaluate(params, step)
        return windows.scale_gradient(loss, "loss_times"), (loss, inner)

    plain = jax.jit(jax.grad(evaluate, has_aux=True))
    step_fn = jax.jit(jax.value_and_grad(scaled, has_aux=True))
    gradient, (_, inner) = plain(params, 0)
    ours: dict[str, ArrayLike] = {f"out_{k}": v for k, v in inner.items()}
    losses: dict[str, list] = {}
    state, after = optimizer.init(params), params
    for step in range(len(fixture["in_t"])):
        (_, (loss, (terms, _))), updates = step_fn(after, step)
        for name, value in {**terms, "total": loss}.items():
            losses.setdefault(f"out_loss_{name}", []).append(value)
        updates, state = optimizer.update(updates, state, after)
        after = optax.apply_updates(after, updates)
    ours |= {name: jnp.stack(values) for name, values in losses.items()}
    for group, tree in (("grad", gradient), ("param_after", after)):
        named = dump({"params": tree})
        ours |= {f"out_{group}__{key}": value for key, value in named.items()}
    return ours
