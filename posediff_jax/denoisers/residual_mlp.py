"""Plain residual MLP over all joints at once (Martinez et al., ICCV 2017): a baseline.

Unlike a graph network it mixes all joints in every layer and has weights of its own for each.
"""

import flax.linen as nn
import jax.numpy as jnp

from posediff_jax.denoisers.layers import BatchNorm
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Array

_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class ResidualMLP(nn.Module):
    """Linear to W, residual blocks of two linear layers with BatchNorm and ReLU, linear to 3 J.

    Attributes:
      skeleton: The J joints.
      width: W; published 1024.
      num_blocks: Residual blocks; published 2.
      dropout: After each activation; published 0.5.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    width: int = 1024
    num_blocks: int = 2
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self,
        keypoints: Array,
        *,
        train: bool = False,
        mask: Array | None = None,
        axis_name: str | None = None,
    ) -> Array:
        """One lifting.

        Args:
          keypoints: 2D joints in screen units, `(..., J, 2)`.
          train: Batch statistics in the normalisation, and dropout.
          mask: 1 for items that count in the statistics, `(...)`.
          axis_name: Mapped device axis to share the statistics over.

        Returns:
          `(..., J, 3)` pose in metres.

        Raises:
          ValueError: Wrong joint count or channels.
        """
        check_joints(keypoints, self.skeleton, channels=2, name="keypoints")

        def layer(h: Array) -> Array:
            h = nn.Dense(self.width, kernel_init=_init, dtype=self.dtype)(h)
            h = BatchNorm()(h, train=train, mask=mask, axis_name=axis_name)
            return nn.Dropout(self.dropout, deterministic=not train)(nn.relu(h))

        num_joints = self.skeleton.num_joints
        h = layer(keypoints.reshape(*keypoints.shape[:-2], 2 * num_joints))
        for _ in range(self.num_blocks):
            h = h + layer(layer(h))
        pose = nn.Dense(3 * num_joints, kernel_init=_init, dtype=self.dtype)(h)
        return pose.reshape(*keypoints.shape[:-1], 3)
