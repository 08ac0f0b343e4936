"""Many hypotheses for many items: keys, fan-out over chains, bounded memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from posediff_jax.keys import check_key
from posediff_jax.types import Array, PyTree


def fan_out(
    keys: Array,
    sample_one: Callable[[Array, PyTree], PyTree],
    items: PyTree,
    *,
    num_hypotheses: int,
    max_chains: int = 0,
    together: bool = False,
) -> PyTree:
    """Draws H hypotheses for each item, at most `max_chains` of them at the same time.

    Hypothesis h of an item uses `split(key, H)[h]`, which does not change when H grows; chunks
    change nothing either, up to rounding.

    Args:
      keys: One key per item, `(B,)`.
      sample_one: `(key, item) -> result`, one chain for one item; with `together`,
        `(keys, items) -> results`, where all leaves have a leading axis of chains.
      items: A pytree of `(B, ...)` arrays.
      num_hypotheses: H.
      max_chains: Chains in memory at a time; 0 for all B * H at once.
      together: What `sample_one` takes. A network that lays out its batch itself is faster so than
        under a vmap.

    Returns:
      The results with leading axes `(B, H)`.

    Raises:
      ValueError: `num_hypotheses` below 1, `max_chains` below 0, or not one key per item.
      TypeError: As `check_key`.
    """
    if num_hypotheses < 1:
        raise ValueError(f"num_hypotheses: expected at least 1, got {num_hypotheses}")
    if max_chains < 0:
        raise ValueError(f"max_chains: expected 0 (no bound) or more, got {max_chains}")
    check_key(keys, name="keys")
    sizes = {jnp.shape(leaf)[0] for leaf in jax.tree.leaves(items)}
    if keys.ndim != 1 or sizes != {keys.shape[0]} or not keys.shape[0]:
        raise ValueError(
            f"keys, items: expected one typed key per item, got keys {keys.shape} and items "
            f"with leading axes {sorted(sizes)}"
        )
    num_items = keys.shape[0]
    num_chains = num_items * num_hypotheses
    chain_keys = jax.vmap(lambda k: jax.random.split(k, num_hypotheses))(keys).reshape(num_chains)
    owner = jnp.repeat(jnp.arange(num_items), num_hypotheses)

    def chain(inputs: tuple[Array, Array]) -> PyTree:
        key, item = inputs
        return sample_one(key, jax.tree.map(lambda leaf: jnp.asarray(leaf)[item], items))

    if together:
        results = _in_chunks(chain, (chain_keys, owner), max_chains or num_chains)
    elif 0 < max_chains < num_chains:
        results = jax.lax.map(chain, (chain_keys, owner), batch_size=max_chains)
    else:
        results = jax.vmap(chain)((chain_keys, owner))
    return jax.tree.map(
        lambda leaf: leaf.reshape(num_items, num_hypotheses, *leaf.shape[1:]), results
    )


def _in_chunks(
    function: Callable[[tuple[Array, Array]], PyTree], inputs: tuple[Array, Array], size: int
) -> PyTree:
    """Applies a function of a batch to chunks of `size` rows, and to the rest, one at a time."""
    count = len(inputs[1])
    whole = count - count % size
    if count <= size:
        return function(inputs)
    parts = []
    if whole:
        chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), inputs)
        mapped = jax.lax.map(function, chunks)
        parts.append(jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), mapped))
    if whole < count:
        parts.append(function(jax.tree.map(lambda x: x[whole:], inputs)))
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
