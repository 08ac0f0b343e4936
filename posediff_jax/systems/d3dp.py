"""D3DP (Shan et al., ICCV 2023): DDIM over windows of poses with an x0-predicting MixSTE."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.config import read_options
from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.denoisers.mixste import D3DPDenoiser
from posediff_jax.geometry import flip
from posediff_jax.keys import item_keys
from posediff_jax.process.schedules import Schedule, eps_from_x0, q_sample
from posediff_jax.samplers.discrete import ddim_times
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import masked_mean, training_pair
from posediff_jax.systems.windows import (
    LossOptions,
    ModelOptions,
    SamplerOptions,
    apply_windows,
    average_pair,
    bind_denoise,
    check_sampler,
    joint_distance,
    network_input,
    read_network,
    read_process,
    run_ddim,
    sample_windows,
    scale_gradient,
)
from posediff_jax.types import Array, Aux, PoseBatch, PredictFn, Prediction, SampleResult, Variables


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `process`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: D3DP has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, D3DP has no frozen part")
    process, schedule = read_process(config["process"])
    T = process.num_timesteps
    model = read_network(D3DPDenoiser, ModelOptions, config, num_timesteps=T)
    loss = read_options(LossOptions, config["loss"], where="loss")
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    check_sampler(sampler, schedule)
    return System(
        init=partial(_init, model),
        loss=partial(_loss, model, schedule, process.clip, loss),
        sample=partial(
            sample_poses, model=model, schedule=schedule, clip=process.clip, options=sampler
        ),
    )


def bind_predict(
    model: D3DPDenoiser | DDHPoseDenoiser,
    variables: Variables,
    encoded: Array,
    *,
    schedule: Schedule,
    times: NDArray[np.int32],
    clip: float,
) -> PredictFn:
    """Binds weights and condition for `sample_ddim`.

    The network sees the state clipped; x0 is the clipped pose, eps what is left of the state as
    it is (unclipped).

    Args:
      model: The denoiser.
      variables: Its variables.
      encoded: From `encode` of a `mirrored_pair`, `(2, ..., F, J, C)`: both run as one batch. Or
        `(1, ...)` without flip averaging.
      schedule: Tables of the process.
      times: Timesteps of the run, `(W,)`.
      clip: Bound of inputs and estimates, metres.
    """
    skeleton, T = model.skeleton, schedule.num_timesteps
    denoise = bind_denoise(model, variables, encoded, num_timesteps=T, times=times)

    def predict(x_t: Array, t: Array) -> Prediction:
        state = jnp.clip(x_t, -clip, clip)
        pair = jnp.stack([state, flip(state, skeleton)][: len(encoded)])
        pose = average_pair(denoise(pair, t).astype(x_t.dtype), skeleton)
        x0 = jnp.clip(pose, -clip, clip)
        return Prediction(x0=x0, eps=eps_from_x0(schedule, x_t, t, x0), aux=x0)

    return predict


def _init(model: D3DPDenoiser, key: Array) -> dict[str, Any]:
    window = (1, model.num_frames, model.skeleton.num_joints)
    inputs = (
        jnp.zeros((*window, 2 + model.visibility)),
        jnp.zeros((*window, 3)),
        jnp.zeros(1, jnp.int32),
    )
    return dict(model.init(key, *inputs))


def _loss(
    model: D3DPDenoiser,
    schedule: Schedule,
    clip: float,
    options: LossOptions,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Aux]:
    pose, keypoints = training_pair(batch, model.skeleton)
    keypoints = network_input(keypoints, batch, model)
    draw = jax.vmap(partial(draw_target, schedule=schedule))
    depth_keys, t, noise = draw(item_keys(key, batch.index), pose)
    x_t = jnp.clip(q_sample(schedule, pose, t, noise), -clip, clip)
    output = apply_windows(depth_keys, model, variables, keypoints, x_t, t, train=train)
    loss = masked_mean(joint_distance(output, pose), batch.mask, axis_name=axis_name)
    scaled = scale_gradient(loss, options.gradient, axis_name=axis_name)
    return scaled, Aux(metrics={"loss": loss}, mutable={})


def draw_target(key: Array, pose: Array, *, schedule: Schedule) -> tuple[Array, Array, Array]:
    """A key, one timestep for the whole window, and noise for all joints, the root too."""
    t_key, noise_key, depth_key = jax.random.split(key, 3)
    t = jax.random.randint(t_key, (), 0, schedule.num_timesteps)
    return depth_key, t, jax.random.normal(noise_key, pose.shape, pose.dtype)


def sample_poses(
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    model: D3DPDenoiser | DDHPoseDenoiser,
    schedule: Schedule,
    clip: float,
    options: SamplerOptions,
    num_hypotheses: int,
    return_trajectory: bool = False,
) -> SampleResult:
    """Draws hypotheses by DDIM over poses; the contract of `systems.base.SampleFn`."""
    times = ddim_times(schedule.num_timesteps, options.num_steps)[:-1]
    window = (*batch.keypoints.shape[1:-1], 3)

    def sample_one(chain_key: Array, encoded: Array) -> Array:
        start_key, noise_key = jax.random.split(chain_key)
        predict = bind_predict(model, variables, encoded, schedule=schedule, times=times, clip=clip)
        x_init = jax.random.normal(start_key, window, batch.keypoints.dtype)
        return run_ddim(
            noise_key,
            predict,
            x_init,
            schedule=schedule,
            num_steps=options.num_steps,
            eta=options.eta,
            last_record_like=None if return_trajectory else x_init,
        ).records

    return sample_windows(
        key,
        sample_one,
        model,
        variables,
        batch,
        num_hypotheses=num_hypotheses,
        options=options,
        return_trajectory=return_trajectory,
    )
