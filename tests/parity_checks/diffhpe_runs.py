"""Parity of DiffHPE's losses, training steps and sampling chains."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.interop import dump_diffhpe
from posediff_jax.process.schedules import Schedule, q_sample
from posediff_jax.systems import diffhpe as system
from posediff_jax.systems.diffhpe_loss import LossOptions, loss_terms, total_loss
from posediff_jax.systems.diffhpe_parts import FROZEN, Guidance, freeze_lifter, join_lifter
from posediff_jax.systems.diffhpe_sampling import (
    SamplerOptions,
    bind_predict,
    encode_windows,
    run_sampler,
    run_times,
)
from posediff_jax.training.optimizers import make_optimizer
from tests.parity_checks.diffhpe_common import build, ours, theirs
from tests.parity_checks.diffupose_common import Outputs
from tests.parity_checks.fixture import Fixture


def tables(fixture: Fixture) -> Schedule:
    config = fixture.config
    options = system.ProcessOptions(
        schedule=config["schedule"],
        num_timesteps=config["num_steps"],
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
    )
    return system.diffhpe_schedule(options, dtype=np.float64)


def loss(fixture: Fixture) -> Outputs:
    model, variables = build(fixture)
    if fixture.config["conditioning"] == "pt_mixste":
        variables = freeze_lifter(variables, {"params": variables["params"]["lifter"]}, model)
    schedule, options = tables(fixture), LossOptions()
    keypoints, pose = ours(fixture, "pose_2d"), ours(fixture, "pose_3d")

    @partial(jax.jit, static_argnames="train")
    def evaluate(params: Any, rest: Any, noise: Any, t: Any, *, train: bool) -> Any:
        x_t = q_sample(schedule, pose, t, noise)
        output, mutable = model.apply(
            join_lifter({**rest, "params": params}),
            keypoints,
            x_t,
            t,
            train=train,
            mutable=["batch_stats"] if train else [],
        )
        mask = jnp.ones(pose.shape[:2])
        terms = loss_terms(schedule, output, noise, x_t, t, mask, model.skeleton, options)
        return total_loss({k: jnp.mean(v) for k, v in terms.items()}, options), mutable

    gradient = jax.value_and_grad(evaluate, has_aux=True)
    rest = dict(variables)
    params = rest.pop("params")
    draws = [(ours(fixture, f"noise{n}"), jnp.asarray(fixture[f"in_t{n}"])) for n in ("", "2")]
    (value, _), evaluated = gradient(params, rest, *draws[0], train=False)
    (_, _), trained = gradient(params, rest, *draws[0], train=True)
    found: dict[str, ArrayLike] = {"out_loss_eval_mode": value}
    for mode, tree in (("eval", evaluated), ("train", trained)):
        found[f"out_grad_norms_{mode}_mode"] = _norms(fixture, model, tree, rest)
    fixed = [
        evaluate(params, rest, noise, jnp.full(len(pose), t), train=False)[0]
        for noise, t in zip(ours(fixture, "valid_noise"), fixture["in_valid_t"], strict=True)
    ]
    found["out_valid_loss"] = sum(fixed) / schedule.num_timesteps
    return found | _steps(fixture, model, params, rest, gradient, draws)


def _norms(fixture: Fixture, model: DiffHPEDenoiser, tree: Any, rest: Any) -> ArrayLike:
    frozen = {FROZEN: rest[FROZEN]} if FROZEN in rest else {}
    named = dump_diffhpe({"params": tree, **frozen}, model)
    return np.array([np.linalg.norm(named[key]) for key in fixture.meta["grad_keys"]])


def _steps(
    fixture: Fixture, model: DiffHPEDenoiser, params: Any, rest: Any, gradient: Any, draws: Any
) -> Outputs:
    """Losses of two training steps, and what they leave."""
    config = fixture.config
    optimizer = make_optimizer(
        {
            "name": "adam",
            "learning_rate": config["lr"],
            "weight_decay": config["weight_decay"],
        }
    )
    state, losses = optimizer.init(params), []
    for noise, t in draws:
        (value, moved), slopes = gradient(params, rest, noise, t, train=True)
        updates, state = optimizer.update(slopes, state, params)
        params, rest = optax.apply_updates(params, updates), {**rest, **moved}
        losses.append(value)
    named = dump_diffhpe({**rest, "params": params}, model)
    found: dict[str, ArrayLike] = {"out_train_losses": jnp.stack(losses)}
    for group in ("param", "buffer"):
        found |= {f"out_{group}_after2:{key}": value for key, value in named.items()}
    return found


def sampling(fixture: Fixture) -> Outputs:
    config = fixture.config
    model, variables = build(fixture)
    if config["rand_guidance_rate"] != 1:
        raise ValueError("config.rand_guidance_rate: fixtures hold no masks")
    guided = config["p_uncond"] > 0
    guidance = Guidance(
        "keypoints" if config["guidance_before_cond"] else "condition",
        weight=config["guidance"] if guided else 0.0,
    )
    schedule, K = tables(fixture), config["n_steps"]
    options = SamplerOptions(last_steps=K % schedule.num_timesteps)
    keypoints, H = ours(fixture, "pose_2d"), config["n_samples"]
    noise = jnp.swapaxes(ours(fixture, "step_noise"), 0, 1)
    # The last step, to the clean end, takes none.
    noise = jnp.concatenate([noise, jnp.zeros_like(noise, shape=(1, *noise.shape[1:]))])
    if "in_starting_pose" in fixture.arrays:
        start = ours(fixture, "starting_pose")
        start = jnp.broadcast_to(start, (H, *start.shape))
    else:
        start = ours(fixture, "start_noise")
    times = run_times(schedule, options)

    @jax.jit
    def chain(variables: Any) -> Any:
        keys = jax.random.split(jax.random.key(0), len(keypoints))
        encoded = encode_windows(keys, model, variables, keypoints, guidance)
        predict = bind_predict(
            model,
            variables,
            encoded[:, None],
            schedule=schedule,
            times=times,
            weight=guidance.weight,
        )
        key = jax.random.key(0)
        result = run_sampler(
            key, predict, start, schedule, options, noise=noise, return_trajectory=True
        )
        before_last = result.trajectory[-2] if K > 1 else start
        ends = [predict(x, times[i]).eps for x, i in ((start, 0), (before_last, -1))]
        return result.samples, *ends

    samples, first, last = chain(variables)
    return {
        "out_samples": theirs(jnp.swapaxes(samples, 0, 1)),
        "out_mean_hypothesis": theirs(samples.mean(axis=0)),
        "out_first_pred_noise": theirs(first[0]),
        "out_last_pred_noise": theirs(last[0]),
    }
