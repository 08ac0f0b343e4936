"""DiffuPose (Choi, Shim and Kim): noise-predicting DDPM over one frame, conditioned on 2D joints.

Equation numbers are those of `arxiv v2`. Follows the released code where it differs from the
papers; the options name the papers' side.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.denoisers.graph import Normalisation
from posediff_jax.denoisers.unet import PoseUNet
from posediff_jax.geometry import flip
from posediff_jax.keys import frame_keys
from posediff_jax.process.schedules import Schedule, make_schedule, prediction_from_eps, q_sample
from posediff_jax.samplers.discrete import sample_ddim, sample_ddpm
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import check_factors, device_key, masked_mean, training_pair
from posediff_jax.types import Array, Aux, PoseBatch, PredictFn, Prediction, SampleResult, Variables

SamplerName = Literal["ddim", "ddpm"]

# Knees and elbows count 2, ankles and wrists 4 (released loss). HumanEva's list is the released
# one with its typing error mended; it does not match that skeleton's joint order anatomically.
JOINT_WEIGHTS: dict[str, tuple[float, ...]] = {
    "h36m_17": (1, 1, 2, 4, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 1, 2, 4),
    "h36m_16": (1, 1, 2, 4, 1, 2, 4, 1, 1, 1, 1, 2, 4, 1, 2, 4),
    "humaneva_15": (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4),
}


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `DiffuPoseGCN` for the fields of the graph network.

    Attributes:
      network: "gcn", or "unet" for this package's own U-Net baseline.
      dtype: Compute type; parameters, normalisation, sampler state and loss stay float32.
    """

    network: Literal["gcn", "unet"] = "gcn"
    width: int = 384
    num_blocks: int = 4
    non_local: bool = True
    adjacency: Normalisation = "row"
    modulated: bool = True
    mask: bool = False
    dropout: float = 0.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """The section `process` of a config.

    Attributes:
      schedule: "cosine" or "linear".
      num_timesteps: T.
      clip: Bound of the x_0 estimate in metres; what keeps the first step stable.
    """

    schedule: str = "cosine"
    num_timesteps: int = 100
    clip: float = 1.0


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The section `loss` of a config.

    Attributes:
      joint_weights: "diffupose" (1, 2 and 4, not normalised) or "uniform".
      condition_weight: Factor on the reconstructed 2D channels, the papers' lambda.
    """

    joint_weights: str = "diffupose"
    condition_weight: float = 0.8

    def __post_init__(self) -> None:
        check_factors(self, "condition_weight")


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config.

    Attributes:
      name: "ddim" or "ddpm" (all T steps).
      num_steps: Steps of DDIM.
      eta: Stochasticity of DDIM.
      rederive: See `sample_ddim`.
      flip: Each hypothesis is the mean of one sample and the un-flipped sample for the mirrored
        keypoints, as in the released test code: N hypotheses run 2N chains, and their spread is
        that of such means.
      max_chains: Chains in memory at a time; 0 for all.
    """

    name: SamplerName = "ddim"
    num_steps: int = 10
    eta: float = 0.0
    rederive: bool = True
    flip: bool = True
    max_chains: int = 0


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `process`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: DiffuPose has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, DiffuPose has no frozen part")
    skeleton = get_skeleton(config["skeleton"])
    process = read_options(ProcessOptions, config["process"], where="process")
    model = make_network(read_options(ModelOptions, config["model"], where="model"), skeleton)
    schedule = make_schedule(process.schedule, process.num_timesteps)
    loss_options = read_options(LossOptions, config["loss"], where="loss")
    weights = joint_weights(loss_options.joint_weights, skeleton)
    if not process.clip > 0:
        raise ValueError(f"process.clip: expected more than 0, got {process.clip}")
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    _check_sampler(sampler, schedule)
    return System(
        init=partial(_init, model, skeleton),
        loss=partial(_loss, model, skeleton, schedule, weights, loss_options.condition_weight),
        sample=partial(_sample, model, skeleton, schedule, process.clip, sampler),
    )


def make_network(options: ModelOptions, skeleton: Skeleton) -> nn.Module:
    """The denoiser that a config names.

    Raises:
      ValueError: Unknown `network` or `dtype`, or a field of the graph network for the U-Net.
    """
    dtype = read_dtype(options.dtype, where="model.dtype")
    if options.network == "unet":
        fixed = dataclasses.replace(ModelOptions(), network="unet", dtype=options.dtype)
        if options != fixed:
            raise ValueError(
                "model: the U-Net has one size and takes no field but network and dtype, "
                f"got {options}"
            )
        return PoseUNet(skeleton, dtype=dtype)
    return DiffuPoseGCN(
        skeleton,
        width=options.width,
        num_blocks=options.num_blocks,
        non_local=options.non_local,
        adjacency=options.adjacency,
        modulated=options.modulated,
        mask=options.mask,
        dropout=options.dropout,
        dtype=dtype,
    )


def joint_weights(name: str, skeleton: Skeleton) -> np.ndarray:
    """The loss weight of each joint, `(J,)`: "diffupose" or "uniform".

    Raises:
      ValueError: Unknown name, or a skeleton that the paper gives no weights for.
    """
    if name == "uniform":
        return np.ones(skeleton.num_joints)
    if name != "diffupose":
        raise ValueError(f"loss.joint_weights: expected 'diffupose' or 'uniform', got {name!r}")
    if skeleton.name not in JOINT_WEIGHTS:
        raise ValueError(
            f"loss.joint_weights: 'diffupose' is defined for {sorted(JOINT_WEIGHTS)}, "
            f"got skeleton {skeleton.name!r}; use 'uniform'"
        )
    return np.asarray(JOINT_WEIGHTS[skeleton.name], np.float64)


def weighted_l1(
    output: Array, noise: Array, cond: Array, weights: np.ndarray, condition_weight: float
) -> tuple[Array, Array]:
    """Mean of w_j r_c |output - target| over joints and the 5 channels (Eq. 8 and 9).

    Args:
      output: Network output, `(..., J, 5)`.
      noise: Target of the first three channels, `(..., J, 3)`.
      cond: Target of the last two, `(..., J, 2)`.
      weights: w_j, `(J,)`.
      condition_weight: r_c of the last two channels; 1 for the others.

    Returns:
      The weighted value and the one with w_j = 1, each `(...)`, in at least float32.
    """
    output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    error = jnp.abs(output - jnp.concatenate([noise, cond], axis=-1))
    error = error * jnp.asarray([1.0] * 3 + [condition_weight] * 2, error.dtype)
    per_joint = jnp.mean(error, axis=-1)
    return jnp.mean(per_joint * weights.astype(error.dtype), axis=-1), jnp.mean(per_joint, axis=-1)


def bind_predict(
    model: nn.Module, variables: Variables, cond: Array, *, schedule: Schedule, clip: float
) -> PredictFn:
    """Binds weights and condition for the samplers; x_0 is clipped, eps is the network's own.

    Args:
      model: A denoiser with the call of `DiffuPoseGCN`.
      variables: Its variables.
      cond: 2D joints in screen units, `(..., J, 2)`.
      schedule: Tables of the process.
      clip: Bound of the x_0 estimate, metres.
    """

    def predict(x_t: Array, t: Array) -> Prediction:
        # At least float32 for the state, also under a bfloat16 network.
        output: Any = model.apply(variables, cond, x_t, t)
        eps = output[..., :3].astype(x_t.dtype)
        return prediction_from_eps(schedule, x_t, t, eps, clip=clip)

    return predict


def _init(model: nn.Module, skeleton: Skeleton, key: Array) -> dict[str, Any]:
    cond = jnp.zeros((1, skeleton.num_joints, 2))
    x_t = jnp.zeros((1, skeleton.num_joints, 3))
    return dict(model.init(key, cond, x_t, jnp.zeros((1,), jnp.int32)))


def _loss(
    model: nn.Module,
    skeleton: Skeleton,
    schedule: Schedule,
    weights: np.ndarray,
    condition_weight: float,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Aux]:
    pose, cond = training_pair(batch, skeleton)
    keys = frame_keys(key, batch.index, pose.shape[1])
    t, noise = jax.vmap(jax.vmap(partial(_draw_target, schedule)))(keys, pose)
    output = model.apply(
        variables,
        cond,
        q_sample(schedule, pose, t, noise),
        t,
        train=train,
        mask=batch.mask,
        axis_name=axis_name,
        rngs={"dropout": device_key(key, axis_name)},
        mutable=["batch_stats"] if train else [],
    )
    output, mutable = output
    weighted, plain = weighted_l1(output, noise, cond, weights, condition_weight)
    loss = masked_mean(weighted, batch.mask, axis_name=axis_name)
    unweighted = masked_mean(plain, batch.mask, axis_name=axis_name)
    return loss, Aux(metrics={"loss": loss, "unweighted_loss": unweighted}, mutable=mutable)


def _draw_target(schedule: Schedule, key: Array, pose: Array) -> tuple[Array, Array]:
    """A timestep and the noise for one frame; the root joint is noised like the others."""
    t_key, noise_key = jax.random.split(key)
    t = jax.random.randint(t_key, (), 0, schedule.num_timesteps)
    return t, jax.random.normal(noise_key, pose.shape, pose.dtype)


def _sample(
    model: nn.Module,
    skeleton: Skeleton,
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
    check_joints(batch.keypoints, skeleton, channels=2, name="batch.keypoints")
    num_items, num_frames = batch.keypoints.shape[:2]

    def one_chain(chain_key: Array, cond: Array) -> SampleResult:
        start_key, noise_key = jax.random.split(chain_key)
        x_init = jax.random.normal(start_key, (*cond.shape[:-1], 3), cond.dtype)
        predict = bind_predict(model, variables, cond, schedule=schedule, clip=clip)
        return run_sampler(
            noise_key, predict, x_init, schedule, options, return_trajectory=return_trajectory
        )

    def one_hypothesis(chain_key: Array, cond: Array) -> SampleResult:
        if not options.flip:
            return one_chain(chain_key, cond)
        # The plain chain keeps its key, so it is the same with and without flipping.
        keys = jnp.stack([chain_key, jax.random.fold_in(chain_key, 1)])
        pair = jax.vmap(one_chain)(keys, jnp.stack([cond, flip(cond, skeleton)]))
        return jax.tree.map(lambda x: (x[0] + flip(x[1], skeleton)) / 2, pair)

    keys = frame_keys(key, batch.index, num_frames).reshape(-1)
    items = batch.keypoints.reshape(-1, *batch.keypoints.shape[2:])
    result = fan_out(
        keys,
        one_hypothesis,
        items,
        num_hypotheses=num_hypotheses,
        max_chains=options.max_chains,
    )
    frames_apart = jax.tree.map(
        lambda x: x.reshape(num_items, num_frames, *x.shape[1:]), result
    )  # (B, F, H, [N,] J, 3)
    trajectory = frames_apart.trajectory
    return SampleResult(
        samples=jnp.moveaxis(frames_apart.samples, 1, 2),
        trajectory=None if trajectory is None else jnp.transpose(trajectory, (0, 3, 2, 1, 4, 5)),
    )


def run_sampler(
    key: Array,
    predict: PredictFn,
    x_init: Array,
    schedule: Schedule,
    options: SamplerOptions,
    *,
    return_trajectory: bool = False,
) -> SampleResult:
    """Runs the sampler that the options name."""
    if options.name == "ddpm":
        return sample_ddpm(
            key, predict, x_init, schedule=schedule, return_trajectory=return_trajectory
        )
    return sample_ddim(
        key,
        predict,
        x_init,
        schedule=schedule,
        num_steps=options.num_steps,
        eta=options.eta,
        rederive=options.rederive,
        return_trajectory=return_trajectory,
    )


def _check_sampler(options: SamplerOptions, schedule: Schedule) -> None:
    """Refuses at build time what the samplers would refuse at the first batch."""
    if options.name == "ddim" and not 1 <= options.num_steps <= schedule.num_timesteps:
        raise ValueError(
            f"sampler.num_steps: expected 1 to {schedule.num_timesteps} (process.num_timesteps), "
            f"got {options.num_steps}"
        )
    if not 0.0 <= options.eta <= 1.0:
        raise ValueError(f"sampler.eta: expected a value in [0, 1], got {options.eta}")
    if options.max_chains < 0:
        raise ValueError(f"sampler.max_chains: expected 0 or more, got {options.max_chains}")
