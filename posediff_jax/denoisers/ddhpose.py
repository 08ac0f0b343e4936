"""The denoiser of DDHPose (Cai et al., AAAI 2024): attention that knows the hierarchy of joints."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.hierarchy import ChildLayout, Walk
from posediff_jax.denoisers.mixste import (
    SplitDense,
    TimeEmbedding,
    check_keypoints,
    check_window,
    check_window_times,
    make_trunk,
)
from posediff_jax.process.bones import Bones, bone_tree, compose, from_slots
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array


class DDHPoseDenoiser(nn.Module):
    """Predicts the clean pose from 2D joints, noisy bones and the timestep (DDHPose, section 3.3).

    D3DP's network with an embedding of each joint's level in the tree, HRST in all blocks over
    joints but the first, and HRTT in all blocks over frames but the first. A sampler calls `encode`
    once per batch, `embed_times` once per run, and `denoise` in its loop. 38.5 M parameters as
    published, of which 1.84 M take no part in the forward pass and are left out here.

    Attributes:
      skeleton: Joints; their tree is that of `bone_tree`.
      num_frames: F, fixed by the table of frame positions.
      width: C.
      depth: Pairs of blocks.
      num_heads: Heads of each attention.
      drop_path: See `Trunk`.
      mlp_ratio: See `Trunk`.
      num_timesteps: T.
      levels: Add the level embedding.
      hrst: Edit the logits between joints.
      hrtt: Let temporal attention see child features.
      walk: See `logit_map`.
      child_layout: See `arrange_children`.
      disentangled_input: See noisy bones; False: a noisy pose, as D3DP (Table 4).
      disentangled_output: Regress directions and lengths of bones, and put the pose together from
        them (Table 4).
      visibility: See `MixSTE`.
      dtype: Compute type; None keeps the promoted type of input and parameters.
    """

    skeleton: Skeleton
    num_frames: int = 243
    width: int = 512
    depth: int = 8
    num_heads: int = 8
    drop_path: float = 0.1
    mlp_ratio: float = 2.0
    num_timesteps: int = 1000
    levels: bool = True
    hrst: bool = True
    hrtt: bool = True
    walk: Walk = "released"
    child_layout: ChildLayout = "released"
    disentangled_input: bool = True
    disentangled_output: bool = False
    visibility: bool = False
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        """Builds the layers."""
        tree = bone_tree(self.skeleton)
        noisy = 4 if self.disentangled_input else 3
        self.embed = SplitDense(2 + self.visibility, noisy, self.width, dtype=self.dtype)
        zeros = nn.initializers.zeros
        shape = (self.skeleton.num_joints, self.width)
        self.joint_positions = self.param("joint_positions", zeros, shape)
        if self.levels:
            shape = (1 + max(tree.levels), self.width)
            self.level_embedding = self.param("level_embedding", zeros, shape)
        self.time = TimeEmbedding(self.width, self.num_timesteps, dtype=self.dtype)
        self.trunk = make_trunk(
            self,
            tree=tree,
            hrst=self.hrst,
            hrtt=self.hrtt,
            walk=self.walk,
            child_layout=self.child_layout,
            outputs=4 if self.disentangled_output else 3,
        )

    def __call__(
        self, keypoints: Array, noisy: Bones | Array, t: Array, *, train: bool = False
    ) -> Array:
        """One evaluation. Leading axes broadcast, so hypotheses may share keypoints `(B, 1, ...)`.

        Args:
          keypoints: 2D joints in screen units, `(..., F, J, 2)`.
          noisy: Noisy directions `(..., F, J, 3)` and lengths `(..., F, J, 1)`, where slot j holds
            the bone that ends in joint j; without `disentangled_input` a noisy pose.
          t: Timesteps, one per window, `(...)`, or a scalar.
          train: Stochastic depth, from the rng "drop_path".

        Returns:
          Clean poses in metres, `(..., F, J, 3)`; the root joint is not forced to 0.

        Raises:
          ValueError: Other joints or frames than the network has, timesteps per frame, or a window
            that `arrange_children` refuses.
        """
        regressed = self.regress(keypoints, noisy, t, train=train)
        return self._pose_of(regressed)

    def regress(
        self, keypoints: Array, noisy: Bones | Array, t: Array, *, train: bool = False
    ) -> Bones | Array:
        """What the network itself regresses: poses, or with `disentangled_output` the J - 1 bones.

        Arguments and errors as of a call. Directions are not made unit vectors.
        """
        check_window_times(t, noisy.directions if isinstance(noisy, Bones) else noisy)
        tokens = self.tokens(self.encode(keypoints), noisy, self.embed_times(t))
        return self._regressed(tokens, train=train)

    def encode(self, keypoints: Array) -> Array:
        """What the network makes of the keypoints alone: `(..., F, J, 2)` to `(..., F, J, C)`.

        Raises:
          ValueError: Other joints or frames than the network has.
        """
        check_keypoints(keypoints, self)
        tokens = self.embed.of_first(keypoints)
        table = self.joint_positions
        if self.levels:
            table = table + self.level_embedding[np.array(bone_tree(self.skeleton).levels)]
        return tokens + table.astype(tokens.dtype)

    def embed_times(self, t: Array) -> Array:
        """Timesteps `(...)` to embeddings `(..., C)`."""
        return self.time(t)

    def tokens(self, encoded: Array, noisy: Bones | Array, time_rows: Array) -> Array:
        """What enters the first block, `(..., F, J, C)`; arguments as for `denoise`."""
        if isinstance(noisy, Bones) != self.disentangled_input:
            expected = "Bones" if self.disentangled_input else "an array (disentangled_input=False)"
            raise TypeError(f"noisy: expected {expected}, got {type(noisy).__name__}")
        named = noisy._asdict() if isinstance(noisy, Bones) else {"noisy": noisy}
        for (name, values), channels in zip(named.items(), (3, 1), strict=False):
            check_window(values, self.skeleton, self.num_frames, channels=channels, name=name)
        tokens = encoded + self.embed.of_second(jnp.concatenate([*named.values()], axis=-1))
        return tokens + time_rows[..., None, None, :]

    def denoise(
        self, encoded: Array, noisy: Bones | Array, time_rows: Array, *, train: bool = False
    ) -> Array:
        """The part that runs at each step.

        Args:
          encoded: From `encode`, `(..., F, J, C)`.
          noisy: Noisy directions `(..., F, J, 3)` and lengths `(..., F, J, 1)`, or a noisy pose.
          time_rows: From `embed_times`, `(..., C)`.
          train: Stochastic depth.

        Raises:
          ValueError: Other joints or frames than the network has.
          TypeError: Bones for a network that takes poses, or the other way round.
        """
        return self._pose_of(self._regressed(self.tokens(encoded, noisy, time_rows), train=train))

    def _regressed(self, tokens: Array, *, train: bool) -> Bones | Array:
        output: Array = self.trunk(tokens, train=train)
        if not self.disentangled_output:
            return output
        # Joints far from the root sum many bones.
        output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
        return from_slots(Bones(output[..., :3], output[..., 3:]), bone_tree(self.skeleton))

    def _pose_of(self, regressed: Bones | Array) -> Array:
        # C = C_p + l d as printed: bones are put together as they were regressed.
        if isinstance(regressed, Bones):
            return compose(regressed, bone_tree(self.skeleton))
        return regressed
