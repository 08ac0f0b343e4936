"""DiffHPE (Rommel et al., ICCV workshops 2023): noise-predicting DDPM over windows of poses.

`diffhpe_2d` is told the 2D keypoints (Eq. 9), `diffhpe_wrapper` the features of a lifter (Eq. 11),
frozen or trained along. Follows the released code where it differs from the paper; the options name
the paper's side. Loss: `systems.diffhpe_loss`; sampling: `systems.diffhpe_sampling`.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.diffhpe import (
    DiffHPEDenoiser,
    Mix,
    check_options,
    init_variables,
    joint_groups,
)
from posediff_jax.denoisers.grouped import Grouping
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.process.schedules import Schedule, cosine_schedule, power_schedule
from posediff_jax.skeleton import Skeleton, get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.diffhpe_loss import LossOptions, check_loss, training_loss
from posediff_jax.systems.diffhpe_parts import Dropped, Guidance, freeze_lifter, noise_shape
from posediff_jax.systems.diffhpe_sampling import SamplerOptions, check_sampler, sample_poses
from posediff_jax.types import Array, Variables


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """What the sections `model` of both forms share; see `DiffHPEDenoiser` for most fields.

    Attributes:
      visibility: Show the network, or its lifter, which joints are seen (confidence above 0) in a
        third channel.
      groups: Groups of joints for the attention; empty for the published ones of the skeleton.
      dropped: What an unconditional evaluation is not told: the "condition" after its encoder, or
        the "keypoints" before it.
      dropped_share: Share of the joints in single frames that it is not told, drawn at random;
        below 1 only with "keypoints".
      dtype: Compute type; parameters, normalisation, sampler state and loss stay float32.
    """

    num_frames: int = 27
    width: int = 64
    num_blocks: int = 16
    step_width: int = 128
    dropout: float = 0.032
    non_local: bool = True
    visibility: bool = False
    groups: tuple[tuple[int, ...], ...] = ()
    grouping: Grouping = "official"
    dropped: Dropped = "condition"
    dropped_share: float = 1.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class ModelOptions(NetworkOptions):
    """The section `model` of DiffHPE-2D.

    Attributes:
      condition: "keypoints", or "none" for a model of motion alone.
      depth_only: Only z is diffused; the keypoints stand for x and y.
    """

    condition: Literal["keypoints", "none"] = "keypoints"
    depth_only: bool = False


@dataclasses.dataclass(frozen=True)
class WrapperModelOptions(NetworkOptions):
    """The section `model` of DiffHPE-Wrapper.

    Attributes:
      condition: "features" of the lifter, or its "pose".
      mix: "concat" or "sum", see `DiffHPEDenoiser`.
      encode_pose: See `DiffHPEDenoiser`.
      lifter: "frozen", or "trained" along with the denoiser from scratch.
      lifter_width: C of the lifter, a MixSTE.
      lifter_depth: Its pairs of blocks.
      lifter_heads: Its heads.
      lifter_mlp_ratio: Hidden width of its MLPs over its C.
      lifter_drop_path: Its stochastic depth if it is trained along.
    """

    dropout: float = 0.2703806090969092
    condition: Literal["features", "pose"] = "features"
    mix: Mix = "concat"
    encode_pose: bool = True
    lifter: Literal["frozen", "trained"] = "frozen"
    lifter_width: int = 64
    lifter_depth: int = 8
    lifter_heads: int = 8
    lifter_mlp_ratio: float = 2.0
    lifter_drop_path: float = 0.0


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """The section `process` of a config.

    Attributes:
      schedule: "cosine", "linear" or "quad".
      num_timesteps: T.
      beta_start: First variance of "linear" and "quad".
      beta_end: Their last variance; with "cosine" the largest.
      clip: Bound of the x_0 estimate, metres; 0 for none, as published.
      noise_std: Standard deviation of the noise in each coordinate, joint by joint (J * 3 numbers);
        empty for 1 (anisotropic noise, which the release can read from files).
      noise_mean: Its mean, likewise; empty for 0.
    """

    schedule: Literal["cosine", "linear", "quad"] = "cosine"
    num_timesteps: int = 50
    beta_start: float = 1e-4
    beta_end: float = 0.5
    clip: float = 0.0
    noise_std: tuple[float, ...] = ()
    noise_mean: tuple[float, ...] = ()


def from_config_2d(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """DiffHPE-2D, from the sections `model`, `process`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: nothing in it is frozen.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, DiffHPE-2D has no frozen part")
    options = read_options(ModelOptions, config["model"], where="model")
    skeleton = get_skeleton(config["skeleton"])
    return _system(config, options, make_network(options, skeleton, config), None)


def from_config_wrapper(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """DiffHPE-Wrapper, from the same sections.

    The variables that `init` gives hold the frozen lifter as a collection of their own, so that a
    checkpoint has all that sampling needs: only `init` needs `frozen`.

    Args:
      config: An experiment's config.
      frozen: Variables of a MixSTE of `model.lifter_width`, `lifter_depth` and `lifter_heads`, with
        the frames and the skeleton of this config; its head may be missing where it is not used.

    Raises:
      ValueError: An unknown field or name, a value that the part it configures refuses, or a lifter
        of another width, depth, number of frames or joints.
      TypeError: A value of the wrong type.
    """
    options = read_options(WrapperModelOptions, config["model"], where="model")
    skeleton = get_skeleton(config["skeleton"])
    model = make_network(options, skeleton, config)
    if options.lifter == "trained" and frozen is not None:
        raise ValueError("frozen: expected None with model.lifter='trained', got variables")
    return _system(config, options, model, frozen)


def make_network(
    options: ModelOptions | WrapperModelOptions, skeleton: Skeleton, config: Mapping[str, Any]
) -> DiffHPEDenoiser:
    """The denoiser that a config describes.

    Args:
      options: Its section `model`.
      skeleton: Its joints.
      config: The config, for `process.num_timesteps`.

    Raises:
      ValueError: Options that do not fit together.
    """
    dtype = read_dtype(options.dtype, where="model.dtype")
    fields: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            *("num_frames", "width", "num_blocks", "step_width", "dropout", "non_local"),
            *("grouping", "visibility"),
        )
    }
    if isinstance(options, ModelOptions):
        fields["depth_only"] = options.depth_only
    else:
        fields |= {"mix": options.mix, "encode_pose": options.encode_pose}
        fields["lifter"] = MixSTE(
            skeleton,
            num_frames=options.num_frames,
            width=options.lifter_width,
            depth=options.lifter_depth,
            num_heads=options.lifter_heads,
            mlp_ratio=options.lifter_mlp_ratio,
            drop_path=options.lifter_drop_path if options.lifter == "trained" else 0.0,
            visibility=options.visibility,
            dtype=dtype,
        )
    if not 0 <= options.dropout < 1:
        raise ValueError(f"model.dropout: expected 0 <= dropout < 1, got {options.dropout}")
    groups = tuple(tuple(int(j) for j in group) for group in options.groups) or None
    if options.non_local:
        joint_groups(skeleton, groups)
    process = read_options(ProcessOptions, config["process"], where="process")
    model = DiffHPEDenoiser(
        skeleton,
        **fields,
        num_timesteps=process.num_timesteps,
        source=options.condition,
        groups=groups,
        dtype=dtype,
    )
    check_options(model)
    return model


def diffhpe_schedule(options: ProcessOptions, *, dtype: Any = jnp.float32) -> Schedule:
    """The tables of the process.

    Args:
      options: The section `process`.
      dtype: Type of the tables.

    Raises:
      ValueError: A number out of range.
    """
    T, start, end = options.num_timesteps, options.beta_start, options.beta_end
    if options.schedule == "cosine":
        return cosine_schedule(T, max_beta=end, dtype=dtype)
    power = {"linear": 1, "quad": 2}[options.schedule]
    return power_schedule(T, beta_start=start, beta_end=end, power=power, dtype=dtype)


def _system(
    config: Mapping[str, Any],
    options: ModelOptions | WrapperModelOptions,
    model: DiffHPEDenoiser,
    frozen: Variables | None,
) -> System:
    process = read_options(ProcessOptions, config["process"], where="process")
    schedule = diffhpe_schedule(process)
    if process.clip < 0:
        raise ValueError(f"process.clip: expected 0 (none) or more, got {process.clip}")
    shape = noise_shape(process.noise_std, process.noise_mean, model)
    loss = read_options(LossOptions, config["loss"], where="loss")
    check_loss(loss, model)
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    check_sampler(sampler, schedule, unconditional=loss.unconditional)
    guidance = Guidance(options.dropped, options.dropped_share, sampler.guidance)
    init = partial(init_variables, model=model)
    if isinstance(options, WrapperModelOptions) and options.lifter == "frozen":
        if frozen is not None:
            # Refused now, not when training begins.
            freeze_lifter(jax.eval_shape(init, jax.random.key(0)), frozen, model)
        init = partial(_init_frozen, model, frozen)
    bound: dict[str, Any] = {
        "model": model,
        "schedule": schedule,
        "shape": shape,
        "guidance": guidance,
    }
    return System(
        init=init,
        loss=partial(training_loss, options=loss, **bound),
        sample=partial(sample_poses, options=sampler, clip=process.clip, **bound),
    )


def _init_frozen(model: DiffHPEDenoiser, frozen: Variables | None, key: Array) -> dict[str, Any]:
    if frozen is None:
        raise ValueError(
            "frozen: expected the variables of a MixSTE to start from, got None; give its "
            "checkpoint as config.frozen.checkpoint, or set model.lifter='trained'"
        )
    return freeze_lifter(init_variables(key, model), frozen, model)
