"""Sampling for users: weights bound once, batches of any size, spread over devices."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.batching import ItemTable, list_items
from posediff_jax.data.scored import ScoredItems
from posediff_jax.data.windows import ClipPlan, plan_clip
from posediff_jax.keys import check_key
from posediff_jax.parallel import AXIS, local_devices, replicate, shard_batch
from posediff_jax.systems.base import System
from posediff_jax.types import PoseBatch, SampleResult, Variables

SampleBatch = Callable[[jax.Array, PoseBatch], SampleResult]
SampleWith = Callable[[jax.Array, Variables, PoseBatch], SampleResult]


def make_sampler(
    system: System,
    variables: Variables,
    *,
    num_hypotheses: int,
    devices: Sequence[jax.Device] | None = None,
    return_trajectory: bool = False,
) -> SampleBatch:
    """Binds weights to a system's sampler and maps it over devices.

    Each item's randomness comes from the key and its `index`, so the result does not depend on
    how items are spread over batches and devices. One compilation per batch shape.

    Args:
      system: The system to sample from.
      variables: Its weights; put on the devices once.
      num_hypotheses: H.
      devices: Devices to use, those of this process; None for all.
      return_trajectory: Also return the state after each step.

    Returns:
      `(key, batch) -> SampleResult` with NumPy arrays on the host, `(B, H, F, J, 3)`. It raises
      a ValueError for an empty batch and for keypoints that are not finite in an unmasked frame,
      and a TypeError for a key that is no typed one.
    """
    sample_with = map_sampler(
        system,
        num_hypotheses=num_hypotheses,
        devices=devices,
        return_trajectory=return_trajectory,
    )
    placed = replicate(dict(variables), devices)
    return lambda key, batch: sample_with(key, placed, batch)


def map_sampler(
    system: System,
    *,
    num_hypotheses: int,
    devices: Sequence[jax.Device] | None = None,
    return_trajectory: bool = False,
) -> SampleWith:
    """`make_sampler` for weights that change, such as those of a training run: compiled once.

    Args:
      system: The system to sample from.
      num_hypotheses: H.
      devices: Devices to use, those of this process; None for all.
      return_trajectory: Also return the state after each step.

    Returns:
      `(key, variables, batch) -> SampleResult`, see `make_sampler`; `variables` best placed by
      `parallel.replicate`.
    """
    devices = local_devices(devices)
    sample = partial(
        system.sample, num_hypotheses=num_hypotheses, return_trajectory=return_trajectory
    )
    mapped = jax.pmap(sample, axis_name=AXIS, in_axes=(None, None, 0), devices=devices)

    def sample_with(key: jax.Array, variables: Variables, batch: PoseBatch) -> SampleResult:
        check_key(key)
        _check_values(batch)
        shards = shard_batch(_padded(batch, len(devices)), len(devices))
        result = jax.device_get(mapped(key, variables, shards))
        return jax.tree.map(lambda x: _gather(x, batch.num_items), result)

    return sample_with


def sample_all(
    key: jax.Array, sample_batch: SampleBatch, batches: Iterable[PoseBatch]
) -> NDArray[np.floating]:
    """Samples every unmasked item of `batches`, in their order.

    Args:
      key: Random key; each item draws from it by its own index.
      sample_batch: See `make_sampler`.
      batches: Batches of one shape, the last one padded.

    Returns:
      `(N, H, F, J, 3)` root-relative metres.

    Raises:
      ValueError: There is no batch.
    """
    parts = []
    for batch in batches:
        samples = sample_batch(key, batch).samples
        parts.append(samples[np.asarray(batch.mask).any(axis=1)])
    if not parts:
        raise ValueError("batches: expected at least one batch, got none")
    return np.concatenate(parts)


def sample_clip(
    key: jax.Array,
    sample_batch: SampleBatch,
    gather: Callable[[NDArray[np.int64]], PoseBatch],
    plan: ClipPlan,
    *,
    batch_size: int,
) -> NDArray[np.floating]:
    """Hypotheses of a whole clip, blended from those of its windows.

    Hypothesis h of a window is blended with hypothesis h of the next, which was drawn apart: where
    windows overlap, hypotheses are nearer to their mean than within a window.

    Args:
      key: Random key; each window draws from it by its own index.
      sample_batch: See `make_sampler`.
      gather: `(rows of the plan (B,)) -> batch`.
      plan: Windows and weights.
      batch_size: Windows in memory at a time.

    Returns:
      `(H, F, J, 3)` root-relative metres.

    Raises:
      ValueError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    count = len(plan.index)
    # A short clip has a batch of its own size, to a power of two: few shapes, few compilations.
    size = min(batch_size, 1 << (count - 1).bit_length())
    poses: NDArray[np.floating] = np.zeros(())
    for first in range(0, count, size):
        rows = np.arange(first, first + size)
        # Filled up with the last window: one shape, so one compilation.
        samples = sample_batch(key, gather(np.minimum(rows, count - 1))).samples
        if not poses.ndim:
            frames = int(plan.index.max()) + 1
            poses = np.zeros((samples.shape[1], frames, *samples.shape[3:]), samples.dtype)
        for row, sample in zip(rows[rows < count], samples, strict=False):
            said = plan.weight[row] > 0
            weight = plan.weight[row][said, None, None]
            poses[:, plan.index[row][said]] += weight * sample[:, said]
    return poses


def clip_sampler(
    key: jax.Array,
    sample_batch: SampleBatch,
    table: ItemTable,
    *,
    batch_size: int,
    overlap: int = 0,
    causal: bool = False,
) -> Callable[[int], NDArray[np.floating]]:
    """Binds `sample_clip` to the sequences of a table.

    Args:
      key: Random key; each window draws from it by its own number over all sequences.
      sample_batch: See `make_sampler`.
      table: Sequences, and how many frames a window has.
      batch_size: Windows in memory at a time.
      overlap: See `plan_clip`.
      causal: Likewise.

    Returns:
      `(number of a sequence) -> hypotheses of all its frames (H, F, J, 3)`.

    Raises:
      ValueError: As `plan_clip`.
    """
    length = table.length
    frames = [int(n) for n in np.diff(table.offsets)]
    plans = [plan_clip(n, length=length, overlap=overlap, causal=causal) for n in frames]
    pad, stride = ("causal", 1) if causal else ("shift", length - overlap)
    asked = list_items(frames, length=length, stride=stride, pad=pad)
    overlapping = dataclasses.replace(table, items=asked)
    firsts = np.cumsum([0, *(len(plan.index) for plan in plans)])

    def clip_of(number: int) -> NDArray[np.floating]:
        def gather(rows: NDArray[np.int64]) -> PoseBatch:
            return overlapping.gather(firsts[number] + rows)

        return sample_clip(key, sample_batch, gather, plans[number], batch_size=batch_size)

    return clip_of


def sample_blended(
    key: jax.Array,
    sample_batch: SampleBatch,
    items: ScoredItems,
    *,
    batch_size: int,
    overlap: int,
) -> Iterator[NDArray[np.floating]]:
    """Hypotheses of windows to be scored, cut from whole clips that overlapping windows made.

    Args:
      key: Random key.
      sample_batch: See `make_sampler`.
      items: Windows side by side.
      batch_size: As for `items.batches`, and windows in memory at a time.
      overlap: See `plan_clip`.

    Yields:
      For each of `items.batches(batch_size)` its hypotheses, `(B, H, F, J, 3)`. One clip is in
      memory at a time.

    Raises:
      ValueError: `overlap` is not in [0, F).
    """
    length = items.table.length
    frames = np.diff(items.table.offsets)
    clip_of = clip_sampler(key, sample_batch, items.table, batch_size=batch_size, overlap=overlap)
    current = -1
    for rows, _ in items.rows(batch_size):
        parts = []
        for row in rows:
            number = int(items.sequence[row])
            if number != current:
                current, clip = number, clip_of(number)
            local = np.clip(items.start[row] + np.arange(length), 0, frames[number] - 1)
            parts.append(clip[:, local])
        yield np.stack(parts)


def _check_values(batch: PoseBatch) -> None:
    if batch.num_items < 1:
        raise ValueError(f"batch: expected at least one item, got {np.shape(batch.keypoints)}")
    finite = np.isfinite(np.asarray(batch.keypoints)).all(axis=-1)
    bad = np.argwhere(~finite & (np.asarray(batch.mask)[..., None] > 0))
    if bad.size:
        item, frame, joint = bad[0]
        raise ValueError(
            f"batch.keypoints: expected finite values, got {batch.keypoints[item, frame, joint]} "
            f"at item {item}, frame {frame}, joint {joint}"
        )


def _padded(batch: PoseBatch, multiple: int) -> PoseBatch:
    """The last item repeated until the batch splits evenly."""
    missing = -batch.num_items % multiple

    def pad(x: NDArray) -> NDArray:
        x = np.asarray(x)
        return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x

    return jax.tree.map(pad, batch)


def _gather(x: NDArray, num_items: int) -> NDArray:
    return x.reshape(-1, *x.shape[2:])[:num_items]
