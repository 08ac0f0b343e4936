"""Many hypotheses for many items: keys, fan-out over chains, bounded memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from posediff_jax.types import Array, PyTree


def fan_out(
    keys: Array,
    sample_one: Callable[[Array, PyTree], PyTree],
    items: PyTree,
    *,
    num_hypotheses: int,
    max_chains: int = 0,
) -> PyTree:
    """Draws H hypotheses for each item, at most `max_chains` of them at the same time.

    Hypothesis h of an item uses `split(key, H)[h]`, which does not change when H grows; chunks
    change nothing either, up to rounding.

    Args:
      keys: One key per item, `(B,)`.
      sample_one: `(key, item) -> result`, one chain for one item.
      items: A pytree of `(B, ...)` arrays.
      num_hypotheses: H.
      max_chains: Chains in memory at a time; 0 for all B * H at once.

    Returns:
      The results with leading axes `(B, H)`.

    Raises:
      ValueError: `num_hypotheses` below 1, `max_chains` below 0, or not one key per item.
    """
    if num_hypotheses < 1:
        raise ValueError(f"num_hypotheses: expected at least 1, got {num_hypotheses}")
    if max_chains < 0:
        raise ValueError(f"max_chains: expected 0 (no bound) or more, got {max_chains}")
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

    if 0 < max_chains < num_chains:
        results = jax.lax.map(chain, (chain_keys, owner), batch_size=max_chains)
    else:
        results = jax.vmap(chain)((chain_keys, owner))
    return jax.tree.map(
        lambda leaf: leaf.reshape(num_items, num_hypotheses, *leaf.shape[1:]), results
    )
