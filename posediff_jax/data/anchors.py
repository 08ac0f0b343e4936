"""Anchor poses, from which a zero-shot method starts: what they are, and the file they are kept in.

One npz: `poses` `(S, J, 3)`, `joints` (J names), `unit` ("metre"), `counts` `(S,)` and `source`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.npz import check_array, read_npz, write_npz
from posediff_jax.skeleton import SKELETONS, Skeleton

UNIT = "metre"


class Anchors(NamedTuple):
    """Poses that stand for a set of poses.

    Attributes:
      poses: `(S, J, 3)`, root-relative metres in camera axes, the one for most poses first.
      joints: J names.
      counts: How many poses each one stands for, `(S,)`.
      source: What they were made from, in words.
    """

    poses: NDArray
    joints: tuple[str, ...]
    counts: NDArray
    source: str

    def frozen(self) -> dict[str, object]:
        """As `systems.zedo` takes them."""
        return {"anchors": self.poses, "joints": self.joints}


def write_anchors(path: str | Path, anchors: Anchors) -> None:
    """Writes the file, whole or not at all.

    Args:
      path: An `.npz` file; its folder is made if need be.
      anchors: What to write.

    Raises:
      OSError: It cannot be written; a file that was there is left alone.
    """
    arrays = {
        "poses": np.asarray(anchors.poses, np.float32),
        "joints": np.array(anchors.joints),
        "unit": np.array(UNIT),
        "counts": np.asarray(anchors.counts, np.int64),
        "source": np.array(anchors.source),
    }
    write_npz(path, arrays)


def read_anchors(
    path: str | Path, skeleton: Skeleton, *, num_anchors: int | None = None
) -> Anchors:
    """Reads anchors for a skeleton.

    Args:
      path: A file by `write_anchors`.
      skeleton: Whose joints, in its order, they must have.
      num_anchors: How many are needed; None takes what there is.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is corrupt or no anchor file, has other joints or units, values that are
        not finite or not root-relative, or fewer than `num_anchors`.
    """
    arrays = read_npz(path)
    expected = {"poses", "joints", "unit", "counts", "source"}
    if set(arrays) != expected:
        raise ValueError(f"{path}: expected keys {sorted(expected)}, got {sorted(arrays)}")
    joints = tuple(str(name) for name in arrays["joints"])
    _check_joint_names(joints, skeleton, path)
    if str(arrays["unit"]) != UNIT:
        raise ValueError(f"{path}: key 'unit': expected {UNIT!r}, got {str(arrays['unit'])!r}")
    poses = check_array(arrays["poses"], (None, skeleton.num_joints, 3), path=path, key="poses")
    if not len(poses) or arrays["counts"].shape != (len(poses),):
        raise ValueError(
            f"{path}: key 'counts': expected one for each of at least one pose, got "
            f"{arrays['counts'].shape} for {len(poses)}"
        )
    distance = np.linalg.norm(poses[:, skeleton.root], axis=-1).max()
    if distance > 1e-4:
        raise ValueError(
            f"{path}: key 'poses': expected root-relative poses, got the root {distance:.4g} m "
            f"from the origin"
        )
    if num_anchors is not None and num_anchors > len(poses):
        raise ValueError(f"{path}: expected at least {num_anchors} anchors, got {len(poses)}")
    return Anchors(poses, joints, arrays["counts"], str(arrays["source"]))


def _check_joint_names(joints: tuple[str, ...], skeleton: Skeleton, path: str | Path) -> None:
    if joints == skeleton.joints:
        return
    others = [name for name, s in SKELETONS.items() if s.joints == joints]
    hint = f" (those are of {others[0]!r}; see skeleton.joint_map)" if others else ""
    raise ValueError(
        f"{path}: key 'joints': expected the order of skeleton {skeleton.name!r}, "
        f"{skeleton.joints}, got {joints}{hint}"
    )
