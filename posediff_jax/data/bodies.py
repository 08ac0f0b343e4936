"""Other bodies for the same motion: bones made longer or shorter, joint angles kept."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.motion import MotionClip
from posediff_jax.skeleton import get_skeleton


def resize_body(clip: MotionClip, factors: NDArray) -> MotionClip:
    """Multiplies the bones of a clip: `y'_c = y'_p + s_c (y_c - y_p)`.

    The root keeps its horizontal path; its height changes so that the lowest joint of each frame
    stays as high above the floor as it was.

    Args:
      clip: Any motion.
      factors: s_c of the bone that ends at each joint, `(J,)`, all positive; the root's is not
        used.

    Raises:
      ValueError: `factors` has another shape or a value that is not positive.
    """
    skeleton = get_skeleton(clip.skeleton)
    factors = np.asarray(factors)
    if factors.shape != (skeleton.num_joints,) or not (factors > 0).all():
        raise ValueError(
            f"factors: expected {skeleton.num_joints} positive numbers, "
            f"got {factors.tolist()} of shape {factors.shape}"
        )
    poses = np.array(clip.poses)
    for joint in skeleton.topological_order:
        parent = skeleton.parents[joint]
        if parent >= 0:
            bone = clip.poses[:, joint] - clip.poses[:, parent]
            poses[:, joint] = poses[:, parent] + factors[joint].astype(poses.dtype) * bone
    lowest = [p[..., 1].min(axis=1, keepdims=True) for p in (clip.poses, poses)]
    poses[..., 1] += lowest[0] - lowest[1]
    return dataclasses.replace(clip, poses=poses)


def random_bodies(
    seed: int, clips: Sequence[MotionClip], *, spread: float = 0.15
) -> list[MotionClip]:
    """Gives each clip a body of its own.

    Stature and the lengths of legs, arms and the bones of the trunk are drawn uniformly from
    `[1 - spread, 1 + spread]`; a bone is multiplied by stature and its own factor. Left and right
    bones get the same factors. Clip i's body is a function of (seed, i).

    Args:
      seed: Not negative.
      clips: Motion of any skeleton.
      spread: Half the width of each range, in [0, 1).

    Raises:
      ValueError: `seed` or `spread` is out of range.
    """
    if seed < 0 or not 0 <= spread < 1:
        raise ValueError(f"seed, spread: expected seed >= 0, 0 <= spread < 1, got {seed}, {spread}")
    resized = []
    for i, clip in enumerate(clips):
        skeleton = get_skeleton(clip.skeleton)
        rng = np.random.default_rng((seed, i))
        stature = rng.uniform(1 - spread, 1 + spread)
        own = rng.uniform(1 - spread, 1 + spread, size=skeleton.num_joints)
        # A bone and its mirror image share the number of the lower joint.
        pair = np.minimum(np.arange(skeleton.num_joints), skeleton.flip_permutation)
        resized.append(resize_body(clip, stature * own[pair]))
    return resized
