"""One training step, data-parallel over devices with `pmap`."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import jax
import optax

from posediff_jax.parallel import AXIS
from posediff_jax.systems.base import System
from posediff_jax.training.ema import EmaOptions, update_ema
from posediff_jax.training.plateau import plateau_scale
from posediff_jax.training.state import TrainState
from posediff_jax.types import Array, PyTree

# The purposes that draw random numbers from one seed, each with a number of its own.
STREAMS = {"init": 0, "train": 1, "eval": 2}

Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, PyTree], tuple[TrainState, Metrics]]


def stream_key(seed: int, stream: str) -> Array:
    """The key of one purpose ("init", "train" or "eval") of a run.

    Raises:
      ValueError: Unknown stream.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream: expected one of {sorted(STREAMS)}, got {stream!r}")
    return jax.random.fold_in(jax.random.key(seed), STREAMS[stream])


def make_train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: EmaOptions | None = None,
    schedule: optax.Schedule | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> TrainStep:
    """Builds `step(state, batch) -> (state, metrics)`, mapped over devices.

    The state is neither split nor stacked, and donated: the one passed in is gone afterwards. Put
    it on the devices with `replicate` first and the batch through `shard_batch`, and the function
    is traced once. Keys derive from `seed` and `state.step`, so a resumed run draws the same.

    Args:
      system: What is trained.
      optimizer: See `make_optimizer`.
      seed: Seed of the run.
      ema: The average that `state.ema` follows; None where it has none.
      schedule: If given, its value is reported as the metric `learning_rate`.
      devices: All devices of the run, of every process; default all there are.

    Returns:
      The step. Its metrics are scalars: `loss`, `grad_norm` and those of the system, each the
      mean over devices.
    """
    return jax.pmap(
        partial(_train_step, system, optimizer, seed, ema, schedule),
        axis_name=AXIS,
        in_axes=(None, 0),
        # With None an output that differs between devices silently becomes the first device's:
        # whatever leaves the step has been through `pmean`.
        out_axes=None,
        donate_argnums=0,
        devices=devices,
    )


def _train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    seed: int,
    ema: EmaOptions | None,
    schedule: optax.Schedule | None,
    state: TrainState,
    batch: PyTree,
) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(stream_key(seed, "train"), state.step)

    def loss_fn(params: PyTree) -> tuple[Array, tuple[PyTree, PyTree]]:
        variables = {"params": params, **state.collections}
        loss, aux = system.loss(key, variables, batch, train=True, axis_name=AXIS)
        return loss, (dict(aux.metrics), dict(aux.mutable))

    (loss, (metrics, mutable)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    loss, metrics, mutable, grads = jax.lax.pmean((loss, metrics, mutable, grads), AXIS)

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    new = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        collections={**state.collections, **mutable},
        opt_state=opt_state,
        ema=state.ema,
    )
    earlier = _updates_done(state)
    if ema is not None:
        new = dataclasses.replace(new, ema=_averaged(ema, new, earlier))
    metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    if schedule is not None:
        metrics["learning_rate"] = schedule(earlier) * plateau_scale(state.opt_state)
    return new, metrics


def _averaged(ema: EmaOptions, state: TrainState, earlier: Array) -> PyTree:
    if state.ema is None:
        raise ValueError("ema: the state has no average; create it with ema=True")
    return jax.lax.cond(
        _updates_done(state) > earlier,
        lambda: update_ema(state.ema, state.variables, earlier, ema),
        lambda: state.ema,
    )


def _updates_done(state: TrainState) -> Array:
    """Updates of the weights so far: fewer than batches where gradients are accumulated."""
    if isinstance(state.opt_state, optax.MultiStepsState):
        return state.opt_state.gradient_step
    return state.step
