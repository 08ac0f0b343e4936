"""Optimiser and learning-rate schedule from a config, with PyTorch's rules."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from posediff_jax.config import read_options
from posediff_jax.training.plateau import Plateau, scale_by_plateau
from posediff_jax.types import Array, PyTree

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine", "exponential", "plateau")


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """The section `optimizer` of a config; the defaults of betas and eps are PyTorch's.

    Attributes:
      name: "adam" (weight decay is added to the gradient) or "adamw" (decoupled).
      learning_rate: Rate after warm-up.
      betas: Decay rates of the two moments.
      eps: Added to the root of the second moment.
      weight_decay: See `name`; applies to every parameter.
      schedule: "constant", "cosine" (to 0 at the end of the run), "exponential" (times
        `decay_rate` after each epoch), or "plateau" (falls when evaluations stop getting better,
        see `Plateau` for this and the next five; the defaults are those of the DiffHPE release,
        whose text says patience of 50 epochs where its code halves the rate after 60).
      watch: The figure of the evaluations that the plateau is about.
      factor: What the plateau multiplies the rate by.
      patience: Evaluations without gain.
      threshold: Least relative gain.
      min_learning_rate: Where the plateau stops.
      decay_rate: Factor per epoch of the exponential schedule.
      warmup_steps: Updates over which the rate rises linearly; the first has rate 0.
      clip_norm: Largest global norm of the gradient; 0 leaves gradients alone.
      accumulate_steps: Batches whose mean gradient makes one update.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "constant"
    watch: str = "loss"
    factor: float = 0.5
    patience: int = 11
    threshold: float = 0.1
    min_learning_rate: float = 0.0
    decay_rate: float = 1.0
    warmup_steps: int = 0
    clip_norm: float = 0.0
    accumulate_steps: int = 1

    def __post_init__(self) -> None:
        _check_choice("name", self.name, OPTIMIZERS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas: expected two numbers in [0, 1), got {self.betas}")
        positive = ("learning_rate", "eps", "weight_decay", "warmup_steps", "clip_norm")
        for field in (*positive, "patience", "min_learning_rate"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"optimizer.{field}: expected >= 0, got {getattr(self, field)}")
        if not self.decay_rate > 0:
            raise ValueError(f"optimizer.decay_rate: expected more than 0, got {self.decay_rate}")
        if not 0 < self.factor < 1:
            raise ValueError(f"optimizer.factor: expected between 0 and 1, got {self.factor}")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"optimizer.threshold: expected 0 to below 1, got {self.threshold}")
        if self.schedule == "plateau" and not self.learning_rate > 0:
            raise ValueError(
                f"optimizer.learning_rate: 'plateau' needs more than 0, got {self.learning_rate}"
            )
        if self.accumulate_steps < 1:
            raise ValueError(
                f"optimizer.accumulate_steps: expected at least 1, got {self.accumulate_steps}"
            )


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"optimizer.{field}: expected one of {choices}, got {value!r}")


def make_optimizer(
    config: Mapping[str, Any], *, steps_per_epoch: int = 0, num_steps: int = 0
) -> optax.GradientTransformation:
    """Builds the optimiser: clip, weight decay, Adam, schedule, accumulation.

    Args:
      config: Fields of `OptimizerOptions`.
      steps_per_epoch: Batches per epoch; needed by the exponential schedule.
      num_steps: Batches of the whole run; needed by the cosine schedule.

    Raises:
      ValueError: An unknown field or name, a value out of range, or a schedule whose length is
        not given.
      TypeError: A value of the wrong type.
    """
    options = read_options(OptimizerOptions, config, where="optimizer")
    schedule = _schedule(options, steps_per_epoch, num_steps)
    parts = [clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    coupled = options.name == "adam"
    if options.weight_decay and coupled:
        parts.append(optax.add_decayed_weights(options.weight_decay))
    parts.append(optax.scale_by_adam(*options.betas, eps=options.eps))
    if options.weight_decay and not coupled:
        parts.append(optax.add_decayed_weights(options.weight_decay))
    parts.append(optax.scale_by_learning_rate(schedule))
    if options.schedule == "plateau":
        parts.append(scale_by_plateau())
    optimizer = optax.chain(*parts)
    if options.accumulate_steps == 1:
        return optimizer
    # The default accumulator is float32 whatever the gradients are.
    dtype = jnp.result_type(float)
    every = optax.MultiSteps(optimizer, options.accumulate_steps, accumulator_dtype=dtype)
    return every.gradient_transformation()


def make_plateau(config: Mapping[str, Any]) -> Plateau | None:
    """What the loop feeds with evaluations; None for a config of another schedule.

    Args and errors as in `make_optimizer`.
    """
    options = read_options(OptimizerOptions, config, where="optimizer")
    if options.schedule != "plateau":
        return None
    fields = (field.name for field in dataclasses.fields(Plateau))
    return Plateau(**{name: getattr(options, name) for name in fields})


def learning_rate_schedule(
    config: Mapping[str, Any], *, steps_per_epoch: int = 0, num_steps: int = 0
) -> optax.Schedule:
    """The learning rate as a function of the number of earlier updates, before any plateau.

    Args and errors as in `make_optimizer`.
    """
    options = read_options(OptimizerOptions, config, where="optimizer")
    return _schedule(options, steps_per_epoch, num_steps)


def _schedule(options: OptimizerOptions, steps_per_epoch: int, num_steps: int) -> optax.Schedule:
    every = options.accumulate_steps
    if options.schedule == "exponential" and steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch: 'exponential' needs >= 1, got {steps_per_epoch}")
    if options.schedule == "cosine" and num_steps // every <= options.warmup_steps:
        raise ValueError(
            f"num_steps: 'cosine' needs more than {options.warmup_steps} warm-up updates of "
            f"{every} batches, got {num_steps} batches"
        )

    def rate(count: Array | int) -> Array:
        count = jnp.asarray(count)
        value = jnp.asarray(options.learning_rate, jnp.result_type(float))
        if options.schedule == "exponential":
            value = value * options.decay_rate ** (count * every // steps_per_epoch)
        elif options.schedule == "cosine":
            length = num_steps // every - options.warmup_steps
            done = jnp.clip((count - options.warmup_steps) / length, 0.0, 1.0)
            value = value * 0.5 * (1 + jnp.cos(jnp.pi * done))
        if options.warmup_steps:
            value = value * jnp.minimum(count / options.warmup_steps, 1.0)
        return value

    return rate


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales the gradient by min(1, max_norm / (norm + 1e-6)), PyTorch's rule.

    Args:
      max_norm: Bound of the norm over all parameters together.
    """

    def clip(updates: PyTree, params: PyTree = None) -> PyTree:
        del params
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda x: x * scale.astype(x.dtype), updates)

    return optax.stateless(clip)
