"""Sampling for users: weights bound once, batches of any size, spread over devices."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

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
      a ValueError for an empty batch and for keypoints that are not finite in an unmasked frame.
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
