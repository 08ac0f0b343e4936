"""Errors by how many bones joints are from the root (DDHPose, figure 1)."""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from posediff_jax.evaluation.metrics import joint_error
from posediff_jax.process.bones import bone_tree
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType({"level_errors": ("ground truth",)})


def level_errors(predicted: Array, target: Array, skeleton: Skeleton) -> Array:
    """Mean distance of the joints of each level: 1 at one bone from the root, and so on.

    The levels are those of DDHPose's tree (`bone_tree`); level 0, the root, is left out.

    Args:
      predicted: `(..., J, 3)`, metres.
      target: `(..., J, 3)`, metres.
      skeleton: Their joints.

    Returns:
      `(..., L)`, metres, L = 5 for Human3.6M and MPI-INF-3DHP.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_joints(predicted, skeleton, channels=3, name="predicted")
    errors = joint_error(predicted, target)
    levels = np.array(bone_tree(skeleton).levels)
    return jnp.stack(
        [jnp.mean(errors[..., levels == level], axis=-1) for level in range(1, levels.max() + 1)],
        axis=-1,
    )
