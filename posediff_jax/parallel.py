"""Placing pytrees on devices for `pmap`: copies of weights, slices of batches."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

AXIS = "device"

Tree = TypeVar("Tree")


def local_devices(devices: Sequence[jax.Device] | None = None) -> list[jax.Device]:
    """Those of `devices` (default: all) that belong to this process."""
    process = jax.process_index()
    return [d for d in devices or jax.devices() if d.process_index == process]


def replicate(tree: Tree, devices: Sequence[jax.Device] | None = None) -> Tree:
    """Copies a pytree onto every device of this process, placed as the step leaves its state.

    Args:
      tree: Any pytree of arrays.
      devices: All devices of the run, of every process; default all there are.
    """
    mesh = jax.sharding.Mesh(np.asarray(local_devices(devices)), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    # `device_put` shares the buffer of a device that holds the value already (with
    # `may_alias=False` too), and the step would give the original away.
    return jax.tree.map(jnp.copy, jax.device_put(tree, sharding))


def shard_batch(batch: Tree, num_devices: int) -> Tree:
    """Splits the leading axis over devices: `(B, ...)` to `(num_devices, B / num_devices, ...)`.

    Args:
      batch: A `PoseBatch` or any pytree whose leaves share the leading axis B; in a run of
        several processes the part of this one.
      num_devices: Devices of this process.

    Raises:
      ValueError: B is not a multiple of `num_devices`, or leaves differ in B.
    """
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1:
        raise ValueError(f"batch: expected one leading axis for all leaves, got {sorted(sizes)}")
    size = sizes.pop()
    if size % num_devices:
        raise ValueError(
            f"batch: {size} items do not split over {num_devices} devices; choose a batch size "
            f"that is a multiple of {num_devices} (pad the last batch with mask 0)"
        )
    shape = (num_devices, size // num_devices)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), batch)
