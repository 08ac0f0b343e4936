"""What DDHPose's transformer knows of the tree: HRST's edit of logits, HRTT's child features."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array

Walk = Literal["released", "once"]
ChildLayout = Literal["released", "joint"]


def logit_map(tree: Skeleton, *, walk: Walk = "released") -> NDArray[np.float64]:
    """HRST (DDHPose Algorithm 1) as one linear map on the J x J logits.

    Along each chain from the root to a leaf, for each triplet (pp, p, c) in turn, the logits of p
    and c, both ways, become the mean of themselves and A[pp, p], on the same array throughout. The
    map is what that walk does to unit matrices.

    Args:
      tree: The joints.
      walk: "released": along every chain, so that stems shared by several chains are averaged
        again and again, as in the released code. "once": each triplet once, as Algorithm 1 is
        printed.

    Returns:
      `(J * J, J * J)`; acts on logits flattened row by row.

    Raises:
      ValueError: Another `walk`.
    """
    if walk not in ("released", "once"):
        raise ValueError(f"walk: expected 'released' or 'once', got {walk!r}")
    chains = sorted(tree.chains)
    triplets = [t for c in chains for t in zip(c, c[1:], c[2:], strict=False)]
    if walk == "once":
        triplets = list(dict.fromkeys(triplets))
    joints = tree.num_joints
    logits = np.eye(joints**2).reshape(joints, joints, -1)
    for grandparent, parent, child in triplets:
        source = logits[grandparent, parent].copy()
        for target in ((parent, child), (child, parent)):
            logits[target] = (logits[target] + source) / 2
    return logits.reshape(joints**2, -1)


def edit_logits(logits: Array, tree: Skeleton, *, walk: Walk = "released") -> Array:
    """Applies `logit_map` to scaled logits, query row and key column, before the softmax.

    Few logits are sources, and most targets keep only a share of themselves: that is one product
    with a narrow matrix and one sum.

    Args:
      logits: `(..., J, J)`.
      tree: The joints.
      walk: See `logit_map`.
    """
    matrix = logit_map(tree, walk=walk)
    own = np.diag(matrix)
    others = matrix - np.diag(own)
    sources = np.flatnonzero(others.any(axis=0))
    flat = logits.reshape(*logits.shape[:-2], -1)
    added = flat[..., sources] @ jnp.asarray(others[:, sources].T, logits.dtype)
    return (flat * jnp.asarray(own, logits.dtype) + added).reshape(logits.shape)


def child_means(features: Array, tree: Skeleton) -> Array:
    """Mean over each joint and its children (DDHPose Eq. 11); leaves keep their own.

    Args:
      features: `(..., J, C)`.
      tree: The joints.
    """
    matrix = np.eye(tree.num_joints)
    for child, parent in tree.bones:
        matrix[parent, child] = 1
    matrix /= matrix.sum(axis=1, keepdims=True)
    return jnp.einsum("ij,...jc->...ic", jnp.asarray(matrix, features.dtype), features)


def arrange_children(children: Array, layout: ChildLayout) -> Array:
    """Puts child features where HRTT reads them.

    "released": the authors' code reads the memory of (F, J, C) as if it were (J, F, C). Joint j,
    frame k then sees frame (j F + k) // J, joint (j F + k) % J, and the released weights were
    trained so. "joint": joint j, frame k sees itself, as the paper means.

    Args:
      children: `(..., F, J, C)`.
      layout: See above.

    Returns:
      `(..., F, J, C)`.

    Raises:
      ValueError: Another `layout`, or "released" with F = J, where the authors' code takes
        temporal attention for spatial attention and ignores the child features.
    """
    if layout not in ("released", "joint"):
        raise ValueError(f"child_layout: expected 'released' or 'joint', got {layout!r}")
    if layout == "joint":
        return children
    *lead, frames, joints, channels = children.shape
    if frames == joints:
        raise ValueError(
            f"num_frames: with {frames} frames, the number of joints, the released code runs its "
            "spatial rule over time; use another window, or child_layout='joint'"
        )
    return children.reshape(*lead, joints, frames, channels).swapaxes(-2, -3)
