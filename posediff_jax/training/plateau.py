"""A learning rate that falls when evaluations stop getting better: PyTorch's plateau rule.

Its memory is part of the optimiser's state, so it is saved and restored with it; the loop feeds it
after each regular evaluation.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from posediff_jax.types import Array, PyTree

# PyTorch leaves a rate alone that would fall by less.
_LEAST_FALL = 1e-8


class PlateauState(NamedTuple):
    """What the rule remembers.

    Attributes:
      scale: Factor on the learning rate, scalar.
      best: The lowest figure that counted as better, scalar, infinite before the first.
      stale: Figures in a row that did not, scalar int32.
    """

    scale: Any
    best: Any
    stale: Any


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The rule. A figure is better if it is below `best (1 - threshold)`.

    After more than `patience` figures in a row that are not, the rate is multiplied by `factor`.
    The released DiffHPE code feeds the lowest figure so far instead of the current one, which
    makes no difference: it has been compared before.

    Attributes:
      learning_rate: The rate before any fall.
      watch: Which figure of the evaluations is fed.
      factor: What the rate is multiplied by.
      patience: Figures without gain that are put up with.
      threshold: Least relative gain.
      min_learning_rate: The rate falls no lower.
    """

    learning_rate: float
    watch: str = "loss"
    factor: float = 0.5
    patience: int = 11
    threshold: float = 0.1
    min_learning_rate: float = 0.0

    def fed(self, state: PlateauState, figure: float) -> PlateauState:
        """The state after one more figure, as NumPy scalars of the same types."""
        scale, best = np.asarray(state.scale), np.asarray(state.best)
        value = np.asarray(figure, best.dtype)
        # A figure that is not a number is not better.
        if value < best * best.dtype.type(1 - self.threshold):
            return PlateauState(scale, value, np.zeros_like(state.stale))
        stale = np.asarray(state.stale) + 1
        if stale <= self.patience:
            return PlateauState(scale, best, np.asarray(stale, np.int32))
        lower = max(scale * self.factor, self.min_learning_rate / self.learning_rate)
        if self.learning_rate * (scale - lower) > _LEAST_FALL:
            scale = np.asarray(lower, scale.dtype)
        return PlateauState(scale, best, np.zeros_like(state.stale))


def scale_by_plateau() -> optax.GradientTransformation:
    """Multiplies updates by the `scale` of a `PlateauState`, which others change."""

    def init(params: PyTree) -> PlateauState:
        del params
        return PlateauState(jnp.ones(()), jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: PlateauState, params: PyTree = None
    ) -> tuple[PyTree, PlateauState]:
        del params
        return jax.tree.map(lambda x: x * state.scale.astype(x.dtype), updates), state

    return optax.GradientTransformation(init, update)


def plateau_scale(opt_state: PyTree) -> Array | float:
    """The factor on the learning rate in the state of any optimiser; 1 without a plateau."""
    found = [s for s in jax.tree.leaves(opt_state, is_leaf=_is_plateau) if _is_plateau(s)]
    return found[0].scale if found else 1.0


def feed(opt_state: PyTree, plateau: Plateau, figure: float) -> PyTree:
    """The state of an optimiser after an evaluation; every leaf stays where it was.

    Args:
      opt_state: State of an optimiser of schedule "plateau".
      plateau: The rule.
      figure: Lower is better.

    Raises:
      ValueError: The optimiser has no plateau.
    """
    if not any(map(_is_plateau, jax.tree.leaves(opt_state, is_leaf=_is_plateau))):
        raise ValueError("plateau: expected an optimiser of schedule 'plateau', got another")

    def renewed(state: Any) -> Any:
        if not _is_plateau(state):
            return state
        return jax.tree.map(_like, plateau.fed(jax.device_get(state), figure), state)

    return jax.tree.map(renewed, opt_state, is_leaf=_is_plateau)


def _is_plateau(state: Any) -> bool:
    return isinstance(state, PlateauState)


def _like(value: np.ndarray, old: Array) -> Array:
    # Copied: the step gives its state away, and NumPy's memory is not its to give.
    return jax.device_put(np.array(value, old.dtype), old.sharding, may_alias=False)
