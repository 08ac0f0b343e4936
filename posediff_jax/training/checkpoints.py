"""Checkpoints on disk: written whole or not at all, checked before they are read.

`DIRECTORY/<step>/` holds `about.json` (config, metadata, metrics), one folder per part in Orbax's
format (`variables`, `ema`, `optimizer`) and `manifest.json` with size and checksum of every file:
Orbax notices a truncated array but not a changed one. This is the only file that imports Orbax.
"""

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from posediff_jax.training.checkpoint_files import (
    BrokenCheckpointError,
    CheckpointInfo,
    check_seal,
    describe,
    read_info,
    reserve,
    seal,
)
from posediff_jax.training.state import TrainState
from posediff_jax.types import PyTree

FOLDER = "checkpoints"


class CheckpointStore:
    """The checkpoints of one run: the latest ones and the best.

    In a run of several processes all must make the same calls, on a shared file system.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self.directory = Path(directory).absolute()
        self._keep = keep

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending; broken ones included."""
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isdigit())

    def latest_step(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the lowest score (of equal ones the earliest), or None without scores."""
        scores = {}
        for step in self.steps():
            with contextlib.suppress(BrokenCheckpointError):
                scores[step] = self.info(step).score
        scored = [(score, step) for step, score in scores.items() if score is not None]
        return min(scored)[1] if scored else None

    def info(self, step: int) -> CheckpointInfo:
        """Reads what the checkpoint of a step says about itself.

        Raises:
          FileNotFoundError: There is no such checkpoint.
          BrokenCheckpointError: Its description cannot be read.
        """
        return read_info(self._path(step))

    def latest_info(self) -> CheckpointInfo | None:
        """What the newest checkpoint that can be read says about itself; None without one."""
        for step in reversed(self.steps()):
            with contextlib.suppress(BrokenCheckpointError):
                return self.info(step)
        return None

    def save(
        self,
        state: TrainState,
        *,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        score: float | None = None,
    ) -> None:
        """Writes a checkpoint, then removes those that are neither among the latest nor the best.

        Returns when the files are on disk. Until the last moment they lie in another folder, so a
        kill or a full disk leaves the earlier checkpoints as the newest.

        Args:
          state: What to save, as the checkpoint of `state.step`; leaves equal on all devices.
          config: The full config of the run; numbers, strings, tuples and sections.
          metadata: See `CheckpointInfo.metadata`.
          metrics: Evaluation at this step.
          score: Value to choose the best checkpoint by, lower is better; None to stay out.

        Raises:
          FloatingPointError: A value in `state` is not finite; nothing is written.
          OSError: The files could not be written.
        """
        host = jax.device_get(state)
        step = int(host.step)
        _check_finite(host)
        about = describe(
            step,
            has_ema=host.ema is not None,
            config=config,
            metadata=metadata,
            metrics=metrics,
            score=score,
        )
        parts = {"variables": host.variables, "optimizer": host.opt_state}
        if host.ema is not None:
            parts["ema"] = host.ema
        final = self.directory / str(step)
        partial = self.directory / f"{step}.partial"
        self.recover()
        try:
            if _is_primary():
                self._remove_leftovers()
                partial.mkdir(parents=True)
                # Where Orbax itself meets a full disk, its threads print hundreds of lines.
                reserve(partial, sum(leaf.nbytes for leaf in jax.tree.leaves(host)))
            _barrier("partial")
            for name, tree in parts.items():
                _write_part(partial / name, tree)
            if _is_primary():
                seal(partial, about)
                self._put(partial, final)
        except Exception as error:
            if _is_primary():
                shutil.rmtree(partial, ignore_errors=True)
            raise OSError(
                f"{final}: could not write the checkpoint ({type(error).__name__}: {error}); "
                f"the newest one on disk is {self.latest_step()}. Free some space and run the "
                "same command again"
            ) from error
        if _is_primary():
            kept = {*self.steps()[-self._keep :], self.best_step()}
            self._remove([step for step in self.steps() if step not in kept])
        _barrier("saved")

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Reads the checkpoint of a step.

        Args:
          step: Which one.
          like: A state of the same recipe, or its `jax.eval_shape` with shardings: gives
            structure, shapes, types, and where the leaves go. The number of devices may differ
            from that of the run that wrote the checkpoint.

        Raises:
          FileNotFoundError: There is no such checkpoint.
          BrokenCheckpointError: A file is missing, truncated or changed.
          ValueError: It was written with another model, optimiser or average.
        """
        path = self._path(step)
        info = read_info(path)
        if info.has_ema != (like.ema is not None):
            expected, found = ("an", "none") if like.ema is not None else ("no", "one")
            raise ValueError(f"{path}: expected {expected} average of the weights, found {found}")
        check_seal(path)
        variables = _read_like(path / "variables", like.variables)
        params = variables.pop("params")
        return TrainState(
            step=_place(np.asarray(info.step, like.step.dtype), like.step),
            params=params,
            collections=variables,
            opt_state=_read_like(path / "optimizer", like.opt_state),
            ema=None if like.ema is None else _read_like(path / "ema", like.ema),
        )

    def restore_latest(self, like: TrainState) -> tuple[TrainState, CheckpointInfo] | None:
        """Reads the newest checkpoint that is intact, with a warning for each that is not.

        Args and errors as in `restore`.

        Returns:
          The state and its description, or None if the folder holds no checkpoint.

        Raises:
          BrokenCheckpointError: There are checkpoints but none is intact.
        """
        for step in reversed(self.steps()):
            try:
                return self.restore(step, like), self.info(step)
            except BrokenCheckpointError as error:
                _warn_broken(error)
        if self.steps():
            raise BrokenCheckpointError(
                f"{self.directory}: none of the checkpoints {self.steps()} is intact; start again "
                "in another folder"
            )
        return None

    def recover(self) -> None:
        """Puts in its place a step that was being saved again when the process was killed."""
        if _is_primary() and self.directory.is_dir():
            newest = max(self.steps(), default=-1)
            for doomed in sorted(self.directory.glob("*.removed")):
                # What there was no more need to keep is older than the newest one.
                if not doomed.stem.isdigit() or int(doomed.stem) <= newest:
                    continue
                final = doomed.with_suffix("")
                for whole in (final.with_suffix(".partial"), doomed):
                    if not final.exists():
                        with contextlib.suppress(BrokenCheckpointError):
                            check_seal(whole)
                            self._put(whole, final)
        _barrier("recovered")

    def discard_after(self, step: int) -> None:
        """Puts the checkpoints newer than `step` aside, as `<step>.broken`, and says so."""
        if _is_primary():
            self._remove_leftovers()
            for newer in [other for other in self.steps() if other > step]:
                path = self.directory / str(newer)
                taken = len([*self.directory.glob(f"{newer}.broken*")])
                aside = path.with_name(f"{newer}.broken{taken or ''}")
                path.rename(aside)
                print(f"{path}: put aside as {aside.name}", file=sys.stderr)
        _barrier("discarded")

    def _path(self, step: int) -> Path:
        path = self.directory / str(step)
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such checkpoint; found steps {self.steps()}")
        return path

    def _remove(self, steps: list[int]) -> None:
        for step in steps:
            path = self.directory / str(step)
            if path.exists():
                # Renamed first: a kill while deleting must not leave half a checkpoint behind.
                doomed = path.rename(self.directory / f"{step}.removed")
                shutil.rmtree(doomed, ignore_errors=True)

    def _put(self, partial: Path, final: Path) -> None:
        """Renames; what is there already goes last, so that one of both always stays whole."""
        doomed = final.with_name(f"{final.name}.removed")
        if final.exists():
            shutil.rmtree(doomed, ignore_errors=True)
            final.rename(doomed)
        try:
            partial.rename(final)
        except OSError:
            if doomed.exists():
                doomed.rename(final)
            raise
        shutil.rmtree(doomed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for pattern in ("*.partial*", "*.removed"):
            for path in self.directory.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def load_variables(
    directory: str | os.PathLike[str],
    *,
    which: str = "auto",
    step: int | None = None,
    skeleton: str | None = None,
) -> tuple[dict[str, PyTree], CheckpointInfo]:
    """Reads what inference needs: variables and description, not the optimiser.

    Args:
      directory: A run's working folder, or the folder of its checkpoints.
      which: "ema" (averaged), "raw" (as trained), or "auto": averaged where there are such.
      step: Which checkpoint; by default the best one where evaluations chose one, else the
        newest. A broken one is then passed over with a warning.
      skeleton: Name of the skeleton that the weights are meant for; others are refused.

    Returns:
      Linen variables as NumPy arrays, and the description.

    Raises:
      FileNotFoundError: No checkpoint there.
      BrokenCheckpointError: A file is missing, truncated or changed.
      ValueError: Unknown `which`, "ema" where the recipe has no average, or weights of another
        skeleton.
    """
    if which not in ("auto", "ema", "raw"):
        raise ValueError(f"which: expected 'auto', 'ema' or 'raw', got {which!r}")
    nested = Path(directory) / FOLDER
    store = CheckpointStore(nested if nested.is_dir() else directory)
    if not store.steps():
        raise FileNotFoundError(f"{directory}: expected a folder with checkpoints, found none")
    newest = store.latest_info()
    if skeleton is not None and newest is not None and "skeleton" in newest.metadata:
        check_skeleton(newest.metadata["skeleton"], skeleton)
    if step is not None:
        return _load_step(store, step, which)
    best = store.best_step()
    candidates = [*([] if best is None else [best]), *reversed(store.steps())]
    for candidate in candidates:
        try:
            return _load_step(store, candidate, which)
        except BrokenCheckpointError as error:
            last = error
            _warn_broken(error)
    raise last


def _load_step(
    store: CheckpointStore, step: int, which: str
) -> tuple[dict[str, PyTree], CheckpointInfo]:
    info = store.info(step)
    path = store.directory / str(step)
    if which == "ema" and not info.has_ema:
        raise ValueError(f"{path}: which='ema', but the recipe of this run has no average")
    part = "ema" if info.has_ema and which != "raw" else "variables"
    check_seal(path, part)
    with _checkpointer() as checkpointer:
        return checkpointer.restore(path / part), info


def check_skeleton(stored: str, expected: str) -> None:
    """Refuses weights that were trained on another skeleton.

    Args:
      stored: Name in the checkpoint's metadata.
      expected: Name of the skeleton in use.

    Raises:
      ValueError: The names differ.
    """
    if stored != expected:
        raise ValueError(
            f"checkpoint: trained on skeleton {stored!r}, cannot be used with {expected!r}; joint "
            "order and count differ"
        )


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _write_part(path: Path, tree: PyTree) -> None:
    with _checkpointer() as checkpointer:
        checkpointer.save(path, args=ocp.args.StandardSave(tree))


def _read_like(path: Path, like: PyTree) -> PyTree:
    # NumPy targets make Orbax return NumPy arrays, whatever devices the writer had.
    target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    try:
        with _checkpointer() as checkpointer:
            tree = checkpointer.restore(path, args=ocp.args.StandardRestore(target))
    except ValueError as error:
        raise ValueError(f"{path}: was written with another recipe: {error}") from error
    return jax.tree.map(_place, tree, like)


def _place(value: np.ndarray, like: Any) -> jax.Array:
    if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(
            f"checkpoint: was written with another recipe: expected {like.dtype}{like.shape}, "
            f"found {value.dtype}{value.shape}"
        )
    return jax.device_put(value, like.sharding, may_alias=False)


def _check_finite(host: TrainState) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(host):
        # An optimiser may hold an infinity on purpose, such as the best loss of a run so far.
        in_optimizer = path[0] == jax.tree_util.GetAttrKey("opt_state")
        if np.any(np.isnan(leaf) if in_optimizer else ~np.isfinite(leaf)):
            name = jax.tree_util.keystr(path)
            raise FloatingPointError(f"state{name} is not finite after step {host.step}")


def _warn_broken(error: BrokenCheckpointError) -> None:
    warnings.warn(f"{error}; falling back to the checkpoint before", RuntimeWarning, stacklevel=3)


def _is_primary() -> bool:
    return jax.process_index() == 0


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"posediff_jax.checkpoints:{name}")
