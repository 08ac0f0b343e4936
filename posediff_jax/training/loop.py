"""The one training loop: any system, resumable at any step."""

import collections
import contextlib
import dataclasses
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from posediff_jax.parallel import local_devices, replicate, shard_batch
from posediff_jax.systems.base import System
from posediff_jax.training.checkpoint_files import CheckpointInfo, plain_config
from posediff_jax.training.checkpoints import FOLDER, CheckpointStore, check_skeleton
from posediff_jax.training.ema import EmaOptions
from posediff_jax.training.metrics_log import MetricsLog
from posediff_jax.training.plateau import Plateau, feed
from posediff_jax.training.progress import TrainingProgress
from posediff_jax.training.state import TrainState, create_state, eval_variables
from posediff_jax.training.step import make_train_step, stream_key
from posediff_jax.types import Array, PoseBatch, Variables

BatchesFn = Callable[[int], Iterator[PoseBatch]]
EvaluateFn = Callable[[Variables], Mapping[str, float]]

# Steps that may be under way on the devices while the host prepares the next ones.
_IN_FLIGHT = 8


def train(
    system: System,
    optimizer: optax.GradientTransformation,
    batches_fn: BatchesFn,
    *,
    num_steps: int,
    seed: int = 0,
    ema: EmaOptions | None = None,
    schedule: optax.Schedule | None = None,
    workdir: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    same_config: bool = False,
    may_differ: Collection[str] = (),
    log_every: int = 100,
    save_every: int = 1000,
    eval_every: int = 0,
    evaluate: EvaluateFn | None = None,
    select_on: str | None = None,
    plateau: Plateau | None = None,
    max_seconds: float | None = None,
    progress: bool = True,
    devices: Sequence[jax.Device] | None = None,
) -> TrainState:
    """Trains until `num_steps`, going on from the newest checkpoint in `workdir` if there is one.

    A run that was killed and resumed ends with the same bits as one that was not, on the same
    devices, because batches and keys depend on the step alone. SIGTERM saves and leaves with exit
    status 143 (`SystemExit`); an evaluation that was due then is made on resuming, except after
    the last step, where it is made at once. Before an evaluation the state is saved: whatever
    ends it, no step is lost, and it is made on resuming, unless only `max_seconds` had it made.

    Args:
      system: What is trained.
      optimizer: See `make_optimizer`.
      batches_fn: `batches_fn(step)` yields without end the batches from that step on; the same
        ones whenever it is called. Their size must be a multiple of the number of devices.
      num_steps: Steps (batches) of the whole run.
      seed: Decides initial weights and all noise.
      ema: Average of the weights; None for none.
      schedule: If given, its value is logged as `learning_rate`.
      workdir: Folder for `checkpoints/` and `metrics.jsonl`; None keeps nothing.
      config: The full config, stored in every checkpoint.
      metadata: Stored likewise: `skeleton`, `normalisation` and what else use of the weights needs.
      same_config: Refuse to go on from a checkpoint of another config; else warn of what changed.
      may_differ: Fields of the config that do not count in this, such as "data.root".
      log_every: Steps per line in the log; a line holds means over them.
      save_every: Steps between checkpoints. The last step is always saved.
      eval_every: Steps between evaluations, a checkpoint before and after each; 0 for one at the
        end.
      evaluate: Called with the variables to use (averaged if the recipe averages), which are valid
        until it returns; returns figures by name.
      select_on: The figure that decides which checkpoint is best, lower is better.
      plateau: The rule of an optimiser of schedule "plateau", fed after the evaluations of
        `eval_every` and no others: what interrupts a run must not count for it.
      max_seconds: Stop, saved, after this time in this call.
      progress: Whether to show progress on standard error.
      devices: All devices of the run; default all there are.

    Returns:
      The last state. `state.step` is below `num_steps` only if time ran out.

    Raises:
      ValueError: An option out of range, batches that end, are all padding or do not split over
        the devices, or a checkpoint of another recipe, skeleton or (with `same_config`) config in
        `workdir`.
      FloatingPointError: Loss or gradient stopped being finite.
      OSError: A checkpoint could not be written.
    """
    _check_options(num_steps, log_every, save_every, eval_every, evaluate, select_on)
    if plateau is not None and not eval_every:
        raise ValueError(
            "eval_every: the schedule 'plateau' needs evaluations, expected at least 1 and "
            f"held-out data, got {eval_every}"
        )
    key = stream_key(seed, "init")
    state = replicate(create_state(key, system, optimizer, ema=ema is not None), devices)
    store = CheckpointStore(Path(workdir) / FOLDER) if workdir is not None else None
    info = None
    if store is not None:
        state, info = _resume(store, state, config, metadata, same_config, may_differ)
    start = int(state.step)
    due = start == num_steps or _due(start, eval_every)
    owed = evaluate is not None and info is not None and not info.metrics and due
    if start >= num_steps and not owed:
        return state

    train_step = make_train_step(
        system, optimizer, seed=seed, ema=ema, schedule=schedule, devices=devices
    )
    num_local = len(local_devices(devices))
    leave = False
    deadline = math.inf if max_seconds is None else time.monotonic() + max_seconds
    with contextlib.ExitStack() as stack:
        log = None
        if workdir is not None and _is_primary():
            # Killed before its figures were in a checkpoint, an evaluation is made again.
            again = "eval" if owed else None
            path = Path(workdir) / "metrics.jsonl"
            log = stack.enter_context(MetricsLog(path, keep_until=start, again=again))
        shown = progress and _is_primary()
        bar = stack.enter_context(TrainingProgress(num_steps, start, enabled=shown))
        terminated = stack.enter_context(_sigterm_noted(store is not None))
        record = _Record(store, log, config, metadata, select_on)
        if evaluate is not None and owed:
            figures = record.evaluation(start, evaluate, state)
            if plateau is not None and _due(start, eval_every):
                state = _fed(state, plateau, figures)
            record.save(state)
        batches = iter(batches_fn(start)) if start < num_steps else iter(())
        for step in range(start + 1, num_steps + 1):
            state, metrics = train_step(state, shard_batch(_next(batches, step), num_local))
            record.add(step, metrics)
            bar.update(step, record.oldest_loss)

            log_now = step % log_every == 0
            leave, late = _agree(log_now, terminated.is_set(), time.monotonic() > deadline)
            last = step == num_steps or leave or late
            if log_now or last:
                record.log_window(step)
            # Whoever sends SIGTERM may not wait for long.
            due = step == num_steps or (not leave and (late or _due(step, eval_every)))
            evaluated = evaluate is not None and due
            if evaluated or last or _due(step, save_every):
                record.save(state)
            if evaluate is not None and evaluated:
                figures = record.evaluation(step, evaluate, state)
                if plateau is not None and _due(step, eval_every):
                    state = _fed(state, plateau, figures)
                record.save(state)
            if last:
                break
    if leave:
        print(f"SIGTERM: saved step {step}; the same command resumes there", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM)
    return state


def _fed(state: TrainState, plateau: Plateau, figures: Mapping[str, float]) -> TrainState:
    if plateau.watch not in figures:
        raise ValueError(f"plateau: expected one of {sorted(figures)}, got {plateau.watch!r}")
    figure = np.asarray(figures[plateau.watch], np.float32)
    if jax.process_count() > 1:
        figure = multihost_utils.broadcast_one_to_all(figure)
    return dataclasses.replace(state, opt_state=feed(state.opt_state, plateau, float(figure)))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check_options(
    num_steps: int,
    log_every: int,
    save_every: int,
    eval_every: int,
    evaluate: EvaluateFn | None,
    select_on: str | None,
) -> None:
    for name, value, least in (
        ("num_steps", num_steps, 1),
        ("log_every", log_every, 1),
        ("save_every", save_every, 1),
        ("eval_every", eval_every, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if evaluate is None and (eval_every or select_on):
        raise ValueError("evaluate: expected a function, since eval_every or select_on is given")


def _resume(
    store: CheckpointStore,
    state: TrainState,
    config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    same_config: bool,
    may_differ: Collection[str],
) -> tuple[TrainState, CheckpointInfo | None]:
    store.recover()
    newest = store.latest_info()
    if newest is not None:
        _check_same_run(store, newest, config, metadata, same_config, may_differ)
    restored = store.restore_latest(state)
    _check_agreement(store, None if restored is None else restored[1].step)
    if restored is None:
        return state, None
    # What is newer cannot be read, and would count among the latest to keep.
    store.discard_after(restored[1].step)
    return restored


def _check_agreement(store: CheckpointStore, step: int | None) -> None:
    """All processes must go on from one step. Returns when each has read its checkpoint."""
    if jax.process_count() == 1:
        return
    steps = multihost_utils.process_allgather(np.asarray(-1 if step is None else step))
    if len(set(steps.tolist())) > 1:
        found = ["none" if s < 0 else str(s) for s in steps.tolist()]
        raise ValueError(
            f"workdir: the processes read checkpoints of steps {', '.join(found)} in "
            f"{store.directory}; expected one folder that all of them share"
        )


def _check_same_run(
    store: CheckpointStore,
    newest: CheckpointInfo,
    config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    same_config: bool,
    may_differ: Collection[str],
) -> None:
    """Before the arrays are read: in another recipe their shapes would differ, which says less."""
    if "skeleton" in newest.metadata and metadata and "skeleton" in metadata:
        check_skeleton(newest.metadata["skeleton"], metadata["skeleton"])
    before, now = plain_config(newest.config or {}), plain_config(config or {})
    changed = "; ".join(
        f"{field} was {old!r}, is {new!r}"
        for field, old, new in _changed_fields(before, now)
        if field not in may_differ
    )
    if changed and same_config:
        raise ValueError(
            f"workdir: {store.directory.parent} holds a run of another config ({changed}); "
            "give another folder, or that config"
        )
    if changed:
        warnings.warn(
            f"{store.directory}: resuming step {newest.step} with another config: {changed}",
            RuntimeWarning,
            stacklevel=4,
        )


def _changed_fields(
    old: dict[str, Any], new: dict[str, Any], where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _changed_fields(before, after, f"{where}{name}.")
        elif before != after:
            yield f"{where}{name}", before, after


def _next(batches: Iterator[PoseBatch], step: int) -> PoseBatch:
    try:
        batch = next(batches)
    except StopIteration:
        raise ValueError(
            f"batches_fn: the batches ended before step {step}; expected an endless iterator"
        ) from None
    # Its statistics would be 0 / 0. One process of several may well hold nothing but padding.
    if jax.process_count() == 1 and not np.any(batch.mask):
        raise ValueError(f"batches_fn: expected an unmasked frame in the batch of step {step}")
    return batch


class _Record:
    """What a run leaves behind. Metrics are read from the devices as rarely as possible."""

    def __init__(
        self,
        store: CheckpointStore | None,
        log: MetricsLog | None,
        config: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        select_on: str | None,
    ) -> None:
        self._store = store
        self._log = log
        self._config = config
        self._metadata = metadata
        self._select_on = select_on
        self._pending: list[tuple[int, Mapping[str, Array]]] = []
        self._in_flight: collections.deque[Array] = collections.deque(maxlen=_IN_FLIGHT)
        self._window: list[Mapping[str, np.ndarray]] = []
        self._since = time.monotonic()
        self._results: Mapping[str, float] = {}

    @property
    def oldest_loss(self) -> Array:
        """A loss that is there already, or about to be."""
        return self._in_flight[0]

    def add(self, step: int, metrics: Mapping[str, Array]) -> None:
        """Takes the metrics of a step that may still be running."""
        self._pending.append((step, metrics))
        self._in_flight.append(metrics["loss"])
        # Without this the host would queue steps, and their batches, without limit.
        jax.block_until_ready(self._in_flight[0])

    def log_window(self, step: int) -> None:
        """Writes the means since the last such line."""
        self._read()
        now = time.monotonic()
        means = {name: np.mean([m[name] for m in self._window]) for name in self._window[0]}
        rate = len(self._window) / max(now - self._since, 1e-9)
        self._window, self._since = [], now
        if self._log is not None:
            self._log.write(step, "train", {**means, "steps_per_second": rate})

    def evaluation(self, step: int, evaluate: EvaluateFn, state: TrainState) -> Mapping[str, float]:
        """Evaluates, writes the result, and keeps it for the checkpoint of this step."""
        self._read()
        self._results = evaluate(eval_variables(state))
        if self._select_on is not None and self._select_on not in self._results:
            raise ValueError(
                f"select_on: expected one of {sorted(self._results)}, got {self._select_on!r}"
            )
        if self._log is not None:
            self._log.write(step, "eval", self._results)
        return self._results

    def save(self, state: TrainState) -> None:
        """Writes a checkpoint, unless something in the state is not finite."""
        self._read()
        results, self._results = self._results, {}
        if self._store is None:
            return
        score = results.get(self._select_on) if self._select_on is not None else None
        try:
            self._store.save(
                state,
                config=self._config,
                metadata=self._metadata,
                metrics=results,
                score=score,
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; {_advice(self._store)}") from None

    def _read(self) -> None:
        steps = [step for step, _ in self._pending]
        values = jax.device_get([metrics for _, metrics in self._pending])
        self._pending.clear()
        for step, metrics in zip(steps, values, strict=True):
            for name in ("loss", "grad_norm"):
                if not np.isfinite(metrics[name]):
                    raise FloatingPointError(
                        f"{name} is {metrics[name]} at step {step}; {_advice(self._store)}"
                    )
        self._window += values


def _advice(store: CheckpointStore | None) -> str:
    newest = store.latest_step() if store is not None else None
    kept = (
        "there is no checkpoint to go back to"
        if store is None or newest is None
        else f"the last good checkpoint is {store.directory / str(newest)}"
    )
    return f"{kept}. Try a lower learning_rate, a clip_norm, or look for bad poses in the data"


@contextlib.contextmanager
def _sigterm_noted(enabled: bool) -> Iterator[threading.Event]:
    """Turns SIGTERM into a flag while the block runs; only the main thread may do so."""
    noted = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: noted.set())
    try:
        yield noted
    finally:
        # None stands for a handler that was not installed from Python.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


def _agree(at_meeting: bool, *wishes: bool) -> list[bool]:
    """Whether any process wishes so; several processes ask each other only at a meeting."""
    if jax.process_count() == 1:
        return list(wishes)
    if not at_meeting:
        return [False] * len(wishes)
    return list(multihost_utils.process_allgather(np.asarray(wishes)).any(axis=0))


def _is_primary() -> bool:
    return jax.process_index() == 0
