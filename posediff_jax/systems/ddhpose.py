"""DDHPose (Cai et al., AAAI 2024): diffusion of bone directions and lengths, prediction of poses.

Follows the released code where it differs from the paper; options name the other side.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.config import read_options
from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.denoisers.hierarchy import ChildLayout, Walk
from posediff_jax.geometry import safe_norm
from posediff_jax.keys import item_keys
from posediff_jax.process.bones import Bones, bone_tree, compose, disentangle, flip_slots, to_slots
from posediff_jax.process.schedules import Schedule, eps_from_x0, q_sample
from posediff_jax.samplers.discrete import ddim_times
from posediff_jax.skeleton import Skeleton
from posediff_jax.systems import d3dp, windows
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import check_factors, masked_mean, training_pair
from posediff_jax.systems.windows import (
    apply_windows,
    average_pair,
    bind_denoise,
    check_sampler,
    joint_distance,
    read_network,
    read_process,
    run_ddim,
    sample_windows,
    scale_gradient,
)
from posediff_jax.types import Array, Aux, PoseBatch, PredictFn, Prediction, SampleResult, Variables

BoneErrors = Literal["released", "printed"]
NoiseSlots = Literal["fixed", "official"]


@dataclasses.dataclass(frozen=True)
class ModelOptions(windows.ModelOptions):
    """The section `model` of a config; see `DDHPoseDenoiser` for the further fields."""

    levels: bool = True
    hrst: bool = True
    hrtt: bool = True
    walk: Walk = "released"
    child_layout: ChildLayout = "released"
    disentangled_input: bool = True
    disentangled_output: bool = False


@dataclasses.dataclass(frozen=True)
class LossOptions(windows.LossOptions):
    """The section `loss` of a config; a factor of 0 switches a term off (Table 6).

    Attributes:
      position_weight: Factor of the joint distance.
      length_weight: Factor of the error of bone lengths.
      direction_weight: Factor of the error of bone directions.
      bone_errors: See `loss_terms`.
      loss_unit: 1000.0 takes distances and lengths in millimetres, as released for 3DHP.
    """

    position_weight: float = 1.0
    length_weight: float = 1.0
    direction_weight: float = 1.0
    bone_errors: BoneErrors = "released"
    loss_unit: float = 1.0

    def __post_init__(self) -> None:
        check_factors(self, "position_weight", "length_weight", "direction_weight", "loss_unit")


@dataclasses.dataclass(frozen=True)
class SamplerOptions(windows.SamplerOptions):
    """The section `sampler` of a config.

    Attributes:
      noise_slots: See `bind_predict`; for poses as states it plays no part.
    """

    noise_slots: NoiseSlots = "fixed"


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `process`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: DDHPose has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, DDHPose has no frozen part")
    process, schedule = read_process(config["process"])
    T = process.num_timesteps
    model = read_network(DDHPoseDenoiser, ModelOptions, config, num_timesteps=T)
    loss = read_options(LossOptions, config["loss"], where="loss")
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    check_sampler(sampler, schedule)
    sample = sample_bones if model.disentangled_input else d3dp.sample_poses
    return System(
        init=partial(_init, model),
        loss=partial(_loss, model, schedule, process.clip, loss),
        sample=partial(sample, model=model, schedule=schedule, clip=process.clip, options=sampler),
    )


def bind_predict(
    model: DDHPoseDenoiser,
    variables: Variables,
    encoded: Array,
    root: Bones,
    *,
    schedule: Schedule,
    times: NDArray[np.int32],
    clip: float,
    noise_slots: NoiseSlots = "fixed",
) -> PredictFn:
    """Binds weights and condition for `sample_ddim` over J - 1 bones.

    eps is what is left of the bones of the predicted pose, x0 the bones of the clipped pose.

    Args:
      model: The denoiser.
      variables: Its variables.
      encoded: From `encode` of a `mirrored_pair`, `(2, ..., F, J, C)`, or `(1, ...)`.
      root: What the root's slot holds, `(..., F, 1, .)`: normals that stay as they are through
        all iterations, as in the released code.
      schedule: Tables of the process.
      times: Timesteps of the run, `(W,)`.
      clip: Bound of inputs and estimates, metres.
      noise_slots: "official" takes the state of slots 1 to J - 1 for that of the bones, whichever
        slot is the root's; for MPI-INF-3DHP that is a slip of the released code.

    Raises:
      ValueError: Another `noise_slots`.
    """
    if noise_slots not in ("fixed", "official"):
        raise ValueError(f"noise_slots: expected 'fixed' or 'official', got {noise_slots!r}")
    tree, T = bone_tree(model.skeleton), schedule.num_timesteps
    denoise = bind_denoise(model, variables, encoded, num_timesteps=T, times=times)

    def clipped(x: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.clip(leaf, -clip, clip), x)

    def predict(x_t: Bones, t: Array) -> Prediction:
        slots = to_slots(x_t, tree, root=root)
        state = clipped(slots)
        states = [state, flip_slots(state, tree)][: len(encoded)]
        pair = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        pose = average_pair(denoise(pair, t).astype(x_t.directions.dtype), tree)
        noisy = x_t
        if noise_slots == "official":
            noisy = jax.tree.map(lambda x: x[..., 1:, :], slots)
        eps = eps_from_x0(schedule, noisy, t, clipped(disentangle(pose, tree)))
        bounded = clipped(pose)
        return Prediction(x0=disentangle(bounded, tree), eps=eps, aux=bounded)

    return predict


def noisy_slots(
    schedule: Schedule, pose: Array, t: Array, noise: Bones, tree: Skeleton, *, clip: float
) -> Bones:
    """The network's training input: noised directions and lengths (Eq. 5 and 6), clipped.

    Args:
      schedule: Tables of the process.
      pose: Clean poses, `(B, F, J, 3)`, metres.
      t: One timestep per window, `(B,)`.
      noise: Normals for all J slots, `(B, F, J, .)`; the root's slot holds nothing else.
      tree: From `bone_tree`.
      clip: Bound.
    """
    x_t = q_sample(schedule, to_slots(disentangle(pose, tree), tree), t, noise)
    return jax.tree.map(lambda x: jnp.clip(x, -clip, clip), x_t)


def loss_terms(
    output: Array | Bones,
    pose: Array,
    mask: Array,
    tree: Skeleton,
    *,
    unit: float = 1.0,
    bone_errors: BoneErrors = "released",
) -> dict[str, Array]:
    """The three terms of the loss, one number per frame, `(B, F)` each, means over joints or bones.

    "position": joint distance (Eq. 9). "length" and "direction" with `bone_errors="released"`: the
    squared error of lengths, each first averaged over the window, and the squared distance of
    directions. With "printed": the error of lengths and the distance of directions (Eq. 8).

    Args:
      output: Predicted poses, `(B, F, J, 3)`, metres; or predicted bones, whose own directions and
        lengths are then compared, and not those of the pose that they make (Eq. 7, which is about
        predicted poses): a product l d leaves its factors free, and both can shrink to 0.
      pose: Target poses.
      mask: 1 for a real frame, `(B, F)`.
      tree: From `bone_tree`.
      unit: Factor on distances and lengths.
      bone_errors: See above.
    """
    output = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), output)
    if isinstance(output, Bones):
        ours, predicted = output, compose(output, tree)
    else:
        ours, predicted = disentangle(output, tree), output
    target = disentangle(pose, tree)
    gap = (ours.lengths - target.lengths)[..., 0] * unit
    turn = ours.directions - target.directions
    if bone_errors == "printed":
        length, direction = jnp.abs(gap), safe_norm(turn)
    else:
        length, direction = _window_mean(gap, mask) ** 2, jnp.sum(turn**2, axis=-1)
    return {
        "position": joint_distance(predicted, pose) * unit,
        "length": jnp.broadcast_to(jnp.mean(length, axis=-1), mask.shape),
        "direction": jnp.mean(direction, axis=-1),
    }


def _window_mean(values: Array, mask: Array) -> Array:
    """Means of `(B, F, N)` over the frames that count, `(B, 1, N)`."""
    weight = mask.astype(values.dtype)[..., None]
    total = jnp.sum(jnp.where(weight > 0, values, 0) * weight, axis=1, keepdims=True)
    return total / jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)


def _init(model: DDHPoseDenoiser, key: Array) -> dict[str, Any]:
    window = (1, model.num_frames, model.skeleton.num_joints)
    noisy: Any = jnp.zeros((*window, 3))
    if model.disentangled_input:
        noisy = Bones(noisy, jnp.zeros((*window, 1)))
    keypoints = jnp.zeros((*window, 2 + model.visibility))
    return dict(model.init(key, keypoints, noisy, jnp.zeros(1, jnp.int32)))


def _loss(
    model: DDHPoseDenoiser,
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
    keypoints = windows.network_input(keypoints, batch, model)
    tree = bone_tree(model.skeleton)
    draw: Any = _draw_target if model.disentangled_input else d3dp.draw_target
    depth_keys, t, noise = jax.vmap(partial(draw, schedule=schedule))(
        item_keys(key, batch.index), pose
    )
    noisy: Any
    if model.disentangled_input:
        noisy = noisy_slots(schedule, pose, t, noise, tree, clip=clip)
    else:
        noisy = jnp.clip(q_sample(schedule, pose, t, noise), -clip, clip)
    regressed = apply_windows(
        depth_keys, model, variables, keypoints, noisy, t, train=train, method="regress"
    )
    per_frame = loss_terms(
        regressed,
        pose,
        batch.mask,
        tree,
        unit=options.loss_unit,
        bone_errors=options.bone_errors,
    )
    terms = {k: masked_mean(v, batch.mask, axis_name=axis_name) for k, v in per_frame.items()}
    loss = total_loss(terms, options)
    scaled = scale_gradient(loss, options.gradient, axis_name=axis_name)
    return scaled, Aux(metrics={"loss": loss, **terms}, mutable={})


def total_loss(terms: Mapping[str, Array], options: LossOptions) -> Array:
    """L = w_p L_pos + w_l L_len + w_d L_dir (Eq. 10, which has no factors)."""
    bones = options.length_weight * terms["length"] + options.direction_weight * terms["direction"]
    return options.position_weight * terms["position"] + bones


def _draw_target(key: Array, pose: Array, *, schedule: Schedule) -> tuple[Array, Array, Bones]:
    """A key, one timestep for the whole window, and noise for all slots, the root's too."""
    t_key, *keys, depth_key = jax.random.split(key, 4)
    t = jax.random.randint(t_key, (), 0, schedule.num_timesteps)
    return depth_key, t, _normals(keys, pose.shape[:-1], pose.dtype)


def _normals(keys: Any, shape: tuple[int, ...], dtype: Any) -> Bones:
    pairs = zip(keys, (3, 1), strict=True)
    return Bones(*(jax.random.normal(k, (*shape, channels), dtype) for k, channels in pairs))


def sample_bones(
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    model: DDHPoseDenoiser,
    schedule: Schedule,
    clip: float,
    options: SamplerOptions,
    num_hypotheses: int,
    return_trajectory: bool = False,
) -> SampleResult:
    """Draws hypotheses by DDIM over bones; the contract of `systems.base.SampleFn`."""
    times = ddim_times(schedule.num_timesteps, options.num_steps)[:-1]
    num_frames, num_joints = batch.keypoints.shape[1:-1]

    def sample_one(chain_key: Array, encoded: Array) -> Array:
        *start_keys, noise_key = jax.random.split(chain_key, 3)
        start = _normals(start_keys, (num_frames, num_joints), batch.keypoints.dtype)
        # Standard normals all: the last slot serves as the root's.
        root = jax.tree.map(lambda x: x[:, -1:], start)
        predict = bind_predict(
            model,
            variables,
            encoded,
            root,
            schedule=schedule,
            times=times,
            clip=clip,
            noise_slots=options.noise_slots,
        )
        x_init = jax.tree.map(lambda x: x[:, :-1], start)
        return run_ddim(
            noise_key,
            predict,
            x_init,
            schedule=schedule,
            num_steps=options.num_steps,
            eta=options.eta,
            # Poses have the shape of directions.
            last_record_like=None if return_trajectory else start.directions,
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
