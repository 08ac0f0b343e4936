"""Random keys by what they are for: global item index and frame, never position in a batch.

A result then does not depend on batch size, chunk size, number of devices, or the other items.
"""

from typing import Any

import jax
import jax.numpy as jnp

from posediff_jax.types import Array


def check_key(key: Any, *, name: str = "key") -> None:
    """Refuses what is no typed key, before its numbers are taken for something else.

    Args:
      key: A key, or an array of keys.
      name: The argument, for the message.

    Raises:
      TypeError: Such as a seed, or a key of the older `jax.random.PRNGKey`.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return
    found = repr(key) if dtype is None else f"{dtype} of shape {jnp.shape(key)}"
    raise TypeError(
        f"{name}: expected a typed key, such as jax.random.key(0), got {found}; "
        "jax.random.wrap_key_data makes one of a jax.random.PRNGKey"
    )


def item_keys(key: Array, index: Array) -> Array:
    """One key per item, from its global index; `(B,)` int32 to `(B,)` keys.

    Raises:
      TypeError: As `check_key`.
    """
    check_key(key)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def frame_keys(key: Array, index: Array, num_frames: int) -> Array:
    """One key per frame of each item; `(B,)` int32 to `(B, F)` keys.

    Raises:
      TypeError: As `check_key`.
    """
    frames = jnp.arange(num_frames)
    fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
    return fold(item_keys(key, index), frames)
