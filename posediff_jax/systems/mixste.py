"""MixSTE (Zhang et al., CVPR 2022): regression of a window of poses, the ancestor of D3DP.

A deterministic system to compare with, trained on three weighted terms.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from posediff_jax.config import read_options
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.geometry import safe_norm
from posediff_jax.keys import item_keys
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.systems import windows
from posediff_jax.systems.base import System
from posediff_jax.systems.losses import check_factors, masked_mean, training_pair
from posediff_jax.types import Array, Aux, PoseBatch, SampleResult, Variables

Position = Literal["distance", "squared"]

# Released weights: elbows and wrists count most, then knees and ankles, then head and shoulders.
JOINT_WEIGHTS: dict[str, tuple[float, ...]] = {
    "h36m_17": (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)
}


@dataclasses.dataclass(frozen=True)
class LossOptions(windows.LossOptions):
    """The section `loss` of a config.

    Attributes:
      joint_weights: "mixste", the released weights of joints, or "uniform".
      position: "distance", the mean joint distance, or "squared", the mean squared coordinate on
        which DiffHPE retrains MixSTE, without weights and the two terms below.
      smoothness_weight: Factor of the squared velocity of the prediction, 0 to switch it off.
      velocity_weight: Factor of the velocity error.
    """

    joint_weights: str = "mixste"
    position: Position = "distance"
    smoothness_weight: float = 0.5
    velocity_weight: float = 2.0

    def __post_init__(self) -> None:
        check_factors(self, "smoothness_weight", "velocity_weight")


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config.

    Attributes:
      flip: Average with the un-flipped estimate for the mirrored window.
      zero_root: Put the root joint to the origin, as D3DP does; MixSTE's own evaluation leaves it
        where the network has it.
    """

    flip: bool = True
    zero_root: bool = True


def from_config(config: Mapping[str, Any], frozen: Variables | None = None) -> System:
    """Builds the system from the sections `model`, `loss`, `sampler` and `skeleton`.

    Args:
      config: An experiment's config.
      frozen: Not used: MixSTE has no frozen part.

    Raises:
      ValueError: An unknown field or name, or a value that the part it configures refuses.
      TypeError: A value of the wrong type.
    """
    if frozen is not None:
        raise ValueError("frozen: expected None, MixSTE has no frozen part")
    model = windows.read_network(MixSTE, windows.ModelOptions, config)
    loss = read_options(LossOptions, config["loss"], where="loss")
    weights = joint_weights(loss.joint_weights, model.skeleton)
    sampler = read_options(SamplerOptions, config["sampler"], where="sampler")
    return System(
        init=partial(_init, model),
        loss=partial(_loss, model, weights, loss),
        sample=partial(_sample, model, sampler),
    )


def joint_weights(name: str, skeleton: Skeleton) -> np.ndarray:
    """The loss weight of each joint, `(J,)`: "mixste" or "uniform".

    Raises:
      ValueError: Unknown name, or a skeleton that the release has no weights for.
    """
    if name == "uniform":
        return np.ones(skeleton.num_joints)
    if name != "mixste":
        raise ValueError(f"loss.joint_weights: expected 'mixste' or 'uniform', got {name!r}")
    if skeleton.name not in JOINT_WEIGHTS:
        raise ValueError(
            f"loss.joint_weights: 'mixste' is defined for {sorted(JOINT_WEIGHTS)}, "
            f"got skeleton {skeleton.name!r}; use 'uniform'"
        )
    return np.asarray(JOINT_WEIGHTS[skeleton.name], np.float64)


def loss_terms(
    output: Array, pose: Array, weights: np.ndarray, *, position: Position = "distance"
) -> dict[str, Array]:
    """The three terms of the released loss.

    "position": mean of w_j |p_j - y_j| over joints, `(..., F)`; if it is to be "squared", of
    w_j (p_j - y_j)^2 over joints and coordinates. "smoothness": mean of
    w_j (p_j,t+1 - p_j,t)^2 over joints and coordinates. "velocity": mean distance of the two
    velocities of a joint. The last two have one number per pair of frames, `(..., F - 1)`.

    Args:
      output: Predicted poses, `(..., F, J, 3)`, metres.
      pose: Targets, likewise.
      weights: From `joint_weights`, `(J,)`.
      position: "distance" or "squared".
    """
    output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    share = jnp.asarray(weights, output.dtype)
    ours, target = (x[..., 1:, :, :] - x[..., :-1, :, :] for x in (output, pose))
    error = output - pose
    square = jnp.mean(error**2, axis=-1)
    return {
        "position": jnp.mean(share * (safe_norm(error) if position == "distance" else square), -1),
        "smoothness": jnp.mean(share[:, None] * ours**2, axis=(-2, -1)),
        "velocity": jnp.mean(safe_norm(ours - target), axis=-1),
    }


def total_loss(terms: Mapping[str, Array], options: LossOptions) -> Array:
    """Position + 0.5 smoothness + 2 velocity, as released."""
    smoothness = options.smoothness_weight * terms["smoothness"]
    return terms["position"] + smoothness + options.velocity_weight * terms["velocity"]


def _init(model: MixSTE, key: Array) -> dict[str, Any]:
    window = (1, model.num_frames, model.skeleton.num_joints)
    return dict(model.init(key, jnp.zeros((*window, 2 + model.visibility))))


def _loss(
    model: MixSTE,
    weights: np.ndarray,
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
    keys = item_keys(key, batch.index)
    output = windows.apply_windows(keys, model, variables, keypoints, train=train)
    per_frame = loss_terms(output, pose, weights, position=options.position)
    # A velocity counts where both of its frames do.
    pairs = jnp.minimum(batch.mask[:, 1:], batch.mask[:, :-1])
    masks = {"position": batch.mask, "smoothness": pairs, "velocity": pairs}
    terms = {k: masked_mean(v, masks[k], axis_name=axis_name) for k, v in per_frame.items()}
    loss = total_loss(terms, options)
    scaled = windows.scale_gradient(loss, options.gradient, axis_name=axis_name)
    return scaled, Aux(metrics={"loss": loss, **terms}, mutable={})


def _sample(
    model: MixSTE,
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
            "num_hypotheses: expected 1, MixSTE is deterministic and has one answer, "
            f"got {num_hypotheses}"
        )
    skeleton = model.skeleton
    check_joints(batch.keypoints, skeleton, channels=2, name="batch.keypoints")
    keypoints = windows.network_input(batch.keypoints, batch, model)
    pair = windows.mirrored_pair(keypoints, skeleton, mirrored=options.flip)
    output: Any = model.apply(variables, pair)
    wide = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    pose = windows.average_pair(wide, skeleton)
    if options.zero_root:
        pose = pose.at[..., skeleton.root, :].set(0)
    samples = pose[:, None]
    return SampleResult(samples=samples, trajectory=samples[:, None] if return_trajectory else None)
