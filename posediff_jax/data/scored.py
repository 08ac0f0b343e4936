"""Items to evaluate: windows of sequences, and which of their frames count."""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.batching import ItemTable, item_table
from posediff_jax.data.occlusion import Occlusion
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import PoseBatch

# How sequences are cut, and the padding of `windows.window_starts` behind it.
CUTS: Mapping[str, str] = MappingProxyType(
    {"side": "edge", "shift": "shift", "shift_twice": "shift", "causal": "causal"}
)


class ScoredViews(NamedTuple):
    """Sequences, and which of their frames are scored.

    Attributes:
      views: The sequences, whole.
      scored: For each sequence `(F,)` booleans.
      known: Likewise, frames whose pose is the true one; None for all. Velocities need two in turn.
    """

    views: PoseSequences
    scored: tuple[NDArray[np.bool_], ...]
    known: tuple[NDArray[np.bool_], ...] | None = None


class ScoredItems(NamedTuple):
    """Windows that hold every scored frame, once unless they were cut by "shift_twice".

    Attributes:
      table: Windows of all sequences, one after the other.
      items: The windows with a scored frame, `(K,)` item indices.
      frames: Which frames of each window count, `(K, F)` booleans.
      sequence: Sequence number of each window, `(K,)`.
      start: First frame of each window in its sequence, `(K,)`.
      subjects: Legend of subject numbers.
      actions: Legend of action numbers.
      skeleton: The joint order.
      before: Frames that do not count but whose next one does: velocities need their answers,
        `(K, F)` booleans. Windows of one frame are not asked for them.
      shared: How many windows of a sequence, in their order, are a group: one batch of the released
        evaluations, whose "P-Best" is one hypothesis for all of it. Four, for MPI-INF-3DHP two.
    """

    table: ItemTable
    items: NDArray[np.int64]
    frames: NDArray[np.bool_]
    sequence: NDArray[np.int64]
    start: NDArray[np.int64]
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    skeleton: Skeleton
    before: NDArray[np.bool_]
    shared: int = 4

    @property
    def num_frames(self) -> int:
        """Scored frames."""
        return int(self.frames.sum())

    def every(self, count: int) -> "ScoredItems":
        """One window in `count`, for sampling that would take too long on all of them.

        A velocity over the border of two windows is lost unless both are kept, and windows are
        no longer beside each other, so that each is a group of its own.

        Raises:
          ValueError: `count` is less than 1, or no scored frame is left.
        """
        if count < 1:
            raise ValueError(f"every: expected at least 1, got {count}")
        kept = slice(None, None, count)
        if not self.frames[kept].any():
            raise ValueError(f"every: expected a scored frame to be left, got none with {count}")
        return self._replace(
            items=self.items[kept],
            frames=self.frames[kept],
            sequence=self.sequence[kept],
            start=self.start[kept],
            before=self.before[kept],
            shared=self.shared if count == 1 else 1,
        )

    def batches(self, batch_size: int) -> Iterator[tuple[PoseBatch, NDArray[np.bool_]]]:
        """Batches of one shape with the frames that count, see `rows`.

        Args:
          batch_size: B.

        Raises:
          ValueError: `batch_size` is less than 1.
        """
        for rows, inside in self.rows(batch_size):
            yield self.table.gather(self.items[rows]), self.frames[rows] & inside[:, None]

    def rows(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Which windows are in each batch: groups are not cut, gaps repeat the window before.

        Args:
          batch_size: B. One below `shared` makes groups so small.

        Yields:
          Numbers of windows `(B,)`, in order, and False where one is repeated, `(B,)`.

        Raises:
          ValueError: `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        count = len(self.items)
        # Where a group ends, and the last one.
        ends = [*(np.flatnonzero(np.diff(self.groups(batch_size))) + 1).tolist(), count]
        first = 0
        while first < count:
            end = ends[bisect.bisect_right(ends, first + batch_size) - 1]
            rows = np.arange(first, first + batch_size)
            yield np.minimum(rows, end - 1), rows < end
            first = end

    def groups(self, largest: int) -> NDArray[np.int64]:
        """The group of each window, counted from 0, `(K,)`.

        Args:
          largest: No group has more windows than that, nor than `shared`.
        """
        count = np.arange(len(self.items))
        begins = np.diff(self.sequence, prepend=-1) != 0
        place = count - np.maximum.accumulate(np.where(begins, count, 0))
        return np.cumsum(place % min(self.shared, largest) == 0) - 1


def all_frames(views: PoseSequences) -> ScoredViews:
    """Scores every frame."""
    return ScoredViews(views, tuple(np.ones(s.num_frames, bool) for s in views.sequences))


def scored_items(
    scored_views: ScoredViews,
    *,
    length: int = 1,
    cut: str = "side",
    occlusion: Occlusion | None = None,
) -> ScoredItems:
    """Cuts sequences into windows and keeps those with a scored frame or one just before it.

    Args:
      scored_views: Sequences and their scored frames.
      length: Frames per window.
      cut: "side": side by side; a window over the end of its sequence repeats the last frame.
        "shift": the last window is moved back inside, and its frames replace those of the window
        before (as published for MPI-INF-3DHP). "shift_twice": likewise, but frames in two windows
        count twice (as published for Human3.6M). "causal": a window for each frame, which ends
        there.
      occlusion: Which joints are hidden, the same ones for every system; None hides nothing.

    Raises:
      ValueError: `scored` does not fit the sequences, nothing is scored, another `cut`, or what is
        to be hidden does not fit windows or skeleton.
    """
    views, scored, known = scored_views
    _check_scored(views, scored)
    _check_scored(views, known or scored)
    if cut not in CUTS:
        raise ValueError(f"cut: expected one of {tuple(CUTS)}, got {cut!r}")
    stride = 1 if cut == "causal" else length
    table = item_table(views, length=length, stride=stride, pad=CUTS[cut], occlusion=occlusion)
    # Frames outside their sequence are looked up too, and left out.
    flags = np.concatenate([*scored, np.zeros(length + 1, bool)])
    sequence, start, end, _ = table.items.T.astype(np.int64)
    local = start[:, None] + np.arange(length)
    own = (local >= 0) & (local < end[:, None])
    if cut == "causal":
        own = local == end[:, None] - 1
    elif cut == "shift":
        follows = sequence[:-1] == sequence[1:]
        own[:-1] &= ~follows[:, None] | (local[:-1] < start[1:, None])
    place = table.offsets[sequence][:, None] + local
    frames = flags[place] & own
    last = np.diff(table.offsets)[sequence][:, None] - 1
    before = flags[place + 1] & own & (local < last) & ~frames & (length > 1)
    if known is not None:
        before &= np.concatenate([*known, np.zeros(length + 1, bool)])[place]
    items = np.flatnonzero((frames | before).any(axis=1))
    if not frames.any():
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
        before=before[items],
    )


def _check_scored(views: PoseSequences, scored: Sequence[NDArray[np.bool_]]) -> None:
    found = [np.shape(s) for s in scored]
    expected = [(s.num_frames,) for s in views.sequences]
    if found != expected:
        raise ValueError(f"scored: expected one flag per frame, {expected}, got {found}")
