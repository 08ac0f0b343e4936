"""Poses as bone directions and lengths, the state that DDHPose diffuses.

A network sees one slot per joint: slot j holds the bone that ends in joint j, so the root's slot is
empty. A sampler's state has the J - 1 bones only.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import bones_from_pose, pose_from_bones
from posediff_jax.skeleton import MPI_INF_3DHP_17, Skeleton
from posediff_jax.types import Array


class Bones(NamedTuple):
    """Directions and lengths, with J - 1 bones or J slots on axis -2; a pytree.

    Attributes:
      directions: `(..., J - 1, 3)`, from parent to child: unit vectors where they were taken from a
        pose, of any length where they were noised or regressed.
      lengths: `(..., J - 1, 1)`, metres.
    """

    directions: Array
    lengths: Array


def bone_tree(skeleton: Skeleton) -> Skeleton:
    """The tree that DDHPose cuts into bones.

    That of the skeleton, but for MPI-INF-3DHP, where the head top hangs on the neck, not on the
    head.

    >>> bone_tree(MPI_INF_3DHP_17).parents[:2]
    (1, 15)
    """
    if skeleton.name != MPI_INF_3DHP_17.name:
        return skeleton
    neck = skeleton.joints.index("neck")
    return dataclasses.replace(skeleton, parents=(neck, *skeleton.parents[1:]))


def disentangle(pose: Array, tree: Skeleton) -> Bones:
    """Splits a pose (DDHPose Eq. 3): d = (y_c - y_p) / |y_c - y_p|, l = |y_c - y_p|.

    Unlike the released code it gives no NaN for a bone of length zero: its direction is zero, and
    so are its gradients.

    Args:
      pose: `(..., J, 3)`, metres.
      tree: From `bone_tree`.

    Raises:
      ValueError: `pose` does not fit the tree.
    """
    lengths, directions = bones_from_pose(pose, tree)
    return Bones(directions, lengths[..., None])


def compose(bones: Bones, tree: Skeleton) -> Array:
    """Puts J - 1 bones together to a pose with its root at the origin, `(..., J, 3)`.

    Raises:
      ValueError: The number of bones is not that of the tree.
    """
    return pose_from_bones(bones.lengths[..., 0], bones.directions, tree)


def to_slots(bones: Bones, tree: Skeleton, *, root: Bones | None = None) -> Bones:
    """J - 1 bones to J slots.

    Args:
      bones: `(..., J - 1, .)`, in the order of `tree.bones`.
      tree: From `bone_tree`.
      root: What to put into the root's slot, `(..., 1, .)`; zeros by default.
    """
    if root is None:
        root = Bones(*(jnp.zeros_like(x[..., :1, :]) for x in bones))
    # Of the concatenation below, entry 0 is the root's; the bones follow in joint order.
    slots = np.insert(np.arange(1, tree.num_joints), tree.root, 0)
    return Bones(
        *(jnp.concatenate([r, x], axis=-2)[..., slots, :] for r, x in zip(root, bones, strict=True))
    )


def from_slots(slots: Bones, tree: Skeleton) -> Bones:
    """The J - 1 bones of J slots, the inverse of `to_slots`."""
    children = np.array([child for child, _ in tree.bones])
    return Bones(*(x[..., children, :] for x in slots))


def flip_slots(slots: Bones, tree: Skeleton) -> Bones:
    """Mirrors J slots: left and right change places, directions change the sign of x."""
    swapped = Bones(*(x[..., np.array(tree.flip_permutation), :] for x in slots))
    return swapped._replace(directions=swapped.directions * np.array([-1, 1, 1], np.int8))
