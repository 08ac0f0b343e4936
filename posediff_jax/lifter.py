"""Checkpoints as functions: 2D keypoints in, hypotheses in metres out."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike, NDArray

from posediff_jax.camera import to_screen
from posediff_jax.data.windows import windows
from posediff_jax.inference import SampleBatch, make_sampler
from posediff_jax.samplers.aggregate import joint_spread, mean_pose
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton, joint_map
from posediff_jax.systems import make_system
from posediff_jax.types import Camera, PoseBatch, Variables

_LARGEST_SCREEN = 2.0  # nobody is two pixels large


@dataclasses.dataclass(frozen=True, eq=False)
class Lifted:
    """Hypotheses of one clip. Camera axes: x right, y down, z forward.

    Attributes:
      poses: All hypotheses, relative to the root joint, metres, `(H, F, J, 3)`.
      pose: Their mean, metres, `(F, J, 3)`.
      spread: Root mean square distance of each joint to the mean, metres, `(F, J)`.
      joints: Names of the J joints.
      skeleton: The joint order, with parents and sides.
      units: "metres".
      system: What made the hypotheses, a key of `SYSTEMS`.
    """

    poses: NDArray
    pose: NDArray
    spread: NDArray
    joints: tuple[str, ...]
    skeleton: Skeleton
    units: str
    system: str


class Lifter:
    """Weights bound once to devices; called with keypoints. Made by `load`.

    Attributes:
      config: The full config of the run.
      system: The system that the config names.
      variables: Its weights.
      skeleton: The joint order.
      frames: Frames that the system sees at a time.
    """

    def __init__(
        self,
        config: ConfigDict,
        variables: dict[str, Any],
        *,
        frozen: Variables | None = None,
        batch_size: int = 128,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """See `load`.

        Args:
          config: The full config of the run.
          variables: Its weights.
          frozen: The frozen part of systems that have one.
          batch_size: Clips or frames in memory at a time.
          devices: Devices to use; None for all of this process.

        Raises:
          ValueError: `batch_size` is less than 1, or a config that `make_system` refuses.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.config = config
        self.skeleton = get_skeleton(config.skeleton)
        self.frames = int(config.get("data", {}).get("frames", 1))
        self.system = make_system(config, frozen)
        self.variables = variables
        self._batch_size = batch_size
        self._devices = devices
        self._samplers: dict[int, SampleBatch] = {}

    def __call__(
        self,
        keypoints: ArrayLike,
        *,
        camera: Camera,
        key: jax.Array,
        num_hypotheses: int = 50,
        skeleton: str | None = None,
    ) -> Lifted:
        """Lifts the keypoints of one person in one clip.

        The hypotheses of a frame depend on `key`, its number and its keypoints only: not on batch
        size, devices or `num_hypotheses` (fewer are the first of more), to rounding.

        Args:
          keypoints: Pixels, `(F, J, 2)`.
          camera: The camera of the clip, without leading axes; `camera_from_matrix` or
            `default_camera` make one. DiffuPose uses its image size only.
          key: Random key.
          num_hypotheses: H.
          skeleton: Name of the joint order of `keypoints`, such as "coco_17"; None is that of the
            weights.

        Raises:
          TypeError: `camera` is no `Camera`.
          ValueError: Joints do not fit the skeleton or cannot be converted, no frame, values that
            are not finite or look normalised, a camera with leading axes, or H below 1 (or above 1
            for a deterministic system).
        """
        if num_hypotheses < 1:
            raise ValueError(f"num_hypotheses: expected at least 1, got {num_hypotheses}")
        if not isinstance(camera, Camera):
            raise TypeError(
                f"camera: expected a Camera, such as default_camera((w, h)), got {camera!r}"
            )
        if np.ndim(camera.focal) != 1:
            raise ValueError(
                f"camera: expected one without leading axes, got focal {np.shape(camera.focal)}"
            )
        points = self._convert(np.asarray(keypoints, np.float32), skeleton)
        if num_hypotheses not in self._samplers:
            self._samplers[num_hypotheses] = make_sampler(
                self.system,
                self.variables,
                num_hypotheses=num_hypotheses,
                devices=self._devices,
            )
        draw = self._samplers[num_hypotheses]
        index, shown = windows(len(points), length=self.frames)
        poses = np.empty((num_hypotheses, *points.shape[:2], 3), np.float32)
        # A short clip has a batch of its own size, to a power of two: few shapes, few compilations.
        size = min(self._batch_size, 1 << (len(index) - 1).bit_length())
        for first in range(0, len(index), size):
            rows = np.arange(first, first + size)
            # Filled up with the last window: one shape, so one compilation.
            rows = np.minimum(rows, len(index) - 1)
            samples = draw(key, clip_batch(points, camera, index, shown, rows)).samples
            for row, sample in zip(rows, samples, strict=True):
                real = shown[row] > 0
                poses[:, index[row][real]] = sample[:, real]
        hypotheses = jnp.asarray(poses)
        return Lifted(
            poses=poses,
            pose=np.asarray(mean_pose(hypotheses, axis=0)),
            spread=np.asarray(joint_spread(hypotheses, axis=0)),
            joints=self.skeleton.joints,
            skeleton=self.skeleton,
            units="metres",
            system=self.config.system,
        )

    def _convert(self, points: NDArray, skeleton: str | None) -> NDArray:
        source = self.skeleton if skeleton is None else get_skeleton(skeleton)
        check_joints(points, source, channels=2, name="keypoints")
        if points.ndim != 3 or not len(points):
            raise ValueError(f"keypoints: expected (F, J, 2) with F >= 1, got {points.shape}")
        if np.abs(points).max() <= _LARGEST_SCREEN:
            raise ValueError(
                f"keypoints: expected pixels, got no value above {np.abs(points).max():.3g}; are "
                "they normalised?"
            )
        if source == self.skeleton:
            return points
        return np.asarray(joint_map(source.name, self.skeleton.name).apply(points))


def load(
    directory: str | os.PathLike[str],
    *,
    which: str = "auto",
    step: int | None = None,
    frozen: Variables | None = None,
    batch_size: int = 128,
    devices: Sequence[jax.Device] | None = None,
) -> Lifter:
    """Opens a run's folder for use.

    `lifter = posediff_jax.load(DIR)`, then `lifter(keypoints, camera=..., key=...)`.

    Args:
      directory: A run's working folder, or the folder of its checkpoints.
      which: "auto", "ema" or "raw", see `load_variables`.
      step: Which checkpoint; by default the best one where evaluations chose one, else the newest.
      frozen: The frozen part of systems that have one, such as the anchors of "zedo"
        (`read_anchors(FILE, skeleton).frozen()`).
      batch_size: Frames (or windows of a system that sees several frames) in memory at a time;
        the chains of their hypotheses are bounded by `sampler.max_chains` of the config.
      devices: Devices to use; None for all of this process.

    Raises:
      FileNotFoundError: No checkpoint there.
      BrokenCheckpointError: No checkpoint is intact.
      ValueError: The checkpoint holds no config, or an option is refused.
    """
    # Here, because Orbax takes seconds to import and `posediff_jax` names this function.
    from posediff_jax.training.checkpoints import load_variables

    variables, info = load_variables(directory, which=which, step=step)
    if not info.config:
        raise ValueError(f"{Path(directory)}: the checkpoint holds no config")
    config = ConfigDict(info.config)
    return Lifter(config, variables, frozen=frozen, batch_size=batch_size, devices=devices)


def clip_batch(
    points: NDArray,
    camera: Camera,
    index: NDArray,
    shown: NDArray,
    rows: NDArray,
    *,
    confidence: NDArray | None = None,
    start: NDArray | None = None,
) -> PoseBatch:
    """Windows of one person's keypoints as a batch.

    Args:
      points: Pixels, `(F, J, 2)`.
      camera: Without leading axes.
      index: From `windows`.
      shown: Likewise.
      rows: Which of the windows, `(B,)`; their numbers are the items' indices.
      confidence: `(F, J)`; None trusts all.
      start: As `PoseBatch.start`, `(B, F, J, 3)`.
    """
    pixels: Any = points[index[rows]]
    trust: Any = np.ones(pixels.shape[:-1], np.float32)
    if confidence is not None:
        trust = confidence[index[rows]]
    guess: Any = start
    cameras = jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (len(rows), *np.shape(leaf))), camera
    )
    zeros: Any = np.zeros(len(rows), np.int32)
    number: Any = rows.astype(np.int32)
    return PoseBatch(
        keypoints=to_screen(pixels, np.asarray(camera.image_size)),
        keypoints_px=pixels,
        confidence=trust,
        mask=shown[rows],  # type: ignore[arg-type]
        index=number,
        subject=zeros,
        action=zeros,
        camera=cameras,
        start=guess,
    )
