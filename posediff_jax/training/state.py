"""Everything that a training step carries over to the next one."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from posediff_jax.systems.base import System
from posediff_jax.types import Array, PyTree, Variables


@flax.struct.dataclass
class TrainState:
    """A pytree that is saved and restored as a whole.

    Attributes:
      step: Batches seen so far, int32; with accumulation an update takes several.
      params: Trained weights.
      collections: The other variable collections by name, `batch_stats` above all.
      opt_state: State of the optimiser.
      ema: Averaged variables (every collection, so that running statistics fit the weights), or
        None where the recipe has no average.
    """

    step: Array
    params: PyTree
    collections: dict[str, PyTree]
    opt_state: optax.OptState
    ema: dict[str, PyTree] | None = None

    @property
    def variables(self) -> dict[str, PyTree]:
        """The linen variables as they are being trained."""
        return {"params": self.params, **self.collections}


def create_state(
    key: jax.Array, system: System, optimizer: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """Draws the first state of a run.

    Args:
      key: Decides the initial weights.
      system: What is trained.
      optimizer: See `make_optimizer`.
      ema: Whether the recipe averages the weights.
    """
    return state_from_variables(jax.jit(system.init)(key), optimizer, ema=ema)


def state_from_variables(
    variables: Variables, optimizer: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
    """The first state of a run that starts from given weights (fine-tuning).

    Raises:
      ValueError: `variables` holds no `params`.
    """
    if "params" not in variables:
        raise ValueError(f"variables: expected a collection 'params', got {sorted(variables)}")
    # Copies throughout: the step donates its state, and no buffer may be donated twice.
    held: dict[str, Any] = jax.tree.map(jnp.copy, dict(variables))
    params = held.pop("params")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=held,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, dict(variables)) if ema else None,
    )


def eval_variables(state: TrainState) -> dict[str, PyTree]:
    """The variables to evaluate and sample with: averaged where the recipe averages."""
    return state.variables if state.ema is None else state.ema
