"""Parity of ZeDO's training: loss and gradients, whole steps, augmentation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from posediff_jax.geometry import flip
from posediff_jax.interop import dump_score_mlp
from posediff_jax.process.sdes import perturb, score_from_noise
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems.score_prior import rotate_pose, score_matching_loss
from posediff_jax.training.ema import EmaOptions, update_ema
from posediff_jax.training.optimizers import learning_rate_schedule, make_optimizer
from tests.parity_checks.fixture import Fixture
from tests.parity_checks.zedo_common import Outputs, build_network, build_sde

# What the release calls its reductions.
REDUCTIONS = {"halfsum": "half_sum", "mean": "mean"}


def score_loss(fixture: Fixture) -> Outputs:
    model, variables = build_network(fixture)
    x, z, t = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("x", "z", "t"))
    ours: dict[str, Any] = {}
    for kind in ("subvp", "vp"):
        process = build_sde(fixture.config, kind)
        x_t, std = perturb(process, x, t, z), process.rates(t)[1]

        def losses(params: Any, process: Any = process, x_t: Any = x_t, **options: Any) -> Any:
            eps = model.apply({"params": params}, x_t, t)
            return score_matching_loss(process, t, eps, z, **options)

        eps = model.apply(variables, x_t, t)
        out = f"out_{kind}sde"
        ours |= {
            f"{out}_perturbed": x_t,
            f"{out}_std": std,
            f"{out}_score": score_from_noise(process, t, eps),
            f"{out}_persample_halfsum_sigma2": losses(variables["params"]),
        }
        for name, reduction in REDUCTIONS.items():
            for weighting in ("sigma2", "likelihood"):

                def loss(
                    params: Any, losses: Any = losses, options: Any = (weighting, reduction)
                ) -> Any:
                    values = losses(params, weighting=options[0], reduction=options[1])
                    return jnp.mean(values)

                value, gradient = jax.value_and_grad(loss)(variables["params"])
                case = f"{out}_{name}_{weighting}"
                named = dump_score_mlp({"params": gradient}, model)
                ours |= {f"{case}_loss": value, f"{case}_gradnorm": optax.tree.norm(gradient)}
                ours |= {f"{case}_grad__{key}": array for key, array in named.items()}
    return ours


def train_steps(fixture: Fixture) -> Outputs:
    """The shared optimiser and average, configured as the recipe says; dropout is off."""
    config = fixture.config
    model, variables = build_network(fixture, dropout=config["dropout_used"])
    process = build_sde(config)
    adam = config["adam"]
    options = {
        "learning_rate": config["lr"],
        "betas": (adam["b1"], adam["b2"]),
        "eps": adam["eps"],
        "weight_decay": float(adam["weight_decay"]),
        "warmup_steps": config["warmup"],
        "clip_norm": config["grad_clip"],
    }
    optimizer, rate = make_optimizer(options), learning_rate_schedule(options)
    average_options = EmaOptions(
        beta=config["ema_decay"], update_every=1, update_after_step=-2, inv_gamma=9.0, power=1.0
    )
    x, z, u = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("x", "z", "u"))
    times = u * (config["T"] - config["eps"]) + config["eps"]

    @jax.jit
    def step(params: Any, state: Any, average: Any, count: Any, x: Any, z: Any, t: Any) -> Any:
        def loss(params: Any) -> Any:
            eps = model.apply({"params": params}, perturb(process, x, t, z), t, train=True)
            return jnp.mean(score_matching_loss(process, t, eps, z))

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        average = update_ema(average, params, count, average_options)
        return params, state, average, (value, rate(count), optax.tree.norm(gradient))

    params = average = variables["params"]
    state, curves = optimizer.init(params), []
    for i in range(len(x)):
        params, state, average, values = step(params, state, average, i, x[i], z[i], times[i])
        curves.append(values)
    names = ("out_loss", "out_lr", "out_gradnorm")
    ours: dict[str, Any] = dict(zip(names, np.transpose(curves), strict=True))
    for name, tree in (("param", params), ("ema", average)):
        named = dump_score_mlp({"params": tree}, model)
        ours |= {f"out_{name}__{key}": value for key, value in named.items()}
        order = fixture.meta["sqnorm_order"]
        ours[f"out_{name}_sqnorm"] = np.array([np.sum(named[key] ** 2) for key in order])
    return ours


def augment(fixture: Fixture) -> Outputs:
    x, R = jnp.asarray(fixture["in_x"]), jnp.asarray(fixture["in_R"])
    flipped = flip(x, H36M_17)
    order = np.argsort(fixture.config["order_3dpw"])
    return {
        "out_flip": flipped,
        "out_rot": rotate_pose(R, flipped),
        "out_flip_concat": jnp.concatenate([x, flipped]),
        "out_3dpw_h36m_order": fixture["in_3dpw"][:, order],
    }
