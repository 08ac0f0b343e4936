"""DiffHPE's training loss: squared error of the noise, and bone regularisers that are off."""

import dataclasses
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.geometry import segment_lengths
from posediff_jax.keys import item_keys
from posediff_jax.process.schedules import Schedule, q_sample, x0_from_eps
from posediff_jax.skeleton import Skeleton, segments
from posediff_jax.systems.diffhpe_parts import Guidance, NoiseShape, join_lifter
from posediff_jax.systems.losses import check_factors, device_key, masked_mean, training_pair
from posediff_jax.systems.windows import network_input
from posediff_jax.types import Array, Aux, PoseBatch, Variables


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The section `loss` of a config.

    Attributes:
      time_weight: a, of the variance of bone lengths over time; in the release it raises an error.
      side_weight: b, of the squared gap between left and right bones; likewise.
      bones: "official" or "anatomical", see `skeleton.segments`.
      unconditional: Chance that a window is trained without its condition.
      unconditional_by: "window", or "batch" for one draw for the whole batch, as released.
    """

    time_weight: float = 0.0
    side_weight: float = 0.0
    bones: str = "official"
    unconditional: float = 0.0
    unconditional_by: Literal["window", "batch"] = "window"


def check_loss(options: LossOptions, model: DiffHPEDenoiser) -> None:
    """Refuses at build time what training would refuse at the first batch.

    Raises:
      ValueError: A number out of range, bones that are not known, or regularisers without poses.
    """
    check_factors(options, "time_weight", "side_weight")
    a, b = options.time_weight, options.side_weight
    if a + b > 1:
        raise ValueError(
            f"loss.time_weight, loss.side_weight: expected together at most 1, got {a} and {b}"
        )
    if a or b:
        segments(model.skeleton, bones=options.bones)
        if model.depth_only:
            raise ValueError("loss.time_weight, loss.side_weight: expected 0 with model.depth_only")
    if not 0 <= options.unconditional < 1:
        raise ValueError(
            f"loss.unconditional: expected a chance in [0, 1), got {options.unconditional}"
        )
    if options.unconditional and model.source == "none":
        raise ValueError("loss.unconditional: expected 0 with model.condition='none'")


def training_loss(
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    model: DiffHPEDenoiser,
    schedule: Schedule,
    shape: NoiseShape,
    guidance: Guidance,
    options: LossOptions,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Aux]:
    """The contract of `systems.base.LossFn`, for what a config describes."""
    pose, keypoints = training_pair(batch, model.skeleton)
    keypoints = network_input(keypoints, batch, model)
    target = pose[..., 2:] if model.depth_only else pose
    draw = jax.vmap(partial(draw_target, schedule=schedule))
    keys, t, normal = draw(item_keys(key, batch.index), target)
    told, kept = _drop(key, keys, keypoints, guidance, options)
    dropout_key, depth_key = jax.random.split(device_key(key, axis_name))
    noise = shape.noise(normal)
    x_t = q_sample(schedule, target, t, noise)
    output, mutable = model.apply(
        join_lifter(variables),
        told,
        x_t,
        t,
        kept=kept,
        train=train,
        mask=batch.mask,
        axis_name=axis_name,
        rngs={"dropout": dropout_key, "drop_path": depth_key},
        mutable=["batch_stats"] if train else [],
    )
    terms = loss_terms(schedule, output, noise, x_t, t, batch.mask, model.skeleton, options)
    means = {k: masked_mean(v, batch.mask, axis_name=axis_name) for k, v in terms.items()}
    loss = total_loss(means, options)
    return loss, Aux(metrics={"loss": loss, **means}, mutable=mutable)


def draw_target(key: Array, pose: Array, *, schedule: Schedule) -> tuple[Array, Array, Array]:
    """A key, one timestep for the whole window, and normals for all joints, the root too."""
    rest, t_key, noise_key = jax.random.split(key, 3)
    t = jax.random.randint(t_key, (), 0, schedule.num_timesteps)
    return rest, t, jax.random.normal(noise_key, pose.shape, pose.dtype)


def loss_terms(
    schedule: Schedule,
    output: Array,
    noise: Array,
    x_t: Array,
    t: Array,
    mask: Array,
    skeleton: Skeleton,
    options: LossOptions,
) -> dict[str, Array]:
    """The terms of the loss, each `(B, F)`.

    "noise": mean squared error over joints and coordinates. Of the pose
    x_0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar) that the output says: "time", the unbiased
    variance of bone lengths over the frames of the window, the same number for each of them, and
    "side", the mean squared gap between left and right bones; each only if its weight is not 0.

    Args:
      schedule: Tables of the process.
      output: Estimated noise, `(B, F, J, C)`.
      noise: Added noise, likewise.
      x_t: Noisy poses, likewise.
      t: Timesteps, `(B,)`.
      mask: 1 for a real frame, `(B, F)`.
      skeleton: Joints.
      options: The section `loss`.
    """
    output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    terms = {"noise": jnp.mean((output - noise) ** 2, axis=(-2, -1))}
    if not (options.time_weight or options.side_weight):
        return terms
    x0 = x0_from_eps(schedule, x_t, t, output)
    lengths = segment_lengths(x0, skeleton, bones=options.bones)
    if options.time_weight:
        variance = jnp.mean(_variance_over_time(lengths, mask), axis=-1)
        terms["time"] = jnp.broadcast_to(variance[:, None], mask.shape)
    if options.side_weight:
        ends = [child for child, _ in segments(skeleton, bones=options.bones)]
        left, right = (
            lengths[..., np.array([ends.index(joint) for joint in side])]
            for side in (skeleton.left, skeleton.right)
        )
        terms["side"] = jnp.mean((left - right) ** 2, axis=-1)
    return terms


def total_loss(terms: dict[str, Array], options: LossOptions) -> Array:
    """(1 - a - b) noise + a time + b side."""
    a, b = options.time_weight, options.side_weight
    loss = (1 - a - b) * terms["noise"]
    if a:
        loss = loss + a * terms["time"]
    return loss + b * terms["side"] if b else loss


def _variance_over_time(lengths: Array, mask: Array) -> Array:
    """Unbiased variance over the frames that count: `(B, F, S)` to `(B, S)`."""
    weight = (mask > 0).astype(lengths.dtype)[..., None]
    count = jnp.sum(weight, axis=1)
    mean = jnp.sum(weight * lengths, axis=1) / jnp.maximum(count, 1)
    square = jnp.sum(weight * (lengths - mean[:, None]) ** 2, axis=1)
    return square / jnp.maximum(count - 1, 1)


def _drop(
    key: Array, keys: Array, keypoints: Array, guidance: Guidance, options: LossOptions
) -> tuple[Array, Any]:
    """What the network is told of the keypoints, and which windows keep their condition."""
    if not options.unconditional:
        return keypoints, None
    split = jax.vmap(jax.random.split)(keys)
    if options.unconditional_by == "batch":
        # One draw for the batch, the same on all devices.
        dropped = jnp.full(len(keypoints), jax.random.bernoulli(key, options.unconditional))
    else:
        dropped = jax.vmap(lambda k: jax.random.bernoulli(k, options.unconditional))(split[:, 0])
    if guidance.dropped == "condition":
        return keypoints, 1.0 - dropped
    window = keypoints.shape[1:-1]
    told = jax.vmap(lambda k: guidance.kept_keypoints(k, window))(split[:, 1])
    return keypoints * jnp.where(dropped[:, None, None, None], told, 1), None
