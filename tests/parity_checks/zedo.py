"""Parity with the released ZeDO code, and with the score network of GFPose."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.denoisers.layers import sinusoid
from posediff_jax.denoisers.score_mlp import LABEL_SCALE, part_masks
from posediff_jax.geometry import quaternion_to_matrix
from posediff_jax.process.sdes import (
    SDES,
    prior_log_density,
    reverse_drift,
    reverse_step,
    score_from_noise,
)
from posediff_jax.samplers.continuous import STEPS
from posediff_jax.samplers.ray_geometry import (
    clamp_confidence,
    snap_to_rays,
    solve_translation,
    unit_rays,
)
from tests.parity_checks.fixture import CHAIN, Check, Fixture
from tests.parity_checks.zedo_common import (
    Outputs,
    build_network,
    build_sde,
    fit_of,
    loop_start,
    loop_steps,
    rays_of,
    run_loop,
)
from tests.parity_checks.zedo_metrics import metrics
from tests.parity_checks.zedo_training import augment, score_loss, train_steps

# Relative in the specification; the largest values are about 1e5.
RATES = 1e-7


def sde(fixture: Fixture) -> Outputs:
    ours: dict[str, ArrayLike] = {}
    for name in SDES:
        ours |= {f"out_{name}sde_{k}": v for k, v in one_sde(fixture, name).items()}
    return ours


def one_sde(fixture: Fixture, name: str) -> dict[str, ArrayLike]:
    process = build_sde(fixture.config, name)
    x, t, score = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("x", "t", "score"))
    signal, std = process.rates(t)
    F, G = process.step(t)
    ours: dict[str, ArrayLike] = {
        "mean": signal[:, None, None] * x,
        "std": std,
        "drift": process.drift(t)[:, None, None] * x,
        "diffusion": process.diffusion(t),
        "disc_f": F[:, None, None] * x,
        "disc_G": G,
        "prior_logp": prior_log_density(process, x),
        "prior_std": process.prior_std,
    }
    # The released reverse process has the factor 1.0 in both settings; "pf" drops the noise.
    for setting, noisy in (("sde", 1.0), ("pf", 0.0)):
        ours |= {
            f"rev_drift_{setting}": reverse_drift(process, x, t, score),
            f"rev_diffusion_{setting}": noisy * process.diffusion(t),
            f"rev_disc_f_{setting}": reverse_step(process, x, t, score),
            f"rev_disc_G_{setting}": noisy * G,
        }
    return ours


def score_forward(fixture: Fixture) -> Outputs:
    model, variables = build_network(fixture)
    x, labels = (jnp.asarray(fixture[n], float) for n in ("in_x", "in_labels"))
    return {
        "out_eps": model.apply(variables, x, labels / LABEL_SCALE),
        "out_temb": sinusoid(labels, model.embedding),
    }


def gfpose_forward(fixture: Fixture) -> Outputs:
    model, variables = build_network(fixture, conditional=True)
    names = ("in_x", "in_labels", "in_condition", "in_mask")
    x, labels, cond, mask = (jnp.asarray(fixture[n], float) for n in names)
    t = labels / LABEL_SCALE
    return {
        "out_eps": model.apply(variables, x, t, cond=cond, mask=mask),
        "out_eps_nomask": model.apply(variables, x, t, cond=cond),
        "out_part_mask": part_masks(fixture.config["parts"]),
    }


def predictor_step(fixture: Fixture) -> Outputs:
    model, variables = build_network(fixture)
    x, times, z = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("x", "t", "z"))
    eps = [model.apply(variables, x, t) for t in times]
    steps = {name if name != "ancestral" else "ancestral_sampling": s for name, s in STEPS.items()}
    ours: dict[str, ArrayLike] = {}
    for name, kind, noisy in itertools.product(steps, ("subvp", "vp"), (True, False)):
        output = f"out_{name}_{kind}sde_{'sde' if noisy else 'pf'}"
        if f"{output}_x" not in fixture.outputs:
            continue
        process = build_sde(fixture.config, kind)
        results = [
            steps[name](process, x, t, score_from_noise(process, t, e), noise if noisy else None)
            for t, e, noise in zip(times, eps, z, strict=True)
        ]
        ours[f"{output}_x"], ours[f"{output}_xmean"] = map(jnp.stack, zip(*results, strict=True))
    return ours


def geometry(fixture: Fixture) -> Outputs:
    names = ("in_pose", "in_T", "in_conf", "in_pose_exact")
    pose, given, confidence, exact = (jnp.asarray(fixture[n], float) for n in names)
    _, rays = rays_of(fixture["in_K"], fixture["in_keypoints2d"])
    _, exact_rays = rays_of(fixture["in_K"], fixture["in_keypoints2d_exact"])
    weighted = solve_translation(rays, pose, confidence=confidence)
    plain = solve_translation(rays, pose)

    def displacement(translation: Any) -> Any:
        return snap_to_rays(unit_rays(rays), pose, translation) - pose

    return {
        "out_delta_givenT": displacement(given[:, 0]),
        "out_delta_solved": displacement(weighted),
        "out_delta_noconf": displacement(plain),
        "out_T_conf": weighted[:, None],
        "out_T_noconf": plain[:, None],
        "out_T_exact": solve_translation(exact_rays, exact)[:, None],
        "out_conf_after": clamp_confidence(confidence),
    }


def initial_fit(fixture: Fixture) -> Outputs:
    ours: dict[str, Any] = {}
    for name, options in fixture.config.items():
        fit = fit_of(fixture, options)
        results = {
            "quat_wxyz": fit.quaternion,
            "scale": fit.scale,
            "R": quaternion_to_matrix(fit.quaternion),
            "T": fit.translation[:, None],
            "P0": fit.pose,
            "loss_curve": jnp.mean(fit.curve, axis=0),
            "final_objective_per_item": fit.objective,
            "best_objective_per_item": jnp.min(fit.curve, axis=-1),
        }
        ours |= {f"out_{name}_{k}": v for k, v in results.items()}
    return ours


def long_fit(fixture: Fixture) -> Outputs:
    """500 iterations part by rounding: the harness judges by the tolerance of the objective.

    That is wide for all else, so rotations, translations and the first iterations, which must
    agree, are held to their own.
    """
    ours = initial_fit(fixture)
    tolerances = {"_R": fixture.meta["tol_R"], "_T": fixture.meta["tol_T"]}
    for name, value in ours.items():
        error = np.abs(np.asarray(value) - fixture[name])
        for suffix, tolerance in tolerances.items():
            if name.endswith(suffix) and not error.max() <= tolerance:
                raise ValueError(f"{name}: error {error.max():.2e} above {tolerance}")
        if name.endswith("loss_curve") and not error[:20].max() <= CHAIN:
            raise ValueError(f"{name}: error {error[:20].max():.2e} in the first 20 iterations")
    return ours


def loop(fixture: Fixture) -> Outputs:
    model, variables = build_network(fixture)
    steps = loop_steps(fixture)
    labels = LABEL_SCALE * steps.time
    features = model.apply(variables, labels, method="embed_time")

    def estimate(x: Any, feature: Any) -> Any:
        return model.apply(variables, x, feature, method="denoise")

    start, ours = loop_start(fixture)
    ours |= run_loop(fixture, estimate, start, steps, features=features)
    if "in_z" in fixture.arrays:
        noise = jnp.asarray(fixture["in_z"])
        noisy = run_loop(fixture, estimate, start, steps, features=features, noise=noise)
        ours |= {"out_x_noisy": noisy["out_x"], "out_T_noisy": noisy["out_T"]}
    return ours


def gauss_loop(fixture: Fixture) -> Outputs:
    """The prior is N(mu, sig0^2), whose noise estimate is known."""
    process = build_sde(fixture.config)
    mu, prior_std = jnp.asarray(fixture["in_mu"], float), fixture.config["sig0"]

    def estimate(x: Any, t: Any) -> Any:
        signal, std = process.rates(t)
        return std * (x - signal * mu) / ((signal * prior_std) ** 2 + std**2)

    start, _ = loop_start(fixture)
    return run_loop(fixture, estimate, start, loop_steps(fixture))


CHECKS: dict[str, Check] = {
    "sde": Check(sde, RATES),
    "score_forward": Check(score_forward, CHAIN),
    "predictor_step": Check(predictor_step),
    "geometry": Check(geometry, 1e-7),
    "ipo": Check(initial_fit, CHAIN),
    "ipo_500": Check(long_fit, 0.2),
    "loop": Check(loop, 1e-7),
    "loop_gauss": Check(gauss_loop, 1e-7),
    "pipeline_ipo": Check(loop, CHAIN),
    "score_loss": Check(score_loss, CHAIN),
    "train_steps": Check(train_steps, CHAIN),
    "augment": Check(augment),
    "metrics": Check(metrics),
    "gfpose_cond_forward": Check(gfpose_forward, CHAIN),
}
