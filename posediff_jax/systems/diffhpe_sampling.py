"""DiffHPE's sampling: features once per window, all hypotheses as one batch, shared samplers."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.denoisers.mixste import check_window
from posediff_jax.keys import item_keys
from posediff_jax.process.schedules import Schedule, prediction_from_eps
from posediff_jax.samplers.discrete import ddim_times, sample_ddim, sample_ddpm
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.systems.diffhpe_parts import Guidance, NoiseShape, join_lifter
from posediff_jax.systems.windows import bind_denoise, network_input
from posediff_jax.types import Array, PoseBatch, PredictFn, Prediction, SampleResult, Variables


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config.

    Attributes:
      name: "ddpm" (all steps, as published) or "ddim".
      num_steps: Steps of DDIM, evenly spaced; with `eta` of 1 they are those of DDPM, strided.
      eta: Stochasticity of DDIM.
      last_steps: K: only the last K of the T steps, from a given `starting_pose`; 0 for all.
      guidance: w of classifier-free guidance; needs `loss.unconditional` above 0.
      recenter: Subtract the root of each result from all its joints. The release leaves the root
        where the network has it, and counts its error.
      max_chains: Hypotheses in memory at a time; 0 for all.
    """

    name: Literal["ddpm", "ddim"] = "ddpm"
    num_steps: int = 10
    eta: float = 0.0
    last_steps: int = 0
    guidance: float = 0.0
    recenter: bool = False
    max_chains: int = 0


def check_sampler(options: SamplerOptions, schedule: Schedule, *, unconditional: float) -> None:
    """Refuses at build time what the sampler would refuse at the first batch.

    Args:
      options: The section `sampler`.
      schedule: Tables of the process.
      unconditional: Chance of training without condition.

    Raises:
      ValueError: A value out of range, or guidance by a network that has not
        learnt to do without its condition.
    """
    T = schedule.num_timesteps
    if not 0 <= options.last_steps <= T:
        raise ValueError(
            f"sampler.last_steps: expected 0 (all) to {T} (process.num_timesteps), "
            f"got {options.last_steps}"
        )
    steps = options.last_steps or T
    if options.name == "ddim" and not 1 <= options.num_steps <= steps:
        raise ValueError(
            f"sampler.num_steps: expected 1 to {steps}, the steps there are, "
            f"got {options.num_steps}"
        )
    if not 0.0 <= options.eta <= 1.0:
        raise ValueError(f"sampler.eta: expected a value in [0, 1], got {options.eta}")
    if options.max_chains < 0:
        raise ValueError(f"sampler.max_chains: expected 0 or more, got {options.max_chains}")
    if not 0 <= options.guidance < float("inf"):
        raise ValueError(f"sampler.guidance: expected 0 or more, got {options.guidance}")
    if options.guidance and not unconditional:
        raise ValueError(
            f"sampler.guidance: {options.guidance} needs a network that was also trained without "
            "its condition; set loss.unconditional above 0, or guidance to 0"
        )


def encode_windows(
    keys: Array,
    model: DiffHPEDenoiser,
    variables: Variables,
    keypoints: Array,
    guidance: Guidance,
) -> Array:
    """The condition, and with guidance also that of the unconditional evaluation behind it.

    With a share of dropped keypoints below 1 these are drawn once per window. The release draws
    them anew in each step, and on top of those of the steps before.

    Args:
      keys: One per window, `(B,)`.
      model: The denoiser.
      variables: Its variables, as `join_lifter` gives them.
      keypoints: `(B, F, J, 2)`, or 3 channels with `visibility`.
      guidance: See `Guidance`.

    Returns:
      `(1, B, F, J, C)`, or `(2, ...)` with guidance.
    """
    if not guidance.weight or guidance.dropped == "condition":
        encoded: Any = model.apply(variables, keypoints, method="encode")
        # The encoding is linear in the condition: one of zeros is encoded as zeros.
        return jnp.stack([encoded, jnp.zeros_like(encoded)] if guidance.weight else [encoded])
    window = keypoints.shape[1:-1]
    told = jax.vmap(lambda k: guidance.kept_keypoints(jax.random.fold_in(k, 0), window))(keys)
    pair: Any = model.apply(variables, jnp.stack([keypoints, keypoints * told]), method="encode")
    return pair


def bind_predict(
    model: DiffHPEDenoiser,
    variables: Variables,
    encoded: Array,
    *,
    schedule: Schedule,
    times: NDArray[np.int32],
    shape: NoiseShape | None = None,
    weight: float = 0.0,
    clip: float = 0.0,
) -> PredictFn:
    """Binds weights and condition for the samplers.

    Args:
      model: The denoiser.
      variables: Its variables, as `join_lifter` gives them.
      encoded: From `encode_windows`, `(G, ..., F, J, C)`.
      schedule: Tables of the process.
      times: Timesteps of the run, `(N,)`.
      shape: Of anisotropic noise; the sampler's state is that of standard noise.
      weight: w of the guidance.
      clip: Bound of the x_0 estimate, 0 for none.
    """
    shape = NoiseShape() if shape is None else shape
    denoise = bind_denoise(
        model, variables, encoded, num_timesteps=schedule.num_timesteps, times=times
    )

    def predict(x_t: Array, t: Array) -> Prediction:
        seen = shape.shown(schedule, x_t, t)
        # At least float32 for the state, also under a bfloat16 network.
        noise = denoise(jnp.broadcast_to(seen, (len(encoded), *seen.shape)), t).astype(x_t.dtype)
        eps = (1 + weight) * noise[0] - weight * noise[1] if weight else noise[0]
        prediction = prediction_from_eps(schedule, x_t, t, shape.normal(eps))
        if not clip:
            return prediction
        bound = clip if shape.std is None else clip / shape.std.astype(x_t.dtype)
        return prediction._replace(x0=jnp.clip(prediction.x0, -bound, bound))

    return predict


def run_times(schedule: Schedule, options: SamplerOptions) -> NDArray[np.int32]:
    """The timesteps at which the network is called, first one first."""
    steps = options.last_steps or schedule.num_timesteps
    if options.name == "ddim":
        return ddim_times(steps, options.num_steps)[:-1]
    return np.arange(steps, dtype=np.int32)[::-1]


def run_sampler(
    key: Array,
    predict: PredictFn,
    x_init: Array,
    schedule: Schedule,
    options: SamplerOptions,
    *,
    noise: Array | None = None,
    return_trajectory: bool = False,
) -> SampleResult:
    """Runs the sampler that the options name; arguments as of `sample_ddpm`."""
    shared: dict[str, Any] = {
        "schedule": schedule,
        "last_steps": options.last_steps or None,
        "noise": noise,
        "return_trajectory": return_trajectory,
    }
    if options.name == "ddpm":
        return sample_ddpm(key, predict, x_init, **shared)
    return sample_ddim(key, predict, x_init, num_steps=options.num_steps, eta=options.eta, **shared)


def sample_poses(
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    model: DiffHPEDenoiser,
    schedule: Schedule,
    shape: NoiseShape,
    guidance: Guidance,
    clip: float,
    options: SamplerOptions,
    num_hypotheses: int,
    return_trajectory: bool = False,
    starting_pose: Array | None = None,
) -> SampleResult:
    """Draws hypotheses; the contract of `systems.base.SampleFn`, with a pose to start from.

    Args:
      key: Random key.
      variables: Of the system.
      batch: Windows.
      model: The denoiser.
      schedule: Tables of the process.
      shape: Of the noise.
      guidance: See `Guidance`.
      clip: Bound of the x_0 estimate, 0 for none.
      options: The section `sampler`.
      num_hypotheses: H.
      return_trajectory: Also return the state after each step.
      starting_pose: Taken as it is for the state before the last `sampler.last_steps` steps,
        without noise added, `(B, F, J, 3)` metres (or z alone): refines it.

    Raises:
      ValueError: Other joints or frames than the network has, `last_steps` without a pose or the
        reverse, or errors as in `fan_out`.
    """
    check_window(
        batch.keypoints, model.skeleton, model.num_frames, channels=2, name="batch.keypoints"
    )
    window = (*batch.keypoints.shape[1:-1], model.pose_channels)
    start = _starting_state(starting_pose, batch, window, schedule, shape, options)
    times = run_times(schedule, options)
    network = join_lifter(variables)
    keys = item_keys(key, batch.index)
    keypoints = network_input(batch.keypoints, batch, model)
    encoded = encode_windows(keys, model, network, keypoints, guidance)

    def chains(chain_keys: Array, items: dict[str, Array]) -> dict[str, Array]:
        split = jax.vmap(jax.random.split)(chain_keys)
        if start is None:
            dtype = batch.keypoints.dtype
            x_init = jax.vmap(lambda k: jax.random.normal(k, window, dtype))(split[:, 0])
        else:
            x_init = items["start"]
        predict = bind_predict(
            model,
            network,
            jnp.moveaxis(items["encoded"], 1, 0),
            schedule=schedule,
            times=times,
            shape=shape,
            weight=guidance.weight,
            clip=clip,
        )
        result = run_sampler(
            split[:, 1], predict, x_init, schedule, options, return_trajectory=return_trajectory
        )
        kept = {"samples": result.samples}
        if return_trajectory:
            kept["trajectory"] = jnp.moveaxis(result.trajectory, 0, 1)
        return kept

    items = {"encoded": jnp.moveaxis(encoded, 0, 1)}
    if start is not None:
        items["start"] = start
    drawn = fan_out(
        keys,
        chains,
        items,
        num_hypotheses=num_hypotheses,
        max_chains=options.max_chains,
        together=True,
    )
    finish = _Finish(model, shape, options.recenter, batch.keypoints)
    trajectory = None
    if return_trajectory:
        trajectory = finish(jnp.swapaxes(drawn["trajectory"], 1, 2))
    return SampleResult(samples=finish(drawn["samples"]), trajectory=trajectory)


@dataclasses.dataclass(frozen=True)
class _Finish:
    """From states `(B, ..., F, J, C)` to poses."""

    model: DiffHPEDenoiser
    shape: NoiseShape
    recenter: bool
    keypoints: Array

    def __call__(self, states: Array) -> Array:
        poses = states if self.shape.std is None else states * self.shape.std.astype(states.dtype)
        if self.model.depth_only:
            # As released: x and y of the result are the keypoints.
            points = jnp.asarray(self.keypoints)
            lead = (len(points), *[1] * (poses.ndim - points.ndim))
            points = jnp.broadcast_to(
                points.reshape(*lead, *points.shape[1:]), (*poses.shape[:-1], 2)
            )
            poses = jnp.concatenate([points.astype(poses.dtype), poses], axis=-1)
        if not self.recenter:
            return poses
        root = self.model.skeleton.root
        return poses - poses[..., root : root + 1, :]


def _starting_state(
    pose: Array | None,
    batch: PoseBatch,
    window: tuple[int, ...],
    schedule: Schedule,
    shape: NoiseShape,
    options: SamplerOptions,
) -> Array | None:
    if (pose is None) != (not options.last_steps):
        raise ValueError(
            "starting_pose: expected together with sampler.last_steps, got "
            f"{'none' if pose is None else 'one'} and last_steps={options.last_steps}"
        )
    if pose is None:
        return None
    expected = (batch.num_items, *window)
    if jnp.shape(pose) != expected:
        raise ValueError(f"starting_pose: expected {expected}, got {jnp.shape(pose)}")
    first = jnp.asarray(run_times(schedule, options)[0])
    return shape.hidden(schedule, jnp.asarray(pose), first)
