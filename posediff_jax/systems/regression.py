"""Regression from one frame of 2D joints: what the deterministic systems share."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from posediff_jax.config import read_options
from posediff_jax.geometry import flip, root_center, safe_norm
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import check_factors, device_key, masked_mean, training_pair
from posediff_jax.types import Array, Aux, PoseBatch, SampleResult, Variables


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The section `loss` of a config: factors of three terms in metres, averaged over joints.

    Modulated-GCN's release has 0.9 mse + 0.1 l1 ("gt") and 0.99 mpjpe + 0.01 l1 ("benchmark").

    Attributes:
      mse: Factor of the squared error, mean over coordinates.
      l1: Factor of the absolute error, mean over coordinates.
      mpjpe: Factor of the joint distance.
    """

    mse: float = 0.9
    l1: float = 0.1
    mpjpe: float = 0.0

    def __post_init__(self) -> None:
        check_factors(self, "mse", "l1", "mpjpe")
        if not any(dataclasses.astuple(self)):
            raise ValueError(f"loss: expected factors that are not all 0, got {self}")


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config.

    Attributes:
      flip: Average with the un-flipped estimate for the mirrored keypoints ("benchmark").
      center: Put the root joint at the origin, as "gt" does before it measures.
    """

    flip: bool = False
    center: bool = True


def regression_system(
    model: nn.Module, skeleton: Skeleton, config: Mapping[str, Any], *, title: str
) -> System:
    """Binds a network `(..., J, 2) -> (..., J, 3)` to the sections `loss` and `sampler`.

    Args:
      model: Called as `model(keypoints, *, train, mask, axis_name)`.
      skeleton: Its joints.
      config: An experiment's config.
      title: Names the method in errors.

    Raises:
      ValueError: An unknown field, or a value out of range.
      TypeError: A value of the wrong type.
    """
    loss = read_options(LossOptions, config["loss"], where="loss")
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    return System(
        init=partial(_init, model, skeleton),
        loss=partial(_loss, model, skeleton, loss),
        sample=partial(_sample, model, skeleton, sampler, title),
    )


def _init(model: nn.Module, skeleton: Skeleton, key: Array) -> dict[str, Any]:
    return dict(model.init(key, jnp.zeros((1, skeleton.num_joints, 2))))


def _loss(
    model: nn.Module,
    skeleton: Skeleton,
    options: LossOptions,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Aux]:
    pose, keypoints = training_pair(batch, skeleton)
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
    model: nn.Module,
    skeleton: Skeleton,
    options: SamplerOptions,
    title: str,
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
            f"num_hypotheses: expected 1, {title} is deterministic and has one answer, "
            f"got {num_hypotheses}"
        )
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
