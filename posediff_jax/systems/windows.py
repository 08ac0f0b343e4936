"""What the systems over windows of poses share: MixSTE, D3DP and DDHPose.

Options, flip averaging inside each step, fan-out over windows, training draws by window.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.config import read_dtype, read_options
from posediff_jax.geometry import flip, safe_norm
from posediff_jax.keys import item_keys
from posediff_jax.process.schedules import Schedule, make_schedule
from posediff_jax.samplers.discrete import sample_ddim
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton
from posediff_jax.types import Array, PoseBatch, PredictFn, PyTree, SampleResult, Variables

Network = TypeVar("Network")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `D3DPDenoiser` for the fields.

    Attributes:
      visibility: Show the network which joints are seen (confidence above 0) in a third channel.
      dtype: Compute type; parameters, softmax, norms, sampler state and loss stay float32.
    """

    num_frames: int = 243
    width: int = 512
    depth: int = 8
    num_heads: int = 8
    drop_path: float = 0.1
    mlp_ratio: float = 2.0
    visibility: bool = False
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

    gradient: Literal["plain", "loss_times"] = "plain"


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


def read_network(
    network: Callable[..., Network],
    options: type[ModelOptions],
    config: Mapping[str, Any],
    **fields: Any,
) -> Network:
    """The network that the sections `skeleton` and `model` describe, with further `fields`.

    Raises:
      ValueError: An unknown field, skeleton or `dtype`; and what the network refuses.
      TypeError: A value of the wrong type.
    """
    model = read_options(options, config["model"], where="model")
    dtype = read_dtype(model.dtype, where="model.dtype")
    fields = {**dataclasses.asdict(model), "dtype": dtype, **fields}
    return network(get_skeleton(config["skeleton"]), **fields)


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


def network_input(keypoints: Array, batch: PoseBatch, model: Any) -> Array:
    """What a network sees of `(..., J, 2)` keypoints: with `visibility` a third channel, 0 or 1."""
    if not model.visibility:
        return keypoints
    seen = jnp.asarray(batch.confidence)[..., None] > 0
    return jnp.concatenate([keypoints, seen.astype(keypoints.dtype)], axis=-1)


def mirrored_pair(keypoints: Array, skeleton: Skeleton, *, mirrored: bool) -> Array:
    """`(..., F, J, C)` to `(2, ...)` with the mirror image behind it, or `(1, ...)` without."""
    return jnp.stack([keypoints, flip(keypoints, skeleton)] if mirrored else [keypoints])


def average_pair(poses: Array, skeleton: Skeleton) -> Array:
    """Mean of an estimate and the mirrored second one, `(2, ...)`; or the only one, `(1, ...)`."""
    return poses[0] if len(poses) == 1 else (poses[0] + flip(poses[1], skeleton)) / 2


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
    last_record_like: PyTree | None = None,
) -> SampleResult:
    """`sample_ddim` as D3DP and DDHPose run it; `records` are the `aux` of all iterations, poses.

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
        record=lambda prediction: prediction.aux,
        last_record_like=last_record_like,
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
      sample_one: `(key, encoded (P, F, J, C)) -> poses (F, J, 3)`; with `return_trajectory` those
        of all iterations, `(W, F, J, 3)`.
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
    keypoints = network_input(batch.keypoints, batch, model)
    pair = mirrored_pair(keypoints, model.skeleton, mirrored=options.flip)
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
    if not return_trajectory:
        return SampleResult(samples=poses)
    return SampleResult(samples=poses[:, :, -1], trajectory=jnp.swapaxes(poses, 1, 2))


def apply_windows(
    keys: Array,
    model: Any,
    variables: Variables,
    *inputs: PyTree,
    train: bool,
    method: str = "__call__",
) -> Any:
    """The network on a batch whose windows draw their stochastic depth each from its own key.

    So what is dropped in a window does not depend on its place in the batch, or on its device.

    Args:
      keys: One key per window, `(B,)`.
      model: The network.
      variables: Its variables.
      *inputs: What the network takes, leaves `(B, ...)`.
      train: Stochastic depth.
      method: Which one of the network's.
    """

    def one(key: Array, *window: PyTree) -> Any:
        rngs = {"drop_path": key}
        return model.apply(variables, *window, train=train, rngs=rngs, method=method)

    return jax.vmap(one)(keys, *inputs)


def joint_distance(output: Array, pose: Array) -> Array:
    """Mean joint distance of each frame, `(..., J, 3)` to `(...)`, in at least float32."""
    output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    return jnp.mean(safe_norm(output - pose), axis=-1)


def scale_gradient(loss: Array, gradient: str, *, axis_name: str | None = None) -> Array:
    """The same value; with "loss_times" its gradient is multiplied by the (global) value."""
    if gradient == "plain":
        return loss
    value = jax.lax.stop_gradient(loss)
    factor = value if axis_name is None else jax.lax.pmean(value, axis_name)
    return value + factor * (loss - value)
