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
from posediff_jax.data.batching import centre_missing
from posediff_jax.data.occlusion import read_occlusion
from posediff_jax.data.windows import ClipPlan, heard_only, plan_clip
from posediff_jax.inference import SampleBatch, make_sampler, sample_clip
from posediff_jax.keys import check_key
from posediff_jax.samplers.aggregate import joint_spread, mean_pose
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton, joint_map
from posediff_jax.systems import make_system
from posediff_jax.types import Camera, PoseBatch, Variables

_LARGEST_SCREEN = 2.0  # nobody is two pixels large
# Systems that use no joint of confidence 0, so that nothing need be learnt about missing ones.
_LEAVES_OUT = ("zedo",)


@dataclasses.dataclass(frozen=True, eq=False)
class Lifted:
    """Hypotheses of one clip. Camera axes: x right, y down, z forward.

    Attributes:
      poses: All hypotheses, relative to the root joint, metres, `(H, F, J, 3)`.
      pose: Their mean, metres, `(F, J, 3)`. Like all hypotheses NaN in a frame where no window that
        answers for it has a seen joint.
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
      occlusion: How joints were hidden in training, None where they were not.
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
          ValueError: `batch_size` is less than 1, a config that `make_system` refuses, or weights
            trained with another convention of what a missing joint is.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.config = config
        self.skeleton = get_skeleton(config.skeleton)
        data = config.get("data", {})
        self.frames = int(data.get("frames", 1))
        hidden = data.get("occlusion")
        self.occlusion = None if hidden is None else read_occlusion(hidden)
        self.system = make_system(_without_gaps(config), frozen)
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
        confidence: ArrayLike | None = None,
        num_hypotheses: int = 50,
        skeleton: str | None = None,
        overlap: int | None = None,
        causal: bool = False,
    ) -> Lifted:
        """Lifts the keypoints of one person in one clip of any length.

        The hypotheses of a window depend on `key`, its number and its keypoints only: not on batch
        size, devices or `num_hypotheses` (fewer are the first of more), to rounding. Beyond the
        result, memory is that of `batch_size` windows.

        Args:
          keypoints: Pixels, `(F, J, 2)`.
          camera: The camera of the clip, without leading axes; `camera_from_matrix` or
            `default_camera` make one. DiffuPose uses its image size only.
          key: Random key.
          confidence: In [0, 1], `(F, J)`; 0 for a missing joint, whose position may be anything. It
            is repaired: lifted from what is seen, by weights that were trained with occlusion
            (`data.occlusion` of the config; which joints their pattern hid is not compared) or a
            system that leaves it out ("zedo"). None sees all.
          num_hypotheses: H.
          skeleton: Name of the joint order of `keypoints`, such as "coco_17"; None is that of the
            weights.
          overlap: Frames that neighbouring windows share and are blended over, see `plan_clip`;
            None for half a window, with which steps at joins are as good as those between. Shared
            hypotheses are nearer to their mean (see `sample_clip`); 0 puts windows side by side.
          causal: For each frame a window of its own, which ends there: later frames change
            nothing, and the clip takes as many windows as it has frames.

        Raises:
          TypeError: `camera` is no `Camera`, `key` no typed key, or `overlap` no whole number.
          ValueError: Joints do not fit the skeleton or cannot be converted, no frame, values that
            are not finite or look normalised, a camera with leading axes, confidences that do not
            fit, missing joints with weights that were not trained for them, H below 1 (or above 1
            for a deterministic system), or an `overlap` that does not fit the window or `causal`.
        """
        if num_hypotheses < 1:
            raise ValueError(f"num_hypotheses: expected at least 1, got {num_hypotheses}")
        check_key(key)
        if not isinstance(camera, Camera):
            raise TypeError(
                f"camera: expected a Camera, such as default_camera((w, h)), got {camera!r}"
            )
        if np.ndim(camera.focal) != 1:
            raise ValueError(
                f"camera: expected one without leading axes, got focal {np.shape(camera.focal)}"
            )
        points, seen = self._convert(np.asarray(keypoints, np.float32), confidence, skeleton)
        if not seen.any():
            raise ValueError("confidence: expected a joint that is seen and that the weights use")
        if (seen == 0).any():
            self._check_repairs()
        points = centre_missing(points, seen, np.asarray(camera.image_size))
        if num_hypotheses not in self._samplers:
            self._samplers[num_hypotheses] = make_sampler(
                self.system,
                self.variables,
                num_hypotheses=num_hypotheses,
                devices=self._devices,
            )
        draw = self._samplers[num_hypotheses]
        if overlap is None:
            overlap = 0 if causal else self.frames // 2
        plan = plan_clip(len(points), length=self.frames, overlap=overlap, causal=causal)
        anyone = seen.max(axis=1) > 0
        plan = heard_only(plan, (anyone[plan.index] & (plan.mask > 0)).any(axis=1))
        poses = sample_clip(
            key,
            draw,
            lambda rows: clip_batch(points, seen, camera, plan, rows),
            plan,
            batch_size=self._batch_size,
        )
        told = np.bincount(plan.index.ravel(), weights=plan.weight.ravel()) > 0
        # In place: the result may be the largest array that there is.
        poses[:, ~told] = np.nan
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

    def _convert(
        self, points: NDArray, confidence: ArrayLike | None, skeleton: str | None
    ) -> tuple[NDArray, NDArray]:
        """Keypoints and confidences in the joint order of the weights."""
        source = self.skeleton if skeleton is None else get_skeleton(skeleton)
        check_joints(points, source, channels=2, name="keypoints")
        if points.ndim != 3 or not len(points):
            raise ValueError(f"keypoints: expected (F, J, 2) with F >= 1, got {points.shape}")
        seen = _confidence(confidence, points.shape[:2])
        # A detector may say NaN where it saw nothing.
        points = np.where(seen[..., None] > 0, points, 0)
        _check_finite(points, source)
        if np.abs(points).max() <= _LARGEST_SCREEN:
            raise ValueError(
                f"keypoints: expected pixels, got no value above {np.abs(points).max():.3g}; are "
                "they normalised?"
            )
        if source == self.skeleton:
            return points, seen
        joints = joint_map(source.name, self.skeleton.name)
        return np.asarray(joints.apply(points)), np.asarray(joints.apply_confidence(seen))

    def _check_repairs(self) -> None:
        occlusion = self.occlusion
        if self.config.system in _LEAVES_OUT or (occlusion is not None and occlusion.hides):
            return
        trained = "without one" if occlusion is None else f"with {occlusion.pattern!r}"
        raise ValueError(
            "confidence: some joints are missing (0), but these weights were not trained with "
            f"missing joints (data.occlusion of the config: {trained}); train with a pattern of "
            "data.occlusion, or fill the joints in"
        )


def _without_gaps(config: ConfigDict) -> ConfigDict:
    """Where a joint of ZeDO's first fit is missing, such as a hip, that fit takes what is seen."""
    if config.system != "zedo":
        return config
    changed = ConfigDict(config.to_dict())
    changed.sampler = {"fit_missing": "extent", **config.get("sampler", {})}
    return changed


def _check_finite(points: NDArray, skeleton: Skeleton) -> None:
    lost = np.argwhere(~np.isfinite(points).all(axis=-1))
    if len(lost):
        frame, joint = lost[0]
        raise ValueError(
            f"keypoints: expected finite values, got {points[frame, joint]} in frame {frame}, "
            f"joint {joint} ({skeleton.joints[joint]}), and in {len(lost) - 1} other places; a "
            "joint that nobody saw has confidence 0"
        )


def _confidence(confidence: ArrayLike | None, shape: tuple[int, ...]) -> NDArray:
    """Checked confidences `(F, J)`."""
    if confidence is None:
        return np.ones(shape, np.float32)
    values = np.asarray(confidence, np.float32)
    if values.shape != shape:
        raise ValueError(f"confidence: expected {shape} for these keypoints, got {values.shape}")
    outside = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(outside):
        frame, joint = outside[0]
        raise ValueError(
            f"confidence: expected values in [0, 1], got {values[frame, joint]} in frame {frame}, "
            f"joint {joint}"
        )
    if not values.any():
        raise ValueError("confidence: expected a joint that is seen, all are missing (0)")
    return values


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
    confidence: NDArray,
    camera: Camera,
    plan: ClipPlan,
    rows: NDArray,
    *,
    start: NDArray | None = None,
) -> PoseBatch:
    """Windows of one person's keypoints as a batch.

    Args:
      points: Pixels, `(F, J, 2)`.
      confidence: `(F, J)`; a joint of confidence 0 is missing.
      camera: Without leading axes.
      plan: The windows, from `plan_clip`.
      rows: Which of them, `(B,)`; their numbers are the items' indices.
      start: As `PoseBatch.start`, `(B, F, J, 3)`.
    """
    pixels: Any = points[plan.index[rows]]
    certain: Any = confidence[plan.index[rows]]
    screen: Any = to_screen(pixels, np.asarray(camera.image_size))
    # Zero, not nearly so: what networks were shown in training.
    screen = np.where(certain[..., None] > 0, screen, 0)
    guess: Any = start
    cameras = jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf), (len(rows), *np.shape(leaf))), camera
    )
    # PoseBatch is typed by what its leaves become on a device.
    mask: Any = plan.mask[rows]
    zeros: Any = np.zeros(len(rows), np.int32)
    number: Any = rows.astype(np.int32)
    return PoseBatch(
        keypoints=screen,
        keypoints_px=pixels,
        confidence=certain,
        mask=mask,
        index=number,
        subject=zeros,
        action=zeros,
        camera=cameras,
        start=guess,
    )
