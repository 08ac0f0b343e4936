"""Exponential moving average of the weights, with the ramp of the ema-pytorch package."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from posediff_jax.config import read_options
from posediff_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class EmaOptions:
    """When and how fast the average follows; the defaults are DiffuPose's (ema-pytorch 0.0.10).

    A constant decay d from the first update on: `min_value=d, beta=d, update_every=1,
    update_after_step=-2`. ZeDO's min(d, (1 + n) / (10 + n)), where n counts updates from 1:
    `beta=d, update_every=1, update_after_step=-2, inv_gamma=9.0, power=1.0`.

    Attributes:
      beta: Largest decay.
      update_every: Updates of the optimiser between two of the average.
      update_after_step: Up to this update the average is a copy of the weights.
      inv_gamma: Updates over which the ramp rises; larger is slower.
      power: Exponent of the ramp; larger is faster.
      min_value: Smallest decay once averaging has begun.
    """

    beta: float = 0.995
    update_every: int = 10
    update_after_step: int = 100
    inv_gamma: float = 1.0
    power: float = 2 / 3
    min_value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_value <= self.beta <= 1:
            raise ValueError(
                "ema: expected 0 <= min_value <= beta <= 1, "
                f"got min_value={self.min_value}, beta={self.beta}"
            )
        for name in ("update_every", "inv_gamma", "power"):
            if getattr(self, name) <= 0:
                raise ValueError(f"ema.{name}: expected more than 0, got {getattr(self, name)}")


def make_ema(config: Mapping[str, Any] | None) -> EmaOptions | None:
    """Reads the section `ema` of a config; None or an empty section means no average.

    Raises:
      ValueError: An unknown field, or values that contradict each other.
      TypeError: A value of the wrong type.
    """
    return read_options(EmaOptions, config, where="ema") if config else None


def constant_ema(decay: float) -> EmaOptions:
    """Options of the plain average `ema = decay * ema + (1 - decay) * online` at every update."""
    return EmaOptions(beta=decay, update_every=1, update_after_step=-2, min_value=decay)


def ema_decay(counter: Array | int, options: EmaOptions) -> Array:
    """Decay of update number `counter`: min(beta, 1 - (1 + e / inv_gamma)^-power).

    e is the number of updates since `update_after_step`; 0 before that.

    Args:
      counter: Number of earlier updates of the optimiser, integer of any shape.
      options: The ramp.

    >>> float(ema_decay(100, EmaOptions())), round(float(ema_decay(110, EmaOptions())), 3)
    (0.0, 0.798)
    """
    counter = jnp.asarray(counter)
    elapsed = jnp.maximum(counter - options.update_after_step, 0).astype(jnp.result_type(float))
    ramp = 1 - (1 + elapsed / options.inv_gamma) ** -options.power
    return jnp.where(elapsed > 0, jnp.clip(ramp, options.min_value, options.beta), 0.0)


def update_ema(ema: PyTree, online: PyTree, counter: Array | int, options: EmaOptions) -> PyTree:
    """The average after update number `counter` of the optimiser.

    Nothing happens unless `counter` is a multiple of `update_every`. Until `update_after_step`,
    and once more at the first due update after it, the average is a copy; from then on
    ema += (1 - decay) (online - ema). Leaves that are not floating point follow the online ones.

    Args:
      ema: The average so far, any pytree.
      online: The weights after the update, like `ema`.
      counter: Number of earlier updates, a scalar; may be traced.
      options: The ramp.
    """
    counter = jnp.asarray(counter)
    decay = ema_decay(counter, options)
    copies = counter - options.update_every <= options.update_after_step

    def follow(average: Array, value: Array) -> Array:
        if not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        moved = average + (1 - decay).astype(value.dtype) * (value - average)
        return jnp.where(copies, value, moved)

    return jax.lax.cond(
        counter % options.update_every == 0,
        lambda: jax.tree.map(follow, ema, online),
        lambda: ema,
    )
