"""What the checks of ZeDO share: the process and network that a config describes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.calibration import camera_from_matrix
from posediff_jax.camera import rays
from posediff_jax.denoisers.score_mlp import ScoreMLP
from posediff_jax.interop import load_score_mlp
from posediff_jax.process.sdes import SDES, VE, VP
from posediff_jax.samplers.initial_fit import InitialFit, fit_initial_pose
from posediff_jax.samplers.zero_shot import LoopSteps, optimise_poses, score_steps
from tests.parity_checks.fixture import Fixture, widen

Outputs = Mapping[str, ArrayLike]


def build_sde(config: Mapping[str, Any], name: str = "subvp", *, horizon: float = 1.0) -> VP | VE:
    """The process of that name with the values of `config`."""
    fields = ("beta_min", "beta_max") if name != "ve" else ("sigma_min", "sigma_max")
    values = {f: config[f] for f in fields if f in config}
    return SDES[name](**values, num_steps=config.get("N", 1000), horizon=horizon)


def build_network(
    fixture: Fixture, *, conditional: bool = False, dropout: float = 0.0
) -> tuple[ScoreMLP, dict[str, Any]]:
    """The score network that `config` describes, and its imported weights in float64."""
    config = fixture.config
    fixed = {
        **{"arch": "ScoreModelFC_Adv", "joint_dim": 3, "embedding_type": "positional"},
        **{"scale_by_sigma": False, "group_norm_eps": 1e-5, "activation": "silu"},
    }
    clashes = {n: config[n] for n, v in fixed.items() if n in config and config[n] != v}
    if clashes:
        raise ValueError(f"config: the model has {fixed}, the fixture asks for {clashes}")
    model = ScoreMLP(
        config["n_joints"],
        width=config["hidden_dim"],
        embedding=config["embed_dim"],
        num_blocks=config["n_blocks"],
        groups=config.get("group_norm_groups", 32),
        dropout=dropout,
        conditional=conditional,
    )
    return model, widen(load_score_mlp(fixture.weights(), model))


def rays_of(K: ArrayLike, keypoints: ArrayLike) -> Any:
    """Viewing rays in float64."""
    camera = camera_from_matrix(np.asarray(K, np.float64), (1000, 1000))
    return camera, rays(camera, jnp.asarray(keypoints, float))


def fit_of(fixture: Fixture, options: Mapping[str, Any]) -> InitialFit:
    """The initial fit that a section of `config` describes, with the mean over the batch."""
    pose, keypoints = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("init_pose", "keypoints2d"))
    camera, _ = rays_of(fixture["in_K"], fixture["in_keypoints2d"])
    fit = partial(
        fit_initial_pose,
        joints=options["keys"],
        axes=options["axes"],
        depth=options["IPO_T"],
        bounds=(options["minS"], options["maxS"]),
        num_iterations=options["iterations"],
        learning_rate=options["lr"],
        eps=1e-8 * len(pose),
    )
    return jax.jit(fit)(pose, keypoints, camera)


def loop_steps(fixture: Fixture) -> LoopSteps:
    """The denoising of the released loop that `config` describes."""
    config = fixture.config
    return score_steps(
        build_sde(config, horizon=config["T"]),
        num_iterations=config["iterations"],
        t_range=(config["T"], config["sampling_eps"]),
    )


def loop_start(fixture: Fixture) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """The loop's first pose and translation, given or fitted, and what the fit gave."""
    options = fixture.config.get("ipo")
    if not options:
        return (jnp.asarray(fixture["in_P0"]), jnp.asarray(fixture["in_T0"])[:, 0]), {}
    fit = fit_of(fixture, options)
    outputs = {"out_ipo_P0": fit.pose, "out_ipo_T": fit.translation[:, None]}
    return (fit.pose, fit.translation), outputs


def run_loop(
    fixture: Fixture, estimate: Any, start: tuple[Any, Any], steps: LoopSteps, **options: Any
) -> dict[str, Any]:
    """The outputs of the loop, the states on the way included."""
    _, rays = rays_of(fixture["in_K"], fixture["in_keypoints2d"])
    run = partial(
        optimise_poses,
        estimate,
        steps=steps,
        confidence=jnp.asarray(fixture["in_conf"], float),
        warmup=fixture.config["warmup"],
        return_trajectory=True,
        **options,
    )
    result = jax.jit(run)(*start, rays)
    ours = {"out_x": result.pose, "out_T": result.translation[:, None]}
    for i in range(fixture.config["iterations"]):
        way = jax.tree.map(lambda leaf, i=i: leaf[i], result.trajectory)
        states = {"x_projected": way.projected, "x": way.pose, "T": way.translation[:, None]}
        ours |= {f"out_mid{i}_{name}": state for name, state in states.items()}
    return ours
