"""D3DP (Shan et al., ICCV 2023): DDIM over windows of poses with an x0-predicting MixSTE.

Also what DDHPose shares with it: options, flip averaging inside each step, fan-out over windows.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.mixste import D3DPDenoiser
from posediff_jax.geometry import flip, safe_norm
from posediff_jax.keys import item_keys
from posediff_jax.process.schedules import Schedule, eps_from_x0, make_schedule, q_sample
from posediff_jax.samplers.discrete import ddim_times, sample_ddim
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import device_key, masked_mean, training_pair
from posediff_jax.types import Array, Aux, PoseBatch, PredictFn, PyTree, SampleResult, Variables


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `D3DPDenoiser` for the fields.

    Attributes:
      dtype: Compute type; parameters, softmax, norms, sampler state and loss stay float32.
    """

    num_frames: int = 243
    width: int = 512
    depth: int = 8
    num_heads: int = 8
    drop_path: float = 0.1
    mlp_ratio: float = 2.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """The section `process` of a config.

    Attributes:
      schedule: "cosine" or "linear".
      num_timesteps: T.
      clip: Bound of noisy inputs and of estimates, metres.
    """

    schedule: str = "cosine"
    num_timesteps: int = 1000
    clip: float = 1.1


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The section `loss` of a config.

    Attributes:
      gradient: "plain", or "loss_times" for the gradient of the released scripts, which
        back-propagate the loss times its own gradient.
    """

    gradient: str = "plain"

    def __post_init__(self) -> None:
        if self.gradient not in ("plain", "loss_times"):
            raise ValueError(
                f"loss.gradient: expected 'plain' or 'loss_times', got {self.gradient!r}"
            )


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config.

    Attributes:
      num_steps: W, iterations of DDIM.
      eta: Stochasticity of DDIM; the papers have 1.
      flip: Average each estimate with that for the mirrored window, in each iteration.
      max_chains: Hypotheses in memory at a time; 0 for all.
    """

    num_steps: int = 1
    eta: float = 1.0
    flip: bool = True
    max_chains: int = 0


class PosePrediction(NamedTuple):
    """A `Prediction` and the pose that it says, `(..., F, J, 3)`."""

    x0: PyTree
    eps: PyTree
    pose: Array


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
    skeleton = get_skeleton(config["skeleton"])
    process, schedule = read_process(config["process"])
    options = read_options(ModelOptions, config["model"], where="model")
    fields = dataclasses.asdict(options) | {
        "dtype": read_dtype(options.dtype, where="model.dtype"),
        "num_timesteps": process.num_timesteps,
    }
    model = D3DPDenoiser(skeleton, **fields)
    loss = read_options(LossOptions, config["loss"], where="loss")
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    check_sampler(sampler, schedule)
    return System(
        init=partial(_init, model),
        loss=partial(_loss, model, schedule, process.clip, loss),
        sample=partial(_sample, model, schedule, process.clip, sampler),
    )


def read_process(config: Mapping[str, Any]) -> tuple[ProcessOptions, Schedule]:
    """The section `process`, and the tables that it describes.

    Raises:
      ValueError: `clip` is not above 0; and errors as in `read_options` and `make_schedule`.
    """
    options = read_options(ProcessOptions, config, where="process")
    if not options.clip > 0:
        raise ValueError(f"process.clip: expected more than 0, got {options.clip}")
    return options, make_schedule(options.schedule, options.num_timesteps)


def check_sampler(options: SamplerOptions, schedule: Schedule) -> None:
    """Refuses at build time what the sampler would refuse at the first batch.

    Raises:
      ValueError: A value out of range.
    """
    if not 1 <= options.num_steps <= schedule.num_timesteps:
        raise ValueError(
            f"sampler.num_steps: expected 1 to {schedule.num_timesteps} (process.num_timesteps), "
            f"got {options.num_steps}"
        )
    if not 0.0 <= options.eta <= 1.0:
        raise ValueError(f"sampler.eta: expected a value in [0, 1], got {options.eta}")
    if options.max_chains < 0:
        raise ValueError(f"sampler.max_chains: expected 0 or more, got {options.max_chains}")


def bind_denoise(
    model: Any,
    variables: Variables,
    encoded: Array,
    *,
    num_timesteps: int,
    times: NDArray[np.int32],
) -> Callable[[PyTree, Array], Array]:
    """Binds weights and condition; the time path runs here, for all steps at once.

    Args:
      model: A denoiser with `embed_times` and `denoise`.
      variables: Its variables.
      encoded: What its `encode` gave, `(..., F, J, C)`.
      num_timesteps: T.
      times: Timesteps of the run, `(W,)`.

    Returns:
      `(state, t) -> pose` with a scalar t out of `times`.
    """
    rows = model.apply(variables, jnp.asarray(times), method="embed_times")
    position = np.zeros(num_timesteps, np.int32)
    position[np.asarray(times)] = np.arange(len(times))

    def denoise(state: PyTree, t: Array) -> Array:
        row = rows[jnp.asarray(position)[t]]
        return model.apply(variables, encoded, state, row, method="denoise")

    return denoise


def mirrored_pair(keypoints: Array, skeleton: Skeleton, *, mirrored: bool) -> Array:
    """`(..., F, J, 2)` to `(2, ...)` with the mirror image behind it, or `(1, ...)` without."""
    return jnp.stack([keypoints, flip(keypoints, skeleton)] if mirrored else [keypoints])


def average_pair(poses: Array, skeleton: Skeleton) -> Array:
    """Mean of an estimate and the mirrored second one, `(2, ...)`; or the only one, `(1, ...)`."""
    return poses[0] if len(poses) == 1 else (poses[0] + flip(poses[1], skeleton)) / 2


def bind_predict(
    model: D3DPDenoiser,
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

    def predict(x_t: Array, t: Array) -> PosePrediction:
        state = jnp.clip(x_t, -clip, clip)
        pair = jnp.stack([state, flip(state, skeleton)][: len(encoded)])
        pose = average_pair(denoise(pair, t).astype(x_t.dtype), skeleton)
        x0 = jnp.clip(pose, -clip, clip)
        return PosePrediction(x0=x0, eps=eps_from_x0(schedule, x_t, t, x0), pose=x0)

    return predict  # type: ignore[return-value]


def run_ddim(
    key: Array,
    predict: PredictFn,
    x_init: PyTree,
    *,
    schedule: Schedule,
    num_steps: int,
    eta: float = 1.0,
    noise: PyTree | None = None,
    return_trajectory: bool = False,
) -> SampleResult:
    """`sample_ddim` as D3DP and DDHPose run it; `records` are the poses of all iterations.

    Arguments and errors as in `sample_ddim`.
    """
    return sample_ddim(
        key,
        predict,
        x_init,
        schedule=schedule,
        num_steps=num_steps,
        eta=eta,
        rederive=False,
        noise=noise,
        return_trajectory=return_trajectory,
        record=lambda prediction: prediction.pose,  # type: ignore[attr-defined]
    )


def sample_windows(
    key: Array,
    sample_one: Callable[[Array, Array], Array],
    model: Any,
    variables: Variables,
    batch: PoseBatch,
    *,
    num_hypotheses: int,
    options: SamplerOptions,
    return_trajectory: bool = False,
) -> SampleResult:
    """Encodes each window once and draws its hypotheses; the root joint is put to 0.

    Args:
      key: Random key.
      sample_one: `(key, encoded (P, F, J, C)) -> poses of all iterations (W, F, J, 3)`.
      model: The denoiser.
      variables: Its variables.
      batch: Windows.
      num_hypotheses: H.
      options: The section `sampler`.
      return_trajectory: Also return the poses of all iterations.

    Raises:
      ValueError: Keypoints of another skeleton, or errors as in `fan_out`.
    """
    check_joints(batch.keypoints, model.skeleton, channels=2, name="batch.keypoints")
    pair = mirrored_pair(batch.keypoints, model.skeleton, mirrored=options.flip)
    encoded = jnp.moveaxis(model.apply(variables, pair, method="encode"), 0, 1)
    poses = fan_out(
        item_keys(key, batch.index),
        sample_one,
        encoded,
        num_hypotheses=num_hypotheses,
        max_chains=options.max_chains,
    )
    # The networks do not force the root joint to the origin; the papers' evaluation does.
    poses = poses.at[..., model.skeleton.root, :].set(0)
    trajectory = jnp.swapaxes(poses, 1, 2) if return_trajectory else None
    return SampleResult(samples=poses[:, :, -1], trajectory=trajectory)


def scale_gradient(loss: Array, gradient: str, *, axis_name: str | None = None) -> Array:
    """The same value; with "loss_times" its gradient is multiplied by the (global) value."""
    if gradient == "plain":
        return loss
    value = jax.lax.stop_gradient(loss)
    factor = value if axis_name is None else jax.lax.pmean(value, axis_name)
    return value + factor * (loss - value)


def _init(model: D3DPDenoiser, key: Array) -> dict[str, Any]:
    window = (1, model.num_frames, model.skeleton.num_joints)
    inputs = jnp.zeros((*window, 2)), jnp.zeros((*window, 3)), jnp.zeros(1, jnp.int32)
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
    t, noise = jax.vmap(partial(_draw_target, schedule))(item_keys(key, batch.index), pose)
    x_t = jnp.clip(q_sample(schedule, pose, t, noise), -clip, clip)
    rngs = {"drop_path": device_key(key, axis_name)}
    output: Any = model.apply(variables, keypoints, x_t, t, train=train, rngs=rngs)
    loss = masked_mean(joint_distance(output, pose), batch.mask, axis_name=axis_name)
    scaled = scale_gradient(loss, options.gradient, axis_name=axis_name)
    return scaled, Aux(metrics={"loss": loss}, mutable={})


def joint_distance(output: Array, pose: Array) -> Array:
    """Mean joint distance of each frame, `(..., J, 3)` to `(...)`, in at least float32."""
    output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    return jnp.mean(safe_norm(output - pose), axis=-1)


def _draw_target(schedule: Schedule, key: Array, pose: Array) -> tuple[Array, Array]:
    """One timestep for the whole window, and noise for all joints, the root too."""
    t_key, noise_key = jax.random.split(key)
    t = jax.random.randint(t_key, (), 0, schedule.num_timesteps)
    return t, jax.random.normal(noise_key, pose.shape, pose.dtype)


def _sample(
    model: D3DPDenoiser,
    schedule: Schedule,
    clip: float,
    options: SamplerOptions,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    num_hypotheses: int,
    return_trajectory: bool = False,
) -> SampleResult:
    times = ddim_times(schedule.num_timesteps, options.num_steps)[:-1]
    window = (*batch.keypoints.shape[1:-1], 3)

    def sample_one(chain_key: Array, encoded: Array) -> Array:
        start_key, noise_key = jax.random.split(chain_key)
        predict = bind_predict(model, variables, encoded, schedule=schedule, times=times, clip=clip)
        x_init = jax.random.normal(start_key, window, batch.keypoints.dtype)
        steps: dict[str, Any] = {"num_steps": options.num_steps, "eta": options.eta}
        return run_ddim(noise_key, predict, x_init, schedule=schedule, **steps).records

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
