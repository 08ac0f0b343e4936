"""How much generated poses are like people: no pairing with a truth, only with a set of poses."""

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.evaluation.coherence import symmetry_gap
from posediff_jax.geometry import safe_norm
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

NEEDS = ("a set of real poses",)


def nearest_shape(poses: Array, reference: Array, *, chunk: int = 64) -> Array:
    """Distance of each pose to the nearest one of a set, wherever both look.

    The distance between two poses is the root mean square difference of the distances between
    their joints: it does not see position, rotation, nor mirror images.

    Args:
      poses: `(N, J, 3)`, metres.
      reference: `(M, J, 3)`, metres.
      chunk: Poses compared at a time.

    Returns:
      `(N,)`, metres.

    Raises:
      ValueError: Shapes do not fit, or the set is empty.
    """
    shapes = jnp.shape(poses), jnp.shape(reference)
    if any(len(s) != 3 or s[-1] != 3 for s in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"poses, reference: expected (N, J, 3) and (M, J, 3), got {shapes[0]} and {shapes[1]}"
        )
    if not shapes[1][0]:
        raise ValueError("reference: expected at least one pose, got none")
    known = _joint_distances(reference)

    def nearest(one: Array) -> Array:
        difference = _joint_distances(one) - known
        return jnp.sqrt(jnp.min(jnp.mean(difference**2, axis=-1)))

    return jax.lax.map(nearest, jnp.asarray(poses), batch_size=chunk)


def plausibility(poses: Array, unseen: Array, skeleton: Skeleton) -> dict[str, float]:
    """Figures of generated poses, beside those of unseen real ones.

    Args:
      poses: Generated, `(N, J, 3)`, metres.
      unseen: Real poses that no training saw, `(M, J, 3)`, metres.
      skeleton: Their joints.

    Returns:
      In metres: `asymmetry` of the generated poses and `asymmetry_real`; `to_real`, the mean
      distance of a generated pose to the nearest real one (precision); `to_generated`, that of a
      real pose to the nearest generated one (coverage); `real_to_real`, that of a real pose of one
      half to the nearest of the other half, what a perfect generator may expect of `to_real`;
      `size` and `size_real`, the mean distance of a joint to the centre of its pose.

    Raises:
      ValueError: Shapes do not fit, or there are fewer than two real poses.
    """
    check_joints(poses, skeleton, channels=3, name="poses")
    check_joints(unseen, skeleton, channels=3, name="unseen")
    if len(unseen) < 2:
        raise ValueError(f"unseen: expected at least two poses, got {len(unseen)}")
    figures = {
        "asymmetry": symmetry_gap(poses, skeleton, bones="anatomical"),
        "asymmetry_real": symmetry_gap(unseen, skeleton, bones="anatomical"),
        "to_real": nearest_shape(poses, unseen),
        "to_generated": nearest_shape(unseen, poses),
        "real_to_real": nearest_shape(unseen[::2], unseen[1::2]),
        "size": _size(poses),
        "size_real": _size(unseen),
    }
    return {name: float(jnp.mean(values)) for name, values in figures.items()}


def _joint_distances(poses: Array) -> Array:
    """Distances between all pairs of joints, `(..., J, 3)` to `(..., J (J - 1) / 2)`."""
    first, second = np.triu_indices(poses.shape[-2], k=1)
    return safe_norm(poses[..., first, :] - poses[..., second, :])


def _size(poses: Array) -> Array:
    centred = poses - jnp.mean(poses, axis=-2, keepdims=True)
    return jnp.mean(safe_norm(centred), axis=-1)
