"""ZeDO (Jiang et al., WACV 2024): a pose prior, and zero-shot lifting by optimisation under it.

Trained on poses alone. Sampling turns an anchor pose until it meets the keypoints
(`fit_initial_pose`), then takes it between viewing rays and prior in turns (`optimise_poses`), for
each hypothesis from another anchor. Follows the released code where it differs from the paper.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.config import read_dtype, read_options
from posediff_jax.denoisers.score_mlp import (
    LABEL_SCALE,
    ScoreMLP,
    centre_groups,
    check_score_width,
)
from posediff_jax.keys import frame_keys
from posediff_jax.samplers.choose import denoising_energy
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import device_key, masked_mean, training_pair
from posediff_jax.systems.pose_prior import LossOptions, PosePrior, make_prior
from posediff_jax.systems.score_prior import augment_pose, turn_upright, vary_proportions
from posediff_jax.systems.zedo_lifting import (
    Lifter,
    SamplerOptions,
    check_sampler,
    draw_pose,
    lift,
    used_joints,
)
from posediff_jax.types import Array, Aux, PoseBatch, SampleResult, Variables

GenerateFn = Callable[[Array, Variables], Array]
EnergyFn = Callable[[Array, Variables, Array], Array]


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The section `model` of a config; see `ScoreMLP` for the fields.

    Attributes:
      dtype: Compute type; parameters, normalisation, sampler state and loss stay float32.
    """

    width: int = 1024
    embedding: int = 512
    num_blocks: int = 2
    groups: int = 32
    dropout: float = 0.25
    dtype: str = "float32"


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `process`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: `anchors`, `(S, J, 3)` metres, most important first, and optionally `joints`, their J
        names, which must be those of the skeleton (`data.read_anchors` gives both). Not needed to
        train, nor for starts "generated".

    Returns:
      The system. With `batch.start` the last hypothesis of a frame starts from that pose in place
      of its anchor, where it is finite. `sample` gives `records`: `translation` `(B, H, F, 3)`
      metres, which is where the pose's origin is; `fit_error` of the initial fit, pixels,
      `(B, H, F)` (NaN without a fit); `used`, the joints that counted, `(B, F, J)`. A frame that
      cannot be solved is NaN.

    Raises:
      ValueError: An unknown field or name, a value that the part it configures refuses, or anchors
        that do not fit the skeleton.
      TypeError: A value of the wrong type.
    """
    skeleton, model, prior, loss = _read_prior(config)
    options = read_options(SamplerOptions, config["sampler"], where="sampler")
    check_sampler(options)
    lifter = Lifter(
        model,
        skeleton,
        prior,
        options,
        steps=prior.loop_steps(
            num_iterations=options.num_iterations,
            t_range=options.t_range,
            rescale_dt=options.rescale_dt,
            score_factor=options.score_factor,
        ),
        fit_joints=_joint_indices(options.fit_joints, skeleton),
        anchors=_read_frozen(frozen, skeleton),
    )
    return System(
        init=partial(_init, model),
        loss=partial(_loss, model, skeleton, prior, loss),
        sample=partial(_sample, lifter),
    )


def make_generator(config: Mapping[str, Any]) -> GenerateFn:
    """A function that draws poses from the prior: `(keys, variables) -> poses`.

    `keys` is `(N,)`, the result `(N, J, 3)` root-relative metres. One network call per step of the
    process; each pose depends on its own key alone.

    Args:
      config: As for `from_config`.

    Raises:
      ValueError: As `from_config`.
      TypeError: Likewise.
    """
    skeleton, model, prior, _ = _read_prior(config)

    def generate(keys: Array, variables: Variables) -> Array:
        draw = partial(draw_pose, model=model, skeleton=skeleton, prior=prior)
        return jax.vmap(draw, in_axes=(0, None))(keys, variables)

    return generate


def make_energy(
    config: Mapping[str, Any], *, num_times: int = 8, t_range: tuple[float, float] = (0.05, 0.15)
) -> EnergyFn:
    """A score to choose hypotheses by: `(key, variables, poses) -> energies`.

    `poses` is any `(..., J, 3)`, the result `(...)`: `samplers.choose.denoising_energy` in two
    network calls for each time.

    Args:
      config: As for `from_config`.
      num_times: K.
      t_range: First and last time, as shares of the process. The default was chosen from eight
        ranges on 512 frames of training clips. Later times rank worse there; earlier ones do as
        well there and worse on motion that the prior has not seen.

    Raises:
      ValueError: As `from_config`; or `num_times` or `t_range` is out of range.
      TypeError: Likewise.
    """
    skeleton, model, prior, _ = _read_prior(config)
    if num_times < 1:
        raise ValueError(f"num_times: expected at least 1, got {num_times}")
    if not all(0 < t <= 1 for t in t_range):
        raise ValueError(f"t_range: expected two times in (0, 1], got {t_range}")
    times = prior.times(t_range, num_times)

    def energy(key: Array, variables: Variables, poses: Array) -> Array:
        check_joints(poses, skeleton, channels=3, name="poses")

        def estimate_noise(x: Array, t: Array) -> Array:
            eps: Any = model.apply(variables, x, prior.label(t) / LABEL_SCALE)
            return eps.astype(x.dtype)

        return denoising_energy(key, estimate_noise, prior.perturb, poses, times=times)

    return energy


def _read_prior(
    config: Mapping[str, Any],
) -> tuple[Skeleton, ScoreMLP, PosePrior, LossOptions]:
    skeleton = get_skeleton(config["skeleton"])
    options = read_options(ModelOptions, config["model"], where="model")
    check_score_width(options.width, options.groups)
    fields = dataclasses.asdict(options) | {"dtype": read_dtype(options.dtype, where="model.dtype")}
    loss = read_options(LossOptions, config["loss"], where="loss")
    model = ScoreMLP(skeleton.num_joints, **fields)
    return skeleton, model, make_prior(config["process"], loss), loss


def _init(model: ScoreMLP, key: Array) -> dict[str, Any]:
    return dict(model.init(key, jnp.zeros((1, model.num_joints, 3)), jnp.zeros((1,))))


def _loss(
    model: ScoreMLP,
    skeleton: Skeleton,
    prior: PosePrior,
    options: LossOptions,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Aux]:
    pose, _ = training_pair(batch, skeleton)

    def draw(frame_key: Array, x0: Array) -> tuple[Array, Array, Array]:
        augment_key, draw_key = jax.random.split(frame_key)
        if train:
            x0 = _augment(augment_key, x0, skeleton, options)
        return prior.draw(draw_key, x0)

    keys = frame_keys(key, batch.index, pose.shape[1])
    t, x_t, noise = jax.vmap(jax.vmap(draw))(keys, pose)
    eps: Any = model.apply(
        variables,
        x_t,
        prior.label(t) / LABEL_SCALE,
        train=train,
        rngs={"dropout": device_key(key, axis_name)},
    )
    loss = masked_mean(
        prior.loss(t, eps.astype(noise.dtype), noise), batch.mask, axis_name=axis_name
    )
    return loss, Aux(metrics={"loss": loss}, mutable={})


def _augment(key: Array, pose: Array, skeleton: Skeleton, options: LossOptions) -> Array:
    """Other bodies, other cameras, then what is published; that draws alike with or without."""
    if options.proportion_spread:
        pose = vary_proportions(
            jax.random.fold_in(key, 1), pose, skeleton, spread=options.proportion_spread
        )
    if options.upright_prob:
        coin_key, turn_key = jax.random.split(jax.random.fold_in(key, 2))
        turned = turn_upright(turn_key, pose, tilt_degrees=options.tilt_degrees)
        pose = jnp.where(jax.random.bernoulli(coin_key, options.upright_prob), turned, pose)
    probs = {"flip_prob": options.flip_prob, "rotation_prob": options.rotation_prob}
    return augment_pose(key, pose, skeleton, **probs)


def _sample(
    lifter: Lifter,
    key: Array,
    variables: Variables,
    batch: PoseBatch,
    *,
    num_hypotheses: int,
    return_trajectory: bool = False,
) -> SampleResult:
    options, skeleton = lifter.options, lifter.skeleton
    check_joints(batch.keypoints_px, skeleton, channels=2, name="batch.keypoints_px")
    _check_count(lifter, num_hypotheses)
    num_items, num_frames = batch.keypoints_px.shape[:2]
    model, variables = centre_groups(lifter.model, variables)
    lifter = dataclasses.replace(lifter, model=model)
    # All that the network needs to know of time, once for all chains and iterations.
    features = lifter.model.apply(
        variables, lifter.prior.label(lifter.steps.time), method="embed_time"
    )
    used = used_joints(batch, options)
    frames = {
        "keypoints": batch.keypoints_px,
        "confidence": batch.confidence,
        "used": used,
        "camera": jax.tree.map(lambda x: jnp.repeat(x[:, None], num_frames, 1), batch.camera),
    }
    if batch.start is not None:
        check_joints(batch.start, skeleton, channels=3, name="batch.start")
        frames["start"] = batch.start
    # A hypothesis is an item of its own here, because it has a start of its own.
    chains = jax.tree.map(
        lambda x: jnp.repeat(x.reshape(-1, *x.shape[2:]), num_hypotheses, axis=0), frames
    )
    chains["hypothesis"] = jnp.tile(jnp.arange(num_hypotheses), num_items * num_frames)
    if "start" in chains:
        chains["is_guess"] = chains["hypothesis"] == num_hypotheses - 1
    keys = frame_keys(key, batch.index, num_frames).reshape(-1)
    keys = jax.vmap(lambda k: jax.random.split(k, num_hypotheses))(keys).reshape(-1)
    result = fan_out(
        keys,
        partial(
            lift,
            lifter=lifter,
            variables=variables,
            features=features,
            return_trajectory=return_trajectory,
        ),
        chains,
        num_hypotheses=1,
        max_chains=options.max_chains,
    )

    def unfold(x: Array) -> Array:
        """(B F H, 1, ...) to (B, H, F, ...)."""
        return jnp.moveaxis(x.reshape(num_items, num_frames, num_hypotheses, *x.shape[2:]), 1, 2)

    samples, trajectory, records = jax.tree.map(unfold, result)
    return SampleResult(
        samples=samples,
        trajectory=None if trajectory is None else jnp.moveaxis(trajectory, 3, 1),
        records={**records, "used": used},
    )


def _read_frozen(frozen: Variables | None, skeleton: Skeleton) -> NDArray | None:
    """The anchors, root at the origin, after checks of shape, values and joint names."""
    if frozen is None:
        return None
    unknown = sorted(set(frozen) - {"anchors", "joints"})
    if "anchors" not in frozen or unknown:
        raise ValueError(f"frozen: expected 'anchors' and 'joints', got {sorted(frozen)}")
    anchors = np.asarray(frozen["anchors"])
    check_joints(anchors, skeleton, channels=3, name="frozen['anchors']")
    joints = tuple(frozen.get("joints", skeleton.joints))
    if joints != skeleton.joints:
        raise ValueError(
            f"frozen['joints']: expected the order of skeleton {skeleton.name!r}, "
            f"{skeleton.joints}, got {joints}"
        )
    if anchors.ndim != 3 or not len(anchors) or not np.isfinite(anchors).all():
        raise ValueError(
            f"frozen['anchors']: expected (S, J, 3) finite metres, got shape {anchors.shape}"
        )
    return anchors - anchors[:, skeleton.root, None]


def _joint_indices(names: tuple[str, ...], skeleton: Skeleton) -> tuple[int, ...] | None:
    unknown = [name for name in names if name not in skeleton.joints]
    if unknown:
        raise ValueError(
            f"sampler.fit_joints: expected names of skeleton {skeleton.name!r}, "
            f"{skeleton.joints}, got {unknown}"
        )
    return tuple(skeleton.joints.index(name) for name in names) or None


def _check_count(lifter: Lifter, num_hypotheses: int) -> None:
    if num_hypotheses < 1:
        raise ValueError(f"num_hypotheses: expected at least 1, got {num_hypotheses}")
    starts, anchors = lifter.options.starts, lifter.anchors
    if starts != "generated" and anchors is None:
        raise ValueError(
            f"frozen: expected anchors to start from with sampler.starts {starts!r}, got None"
        )
    if starts == "anchors" and anchors is not None and num_hypotheses > len(anchors):
        raise ValueError(
            f"num_hypotheses: expected at most the number of anchors ({len(anchors)}), "
            f"got {num_hypotheses}"
        )
