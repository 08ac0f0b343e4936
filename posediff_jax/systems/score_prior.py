"""Training of ZeDO's pose prior: denoising score matching on augmented poses."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import (
    bones_from_pose,
    flip,
    pose_from_bones,
    random_rotation,
    rotation_about_axis,
)
from posediff_jax.process.sdes import SDE, spread_over
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

_HIGHEST = jax.lax.Precision.HIGHEST

Weighting = Literal["sigma2", "likelihood"]
Reduction = Literal["half_sum", "mean"]


def score_matching_loss(
    sde: SDE,
    t: Array,
    eps: Array,
    noise: Array,
    *,
    weighting: Weighting = "sigma2",
    reduction: Reduction = "half_sum",
) -> Array:
    """Loss of each pose: |std score + z|^2 = |z - eps|^2, or g^2 |score + z / std|^2 (ZeDO Eq. 3).

    The released training has half the sum over J * 3 whatever its config says (`reduce_mean`),
    which matters because gradients are clipped to a norm.

    Args:
      sde: The process.
      t: Times, `(...)`.
      eps: The network's noise estimate, `(..., J, 3)`; score = -eps / std.
      noise: The noise z that was added, like `eps`.
      weighting: "sigma2", or "likelihood" weighs a time by (g / std)^2.
      reduction: "half_sum", or "mean" over J * 3.

    Returns:
      `(...)`.

    Raises:
      ValueError: Unknown weighting or reduction.
    """
    if weighting not in ("sigma2", "likelihood"):
        raise ValueError(f"weighting: expected 'sigma2' or 'likelihood', got {weighting!r}")
    if reduction not in ("half_sum", "mean"):
        raise ValueError(f"reduction: expected 'half_sum' or 'mean', got {reduction!r}")
    square = (noise - eps) ** 2
    if weighting == "likelihood":
        square *= spread_over((sde.diffusion(t) / sde.rates(t)[1]) ** 2, square)
    if reduction == "mean":
        return jnp.mean(square, axis=(-2, -1))
    return 0.5 * jnp.sum(square, axis=(-2, -1))


def draw_time(key: Array, sde: SDE, *, eps: float = 1e-5) -> Array:
    """A training time, uniform in [eps, T]."""
    return jax.random.uniform(key) * (sde.horizon - eps) + eps


def augment_pose(
    key: Array,
    pose: Array,
    skeleton: Skeleton,
    *,
    flip_prob: float = 0.5,
    rotation_prob: float = 0.5,
) -> Array:
    """Mirrors a pose, then turns it by a uniform rotation of SO(3), each with a chance of its own.

    Args:
      key: Random key.
      pose: One pose `(J, 3)`, root at the origin, metres; vmap for a batch.
      skeleton: Says which joints are partners.
      flip_prob: Chance of the mirror image.
      rotation_prob: Chance of the rotation.

    Returns:
      `(J, 3)`, metres.

    Raises:
      ValueError: `pose` does not fit the skeleton.
    """
    check_joints(pose, skeleton, channels=3, name="pose")
    flip_key, coin_key, rotation_key = jax.random.split(key, 3)
    pose = jnp.where(jax.random.bernoulli(flip_key, flip_prob), flip(pose, skeleton), pose)
    R = random_rotation(rotation_key, dtype=pose.dtype)
    turned = rotate_pose(R, pose)
    return jnp.where(jax.random.bernoulli(coin_key, rotation_prob), turned, pose)


def turn_upright(
    key: Array, pose: Array, *, tilt_degrees: tuple[float, float] = (-10.0, 30.0)
) -> Array:
    """A pose as another upright camera sees it: turned about the vertical, then tilted.

    Args:
      key: Random key.
      pose: One pose seen by a level camera, `(J, 3)`, y down, root at the origin, metres.
      tilt_degrees: Least and greatest pitch of the camera, positive from above.

    Returns:
      `(J, 3)`, metres.
    """
    yaw_key, tilt_key = jax.random.split(key)
    yaw = jax.random.uniform(yaw_key, (), pose.dtype, -jnp.pi, jnp.pi)
    low, high = (jnp.pi / 180 * angle for angle in tilt_degrees)
    tilt = jax.random.uniform(tilt_key, (), pose.dtype, low, high)
    turned = rotate_pose(rotation_about_axis("y", yaw), pose)
    return rotate_pose(rotation_about_axis("x", tilt), turned)


def vary_proportions(key: Array, pose: Array, skeleton: Skeleton, *, spread: float = 0.1) -> Array:
    """The same posture of another body: every bone by a factor of its own, and all by one more.

    Factors are uniform in `[1 - spread, 1 + spread]`, those of left and right bones the same, as in
    `data.random_bodies`.

    Args:
      key: Random key.
      pose: One pose, `(J, 3)`, root at the origin, metres.
      skeleton: Its tree.
      spread: In [0, 1).

    Returns:
      `(J, 3)`, metres.

    Raises:
      ValueError: `pose` does not fit the skeleton.
    """
    lengths, directions = bones_from_pose(pose, skeleton)
    shape = (skeleton.num_joints,)
    factors = jax.random.uniform(key, shape, pose.dtype, 1 - spread, 1 + spread)
    # A bone and its mirror image share the number of the lower joint; the root's is for all.
    own = [min(j, skeleton.flip_permutation[j]) for j, _ in skeleton.bones]
    scaled = lengths * factors[np.array(own)] * factors[skeleton.root]
    return pose_from_bones(scaled, directions, skeleton)


def rotate_pose(rotation: Array, pose: Array) -> Array:
    """R x for each joint: `(..., 3, 3)` and `(..., J, 3)` to `(..., J, 3)`."""
    return jnp.einsum("...ab,...jb->...ja", rotation, pose, precision=_HIGHEST)
