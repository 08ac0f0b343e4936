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
from posediff_jax.samplers.zero_shot import InitialFit, fit_initial_pose
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
