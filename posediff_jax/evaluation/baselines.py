"""What a table must beat: the mean pose, and the pose of the nearest training view."""

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.batching import ItemTable
from posediff_jax.data.scored import ScoredItems

# Training views and scored frames compared at a time: 256 MB of distances.
_CHUNK, _QUERIES = 65_536, 1024


def mean_training_pose(table: ItemTable) -> NDArray[np.float64]:
    """The mean of all training items, mirrored ones included, `(J, 3)`, metres.

    Args:
      table: Training items with known poses.

    Raises:
      ValueError: Poses are not known.
    """
    poses = _poses(table)
    total, count = np.zeros(poses.shape[1:]), 0
    for first in range(0, table.num_items, _CHUNK):
        batch = table.gather(np.arange(first, min(first + _CHUNK, table.num_items)))
        shown = np.asarray(batch.mask) > 0
        total += np.asarray(batch.pose, np.float64)[shown].sum(axis=0)
        count += int(shown.sum())
    return total / count


def nearest_training_poses(table: ItemTable, items: ScoredItems) -> NDArray[np.floating]:
    """For each scored frame the pose of the training view whose 2D joints look most alike.

    2D joints are compared relative to the root and divided by their root mean square distance from
    it, so that neither place nor size in the image counts. Uses the training poses as they are, in
    the axes of their own cameras.

    Args:
      table: Training items of one frame each, with known poses.
      items: What is scored.

    Returns:
      `(n, J, 3)`, metres, in the order of `FrameScores`.

    Raises:
      ValueError: Poses are not known, or items hold several frames.
    """
    _poses(table)
    if table.length != 1:
        raise ValueError(f"table: expected items of one frame, got {table.length}")
    root = items.skeleton.root
    queries = np.concatenate([np.asarray(b.keypoints)[frames] for b, frames in items.batches(1024)])
    wanted = _shape(queries, root)
    best = np.full(len(wanted), np.inf)
    found = np.zeros((len(wanted), *queries.shape[1:-1], 3), np.float32)
    for first in range(0, table.num_items, _CHUNK):
        batch = table.gather(np.arange(first, min(first + _CHUNK, table.num_items)))
        views, poses = _shape(np.asarray(batch.keypoints)[:, 0], root), np.asarray(batch.pose)[:, 0]
        # |a - b|^2 = |a|^2 - 2 a b + |b|^2; the first is the same for all views.
        squares = (views**2).sum(axis=1)
        for start in range(0, len(wanted), _QUERIES):
            rows = np.arange(start, min(start + _QUERIES, len(wanted)))
            distance = squares - 2 * (wanted[rows] @ views.T)
            nearest = distance.argmin(axis=1)
            value = distance[np.arange(len(rows)), nearest]
            better = value < best[rows]
            best[rows[better]] = value[better]
            found[rows[better]] = poses[nearest[better]]
    return found


def _poses(table: ItemTable) -> NDArray:
    if table.pose is None:
        raise ValueError("table: expected training items whose poses are known")
    return table.pose


def _shape(keypoints: NDArray, root: int) -> NDArray:
    """`(n, J, 2)` to `(n, 2 J)` without place and size."""
    centred = keypoints - keypoints[:, root : root + 1]
    size = np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))
    return (centred / np.maximum(size, 1e-9)).reshape(len(keypoints), -1)
