"""What the checks of DiffuPose share: the model, schedule and predictor that a config describes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.interop import load_diffupose
from posediff_jax.process.schedules import Schedule, cosine_schedule, make_schedule
from posediff_jax.skeleton import H36M_16, H36M_17, HUMANEVA_15, Skeleton
from posediff_jax.systems.diffupose import bind_predict
from tests.parity_checks.fixture import Fixture, widen

BY_JOINTS = {s.num_joints: s for s in (H36M_17, H36M_16, HUMANEVA_15)}
Outputs = Mapping[str, ArrayLike]


def skeleton_of(joints: int, parents: ArrayLike | None = None) -> Skeleton:
    """The skeleton with that many joints; a nameless one if the given tree is another."""
    known = BY_JOINTS.get(joints)
    if known is not None and (parents is None or list(known.parents) == list(np.ravel(parents))):
        return known
    if parents is None:
        raise ValueError(f"config.n_joints: no skeleton with {joints} joints")
    names = tuple(f"joint{i}" for i in range(joints))
    return Skeleton("nameless", names, tuple(int(p) for p in np.ravel(parents)), (), ())


def check_assumptions(config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses a fixture whose config asks for what the model derives or fixes otherwise."""
    clashes = {n: config[n] for n, v in expected.items() if n in config and config[n] != v}
    if clashes:
        raise ValueError(f"config: the model has {expected}, the fixture asks for {clashes}")


def build_denoiser(fixture: Fixture) -> tuple[DiffuPoseGCN, dict[str, Any]]:
    """The network that `config` describes, and its imported weights in float64."""
    config = fixture.config
    width = config["hid_dim"]
    derived = {"time_dim": width // 2, "time_fourier_dim": width // 8, "nonlocal_inter": width // 2}
    fixed = {"coords_dim": [5, 5], "bn_eps": 1e-5, "objective": "pred_noise", "loss_type": "l1"}
    check_assumptions(config, derived | fixed)
    model = DiffuPoseGCN(
        skeleton_of(config["n_joints"], fixture.meta.get("parents")),
        width=width,
        num_blocks=config["num_layers"],
        dropout=config.get("p_dropout", 0.0),
    )
    return model, widen(load_diffupose(fixture.weights(), model))


def build_schedule(config: Mapping[str, Any], num_timesteps: int | None = None) -> Schedule:
    """The schedule that `config` describes: float32 tables, as registered, widened."""
    steps = config["timesteps"] if num_timesteps is None else num_timesteps
    if config.get("beta_schedule", "cosine") == "cosine":
        schedule = cosine_schedule(steps, offset=config.get("cosine_s", 0.008))
    else:
        schedule = make_schedule(config["beta_schedule"], steps)
    return schedule.astype(np.float64)


def bind(
    fixture: Fixture, model: DiffuPoseGCN, variables: Any, cond: Any, schedule: Schedule
) -> Any:
    clip = 1.0 if fixture.config.get("clip_denoised", True) else None
    return bind_predict(model, variables, cond, schedule=schedule, clip=clip)
