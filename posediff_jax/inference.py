"""Sampling for users: weights bound once, batches of any size, spread over devices."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from posediff_jax.systems.base import System
from posediff_jax.types import PoseBatch, SampleResult, Variables

SampleBatch = Callable[[jax.Array, PoseBatch], SampleResult]


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
      devices: Local devices to use; None for all.
      return_trajectory: Also return the state after each step.

    Returns:
      `(key, batch) -> SampleResult` with NumPy arrays on the host, `(B, H, F, J, 3)`.
    """
    devices = list(jax.local_devices() if devices is None else devices)
    sample = partial(
        system.sample, num_hypotheses=num_hypotheses, return_trajectory=return_trajectory
    )
    mapped = jax.pmap(sample, axis_name="device", in_axes=(None, None, 0), devices=devices)
    replicated = NamedSharding(Mesh(np.array(devices), ("device",)), PartitionSpec())
    variables = jax.device_put(dict(variables), replicated)

    def sample_batch(key: jax.Array, batch: PoseBatch) -> SampleResult:
        result = mapped(key, variables, _spread(batch, len(devices)))
        return jax.tree.map(lambda x: _gather(x, batch.num_items), jax.device_get(result))

    return sample_batch


def sample_all(
    sample_batch: SampleBatch, key: jax.Array, batches: Iterable[PoseBatch]
) -> NDArray[np.floating]:
    """Samples every unmasked item of `batches`, in their order: `(N, H, F, J, 3)` metres."""
    parts = []
    for batch in batches:
        samples = sample_batch(key, batch).samples
        parts.append(samples[np.asarray(batch.mask).any(axis=1)])
    if not parts:
        raise ValueError("batches: expected at least one batch, got none")
    return np.concatenate(parts)


def _spread(batch: PoseBatch, num_devices: int) -> PoseBatch:
    """`(B, ...)` to `(num_devices, B / num_devices, ...)`, the last item repeated as padding."""
    missing = -batch.num_items % num_devices

    def split(x: NDArray) -> NDArray:
        x = np.asarray(x)
        if missing:
            x = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
        return x.reshape(num_devices, -1, *x.shape[1:])

    return jax.tree.map(split, batch)


def _gather(x: NDArray, num_items: int) -> NDArray:
    return x.reshape(-1, *x.shape[2:])[:num_items]
