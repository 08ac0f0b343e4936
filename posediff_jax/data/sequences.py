"""What every reader returns: 2D keypoints over time, a camera, the 3D truth where known."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from posediff_jax.calibration import make_camera
from posediff_jax.camera import check_in_front
from posediff_jax.skeleton import Skeleton, check_joints
from posediff_jax.types import Camera

_ROOT_TOLERANCE = 1e-4  # metres


@dataclasses.dataclass(frozen=True, eq=False)
class PoseSequence:
    """One clip of one person seen by one camera. `PoseSequences` checks it.

    Attributes:
      name: Unique in its set; names the sequence in errors.
      subject: Who.
      action: What they do.
      fps: Frames per second.
      keypoints_px: 2D joints in pixels, `(F, J, 2)`. A missing joint has confidence 0 and any
        finite position.
      confidence: In [0, 1], `(F, J)`.
      camera: Leaves without leading axes.
      pose: Root-relative joints in camera axes, metres, `(F, J, 3)`, or None where unknown.
      root: Root position in camera axes, metres, `(F, 3)`, or None where unknown.
    """

    name: str
    subject: str
    action: str
    fps: float
    keypoints_px: NDArray
    confidence: NDArray
    camera: Camera
    pose: NDArray | None = None
    root: NDArray | None = None

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.keypoints_px)


@dataclasses.dataclass(frozen=True, eq=False)
class PoseSequences:
    """A checked set of sequences that share one skeleton.

    Attributes:
      sequences: At least one; either all have `pose` or none has, the same for `root`.
      skeleton: The joint order of all arrays.

    Raises:
      ValueError: An array does not fit the skeleton or the others, a value is impossible (not
        finite, confidence outside [0, 1], no frames, a focal length of zero, a pose that is not
        root-relative, a point behind the camera), or names repeat. The message names the sequence.
    """

    sequences: tuple[PoseSequence, ...]
    skeleton: Skeleton

    def __post_init__(self) -> None:
        if not self.sequences:
            raise ValueError("sequences: expected at least one, got none")
        seen: set[str] = set()
        for sequence in self.sequences:
            if sequence.name in seen:
                raise ValueError(f"sequences: the name {sequence.name!r} occurs twice")
            seen.add(sequence.name)
            _check_sequence(sequence, self.skeleton)
        for field in ("pose", "root"):
            known = [s for s in self.sequences if getattr(s, field) is not None]
            if known and len(known) < len(self.sequences):
                raise ValueError(
                    f"sequences: expected {field} in all or in none, "
                    f"got it in {len(known)} of {len(self.sequences)}"
                )

    @functools.cached_property
    def subjects(self) -> tuple[str, ...]:
        """Subject names in sorted order; batches hold indices into this."""
        return tuple(sorted({s.subject for s in self.sequences}))

    @functools.cached_property
    def actions(self) -> tuple[str, ...]:
        """Action names in sorted order; batches hold indices into this."""
        return tuple(sorted({s.action for s in self.sequences}))

    @property
    def num_frames(self) -> int:
        """Frames of all sequences together."""
        return sum(s.num_frames for s in self.sequences)


def _check_sequence(sequence: PoseSequence, skeleton: Skeleton) -> None:
    label = f"sequence {sequence.name!r}"
    keypoints = sequence.keypoints_px
    check_joints(keypoints, skeleton, channels=2, name=f"{label}: keypoints_px")
    if keypoints.ndim != 3 or len(keypoints) == 0:
        raise ValueError(
            f"{label}: keypoints_px: expected (F, J, 2) with at least one frame, "
            f"got {keypoints.shape}"
        )
    _check_finite(keypoints, skeleton, f"{label}: keypoints_px")
    _check_shape(sequence.confidence, keypoints.shape[:2], f"{label}: confidence")
    _check_confidence(sequence.confidence, skeleton, f"{label}: confidence")
    if not sequence.fps > 0:
        raise ValueError(f"{label}: fps: expected more than 0, got {sequence.fps}")
    _check_camera(sequence.camera, f"{label}: camera")
    if sequence.pose is not None:
        _check_pose(sequence.pose, len(keypoints), skeleton, f"{label}: pose")
    if sequence.root is not None:
        _check_root(sequence, skeleton, label)


def _check_shape(array: NDArray, expected: tuple[int, ...], name: str) -> None:
    if np.shape(array) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {np.shape(array)}")


def _check_finite(points: NDArray, skeleton: Skeleton, name: str) -> None:
    bad = np.argwhere(~np.isfinite(points))
    if bad.size:
        frame, joint, _ = bad[0]
        raise ValueError(
            f"{name}: expected finite values, got {points[frame, joint].tolist()} at frame "
            f"{frame}, joint {joint} ({skeleton.joints[joint]}); a missing joint has confidence 0 "
            f"and any finite position"
        )


def _check_confidence(confidence: NDArray, skeleton: Skeleton, name: str) -> None:
    bad = np.argwhere(~((confidence >= 0) & (confidence <= 1)))
    if bad.size:
        frame, joint = bad[0]
        raise ValueError(
            f"{name}: expected values in [0, 1], got {confidence[frame, joint]} at frame {frame}, "
            f"joint {joint} ({skeleton.joints[joint]})"
        )


def _check_camera(camera: Camera, name: str) -> None:
    if np.ndim(camera.focal) != 1:
        raise ValueError(
            f"{name}: expected leaves without leading axes, got focal of shape "
            f"{np.shape(camera.focal)}"
        )
    try:
        make_camera(
            camera.focal,
            camera.center,
            camera.image_size,
            radial=camera.radial,
            tangential=camera.tangential,
            orientation=camera.orientation,
            position=camera.position,
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_pose(pose: NDArray, num_frames: int, skeleton: Skeleton, name: str) -> None:
    _check_shape(pose, (num_frames, skeleton.num_joints, 3), name)
    _check_finite(pose, skeleton, name)
    distance = np.linalg.norm(pose[:, skeleton.root], axis=-1)
    if distance.max() > _ROOT_TOLERANCE:
        frame = int(distance.argmax())
        raise ValueError(
            f"{name}: expected root-relative joints, got the root {distance[frame]:.4g} m from the "
            f"origin at frame {frame}; subtract it and pass it as `root`"
        )


def _check_root(sequence: PoseSequence, skeleton: Skeleton, label: str) -> None:
    root = sequence.root
    assert root is not None
    _check_shape(root, (sequence.num_frames, 3), f"{label}: root")
    bad = np.argwhere(~np.isfinite(root).all(axis=-1))
    if bad.size:
        frame = bad[0, 0]
        raise ValueError(
            f"{label}: root: expected finite metres, got {root[frame].tolist()} at frame {frame}"
        )
    points, name = root[:, None], f"{label}: root"
    if sequence.pose is not None:
        points, name = sequence.pose + root[:, None], f"{label}: pose + root"
        check_in_front(points, name=name, skeleton=skeleton)
    else:
        check_in_front(points, name=name)
