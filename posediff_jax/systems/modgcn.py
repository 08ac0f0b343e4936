"""Modulated-GCN (Zou and Tang, ICCV 2021): regression from one frame of 2D joints.

The network that DiffuPose's denoiser grew from, as a deterministic system to compare with.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.modgcn import VARIANTS, ModulatedGCN
from posediff_jax.geometry import flip, root_center, safe_norm
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import device_key, masked_mean, training_pair
from posediff_jax.types import Array, Aux, PoseBatch, SampleResult, Variables


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `ModulatedGCN` for the fields.

    Attributes:
      variant: "gt", "benchmark" or "grouped": the released values of all fields that the config
        does not name.
      dtype: Compute type; parameters, normalisation and loss stay float32.
    """

    variant: str = "gt"
    width: int = 128
    num_blocks: int = 4
    non_local: bool = False
    groups: tuple[tuple[int, ...], ...] = ()
    adjacency: str = "row"
    modulated: bool = True
    mask: bool = False
    modulation_init: str = "xavier"
    dropout: float = 0.0
    dtype: str = "float32"


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The section `loss` of a config: factors of three terms in metres, averaged over joints.

    The release has 0.9 mse + 0.1 l1 ("gt") and 0.99 mpjpe + 0.01 l1 ("benchmark").

    Attributes:
      mse: Factor of the squared error, mean over coordinates.
      l1: Factor of the absolute error, mean over coordinates.
      mpjpe: Factor of the joint distance.
    """

    mse: float = 0.9
    l1: float = 0.1
    mpjpe: float = 0.0

    def __post_init__(self) -> None:
        factors = dataclasses.astuple(self)
        if not all(f >= 0 for f in factors) or not any(factors):
            raise ValueError(f"loss: expected factors >= 0, not all 0, got {self}")


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config.

    Attributes:
      flip: Average with the un-flipped estimate for the mirrored keypoints ("benchmark").
      center: Put the root joint at the origin, as "gt" does before it measures.
    """

    flip: bool = False
    center: bool = True


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: Modulated-GCN has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, Modulated-GCN has no frozen part")
    skeleton = get_skeleton(config["skeleton"])
    model = make_network(config["model"], skeleton)
    loss = read_options(LossOptions, config["loss"], where="loss")
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    return System(
        init=partial(_init, model),
        loss=partial(_loss, model, loss),
        sample=partial(_sample, model, sampler),
    )


def make_network(config: Mapping[str, Any], skeleton: Skeleton) -> ModulatedGCN:
    """The network that the section `model` describes.

    Raises:
      ValueError: An unknown field, variant or `dtype`, or groups that do not fit the skeleton.
      TypeError: A value of the wrong type.
    """
    variant = config.get("variant", ModelOptions.variant)
    if variant not in VARIANTS:
        raise ValueError(f"model.variant: expected one of {sorted(VARIANTS)}, got {variant!r}")
    options = read_options(ModelOptions, {**VARIANTS[variant], **dict(config)}, where="model")
    if options.modulation_init not in ("ones", "xavier"):
        raise ValueError(
            f"model.modulation_init: expected 'ones' or 'xavier', got {options.modulation_init!r}"
        )
    fields = dataclasses.asdict(options)
    del fields["variant"]
    fields["dtype"] = read_dtype(options.dtype, where="model.dtype")
    fields["groups"] = tuple(tuple(group) for group in options.groups) or None
    return ModulatedGCN(skeleton, **fields)


def _init(model: ModulatedGCN, key: Array) -> dict[str, Any]:
    return dict(model.init(key, jnp.zeros((1, model.skeleton.num_joints, 2))))


def _loss(
    model: ModulatedGCN,
    options: LossOptions,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Aux]:
    pose, keypoints = training_pair(batch, model.skeleton)
    output, mutable = model.apply(
        variables,
        keypoints,
        train=train,
        mask=batch.mask,
        axis_name=axis_name,
        rngs={"dropout": device_key(key, axis_name)},
        mutable=["batch_stats"] if train else [],
    )
    # At least float32, also under a bfloat16 network.
    error = output.astype(jnp.promote_types(output.dtype, jnp.float32)) - pose
    mse, l1 = (jnp.mean(term, axis=(-2, -1)) for term in (error**2, jnp.abs(error)))
    mpjpe = jnp.mean(safe_norm(error), axis=-1)
    per_frame = options.mse * mse + options.l1 * l1 + options.mpjpe * mpjpe
    loss = masked_mean(per_frame, batch.mask, axis_name=axis_name)
    metrics = {"loss": loss, "mpjpe": masked_mean(mpjpe, batch.mask, axis_name=axis_name)}
    return loss, Aux(metrics=metrics, mutable=mutable)


def _sample(
    model: ModulatedGCN,
    options: SamplerOptions,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    num_hypotheses: int,
    return_trajectory: bool = False,
) -> SampleResult:
    del key
    if num_hypotheses != 1:
        raise ValueError(
            "num_hypotheses: expected 1, Modulated-GCN is deterministic and has one answer, "
            f"got {num_hypotheses}"
        )
    skeleton = model.skeleton
    check_joints(batch.keypoints, skeleton, channels=2, name="batch.keypoints")

    def lift(keypoints: Array) -> Array:
        pose = jnp.asarray(model.apply(variables, keypoints))
        return pose.astype(jnp.promote_types(pose.dtype, jnp.float32))

    pose = lift(batch.keypoints)
    if options.flip:
        pose = (pose + flip(lift(flip(batch.keypoints, skeleton)), skeleton)) / 2
    if options.center:
        pose = root_center(pose, root=skeleton.root)
    samples = pose[:, None]
    return SampleResult(samples=samples, trajectory=samples[:, None] if return_trajectory else None)
