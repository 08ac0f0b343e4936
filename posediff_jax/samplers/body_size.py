"""How large a person is: what a picture alone does not say, and how a given height sets it.

A pose and its translation multiplied by the same factor project to the same pixels, so size is free
until something else fixes it.
"""

import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import check_points, safe_norm
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

# Sum of the bones that `skeleton_height` counts over the height of who stands on the floor without
# shoes, by the proportions of `data.kinematics` (after Drillis and Contini): feet and the slant of
# the neck make the rest.
SKELETON_SHARE = 0.907


def skeleton_height(poses: Array, skeleton: Skeleton) -> Array:
    """Length of the bones from ankle to head, whatever the posture.

    The mean of both legs (hip to ankle), and trunk, neck and head (root to head).

    Args:
      poses: `(..., J, 3)`, metres.
      skeleton: With joints named ankle and head.

    Returns:
      Metres, `(...)`.

    Raises:
      ValueError: Poses that do not fit the skeleton, or a skeleton without such joints.
    """
    check_joints(poses, skeleton, channels=3, name="poses")
    weights = _bone_weights(skeleton)
    child, parent = np.array(skeleton.bones).T
    lengths = safe_norm(poses[..., child, :] - poses[..., parent, :])
    return jnp.sum(lengths * weights, axis=-1)


def extent_depth(camera_rays: Array, pose: Array, *, used: Array) -> Array:
    """The depth at which a pose is as large as its keypoints.

    The spread of the joints about their mean in x and y over that of the rays, which no turn of the
    pose in the image plane changes. Unlike the least-squares depth (`camera.fit_translation`) it
    does not shrink where pose and keypoints disagree.

    Args:
      camera_rays: `(..., J, 3)`, the third coordinate 1; anything where not used.
      pose: `(..., J, 3)`, metres.
      used: The joints that count, `(..., J)` booleans.

    Returns:
      z in metres, `(...)`; NaN where fewer than two joints count.

    Raises:
      ValueError: A last axis is not 3.
    """
    check_points(camera_rays, 3, name="camera_rays")
    check_points(pose, 3, name="pose")

    def spread(points: Array) -> Array:
        points = jnp.where(used[..., None], points, 0.0)
        count = jnp.maximum(jnp.sum(used, axis=-1), 1)[..., None]
        off = points - jnp.sum(points, axis=-2, keepdims=True) / count[..., None]
        return jnp.sqrt(jnp.sum(jnp.where(used[..., None], off**2, 0.0), axis=(-2, -1)))

    across = spread(camera_rays[..., :2])
    enough = (jnp.sum(used, axis=-1) >= 2) & (across > 0)
    return jnp.where(enough, spread(pose[..., :2]) / jnp.where(enough, across, 1.0), jnp.nan)


def extent_translation(camera_rays: Array, pose: Array, *, used: Array) -> Array:
    """Where a pose as it is lies over its keypoints: `extent_depth`, and the means made to agree.

    Args:
      camera_rays: As for `extent_depth`.
      pose: Likewise.
      used: Likewise.

    Returns:
      `(..., 3)`, metres; NaN where fewer than two joints count.

    Raises:
      ValueError: A last axis is not 3.
    """
    z = extent_depth(camera_rays, pose, used=used)[..., None, None]
    off = camera_rays[..., :2] * (pose[..., 2:] + z) - pose[..., :2]
    xy = jnp.mean(off, axis=-2, where=used[..., None])
    return jnp.concatenate([xy, z[..., 0]], axis=-1)


def _bone_weights(skeleton: Skeleton) -> np.ndarray:
    """How much each bone of `skeleton.bones` counts, `(J - 1,)`."""
    ends = [j for j in ("left_ankle", "right_ankle", "head") if j not in skeleton.joints]
    if ends:
        raise ValueError(f"skeleton: expected joints {ends}, got {skeleton.name!r} without them")
    count = dict.fromkeys(range(skeleton.num_joints), 0.0)
    for name, weight, top in (("left_ankle", 0.5, "left_hip"), ("right_ankle", 0.5, "right_hip")):
        joint = skeleton.joints.index(name)
        while joint >= 0 and skeleton.joints[joint] != top:
            count[joint] += weight
            joint = skeleton.parents[joint]
    joint = skeleton.joints.index("head")
    while joint >= 0:
        count[joint] += 1.0
        joint = skeleton.parents[joint]
    return np.array([count[child] for child, _ in skeleton.bones])
