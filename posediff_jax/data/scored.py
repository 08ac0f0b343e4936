"""Items to evaluate: windows of sequences, and which of their frames count."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.batching import ItemTable, item_table
from posediff_jax.data.occlusion import Occlusion
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import PoseBatch


class ScoredViews(NamedTuple):
    """Sequences, and which of their frames are scored.

    Attributes:
      views: The sequences, whole.
      scored: For each sequence `(F,)` booleans.
    """

    views: PoseSequences
    scored: tuple[NDArray[np.bool_], ...]


class ScoredItems(NamedTuple):
    """Windows that hold every scored frame once.

    Attributes:
      table: Windows of all sequences, one after the other.
      items: The windows with a scored frame, `(K,)` item indices.
      frames: Which frames of each window count, `(K, F)` booleans.
      sequence: Sequence number of each window, `(K,)`.
      start: First frame of each window in its sequence, `(K,)`.
      subjects: Legend of subject numbers.
      actions: Legend of action numbers.
      skeleton: The joint order.
    """

    table: ItemTable
    items: NDArray[np.int64]
    frames: NDArray[np.bool_]
    sequence: NDArray[np.int64]
    start: NDArray[np.int64]
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    skeleton: Skeleton

    @property
    def num_frames(self) -> int:
        """Scored frames."""
        return int(self.frames.sum())

    def batches(self, batch_size: int) -> Iterator[tuple[PoseBatch, NDArray[np.bool_]]]:
        """Batches of one shape with the frames that count; the last one repeats its last item.

        Args:
          batch_size: B.

        Raises:
          ValueError: `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        for first in range(0, len(self.items), batch_size):
            rows = np.arange(first, first + batch_size)
            inside = rows < len(self.items)
            rows = np.minimum(rows, len(self.items) - 1)
            yield self.table.gather(self.items[rows]), self.frames[rows] & inside[:, None]


def all_frames(views: PoseSequences) -> ScoredViews:
    """Scores every frame."""
    return ScoredViews(views, tuple(np.ones(s.num_frames, bool) for s in views.sequences))


def scored_items(
    scored_views: ScoredViews, *, length: int = 1, occlusion: Occlusion | None = None
) -> ScoredItems:
    """Cuts sequences into windows side by side and keeps those with a scored frame.

    Args:
      scored_views: Sequences and their scored frames.
      length: Frames per window; a window over the end of its sequence repeats the last frame.
      occlusion: Which joints are hidden, the same ones for every system; None hides nothing.

    Raises:
      ValueError: `scored` does not fit the sequences, nothing is scored, or what is to be hidden
        does not fit windows or skeleton.
    """
    views, scored = scored_views
    _check_scored(views, scored)
    table = item_table(views, length=length, occlusion=occlusion)
    # Frames after the end of the last sequence are looked up too, and masked.
    flags = np.concatenate([*scored, np.zeros(length, bool)])
    sequence, start, end, _ = table.items.T.astype(np.int64)
    local = start[:, None] + np.arange(length)
    frames = flags[table.offsets[sequence][:, None] + local] & (local < end[:, None])
    items = np.flatnonzero(frames.any(axis=1))
    if not len(items):
        raise ValueError("scored: expected at least one scored frame, got none")
    return ScoredItems(
        table=table,
        items=items,
        frames=frames[items],
        sequence=sequence[items],
        start=start[items],
        subjects=views.subjects,
        actions=views.actions,
        skeleton=views.skeleton,
    )


def _check_scored(views: PoseSequences, scored: Sequence[NDArray[np.bool_]]) -> None:
    found = [np.shape(s) for s in scored]
    expected = [(s.num_frames,) for s in views.sequences]
    if found != expected:
        raise ValueError(f"scored: expected one flag per frame, {expected}, got {found}")
