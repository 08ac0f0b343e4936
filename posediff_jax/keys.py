"""Random keys by what they are for: global item index and frame, never position in a batch.

A result then does not depend on batch size, chunk size, number of devices, or the other items.
"""

import jax

from posediff_jax.types import Array


def item_keys(key: Array, index: Array) -> Array:
    """One key per item, from its global index; `(B,)` int32 to `(B,)` keys."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def frame_keys(key: Array, index: Array, num_frames: int) -> Array:
    """One key per frame of each item; `(B,)` int32 to `(B, F)` keys."""
    frames = jax.numpy.arange(num_frames)
    fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
    return fold(item_keys(key, index), frames)
