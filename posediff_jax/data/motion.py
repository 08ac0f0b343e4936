"""Motion clips: joints in the world over time, before any camera has seen them."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from posediff_jax.skeleton import check_joints, get_skeleton


@dataclasses.dataclass(frozen=True, eq=False)
class MotionClip:
    """One recorded or generated motion. The world is y-up.

    Attributes:
      name: Unique among the clips of a data set; names the clip in errors.
      subject: Who moves.
      action: What they do.
      poses: World positions in metres, root trajectory included, `(F, J, 3)`.
      fps: Frames per second.
      skeleton: Name of the joint order, a key of `skeleton.SKELETONS`.

    Raises:
      ValueError: `poses` does not fit the skeleton, is empty or not finite, or `fps` is not
        positive; the message names the clip.
    """

    name: str
    subject: str
    action: str
    poses: NDArray
    fps: float
    skeleton: str

    def __post_init__(self) -> None:
        label = f"clip {self.name!r}: poses"
        skeleton = get_skeleton(self.skeleton)
        check_joints(self.poses, skeleton, channels=3, name=label)
        if self.poses.ndim != 3 or len(self.poses) == 0:
            raise ValueError(
                f"{label}: expected (F, J, 3) with at least one frame, got {self.poses.shape}"
            )
        bad = np.argwhere(~np.isfinite(self.poses))
        if bad.size:
            frame, joint, _ = bad[0]
            raise ValueError(
                f"{label}: expected finite metres, got {self.poses[frame, joint].tolist()} "
                f"at frame {frame}, joint {joint} ({skeleton.joints[joint]})"
            )
        if not self.fps > 0:
            raise ValueError(f"clip {self.name!r}: fps: expected more than 0, got {self.fps}")

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.poses)

    def every(self, step: int) -> "MotionClip":
        """Keeps frames 0, step, 2 step, ...; `fps` is divided by `step`.

        Raises:
          ValueError: `step` is less than 1.
        """
        if step < 1:
            raise ValueError(f"step: expected at least 1, got {step}")
        return dataclasses.replace(self, poses=self.poses[::step], fps=self.fps / step)

    def split(self, frames: int) -> "tuple[MotionClip, ...]":
        """Cuts the clip into pieces of `frames` frames, the last one shorter where F says so.

        A camera placed per piece keeps somebody who walks far in view.

        Raises:
          ValueError: `frames` is less than 1.
        """
        if frames < 1:
            raise ValueError(f"frames: expected at least 1, got {frames}")
        return tuple(
            dataclasses.replace(
                self, name=f"{self.name}@{start}", poses=self.poses[start : start + frames]
            )
            for start in range(0, self.num_frames, frames)
        )
