"""Trains any system on any data, resumable at any step.

python -m experiments.train --config=configs/diffupose_cmu.py \
    --config.data.root=../shared/data/cmu17 --workdir=runs/diffupose_cmu

The same command goes on where a killed run stopped. Leaves checkpoints, `metrics.jsonl`,
`curves.png` and the config in the working folder.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from experiments.common import start, write_json
from experiments.data import complete_occlusion, load_test, load_training
from experiments.frozen import load_lifter
from posediff_jax.data import ScoredItems, endless_batches, num_batches
from posediff_jax.evaluation.hypotheses import score_items
from posediff_jax.inference import map_sampler
from posediff_jax.parallel import replicate
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems import System, make_system
from posediff_jax.training import (
    CheckpointStore,
    TrainState,
    learning_rate_schedule,
    make_ema,
    make_optimizer,
    make_plateau,
    only_run,
    read_metrics,
    stream_key,
    train,
)
from posediff_jax.training.checkpoints import FOLDER
from posediff_jax.training.loop import EvaluateFn
from posediff_jax.types import Variables
from posediff_jax.visualize import plot_curves

SELECT_ON = ("heldout", "test")
# A run goes on with the same bits when its data moved, or the lifter that its checkpoints hold, or
# when it is watched more closely.
MAY_DIFFER = ("data.root", "frozen.checkpoint", "training.log_every", "training.save_every")


def run(config: ConfigDict, workdir: str | Path, max_seconds: float | None = None) -> TrainState:
    """Trains until `config.training.num_steps`, from the newest checkpoint if there is one.

    Args:
      config: See `configs/diffupose_cmu.py`.
      workdir: The run's folder.
      max_seconds: Stop, saved, after this time.

    Returns:
      The last state.
    """
    workdir = Path(workdir)
    config = complete_occlusion(config)
    # Before the data are read, which may take long.
    system = make_system(config, load_lifter(config))
    check_evaluation(config)
    data = load_training(config)
    options = config.training
    num_steps = options.num_steps
    print(f"{data.train.num_items} training items")
    scored = selection(config, data.heldout)
    per_epoch = num_batches(data.train, options.batch_size)
    schedule = {"steps_per_epoch": per_epoch, "num_steps": num_steps}
    with only_run(workdir), drawn_curves(workdir):
        # Once there is a checkpoint, a config that is another one is refused.
        store = CheckpointStore(workdir / FOLDER)
        store.recover()
        if store.latest_step() is None:
            write_json(workdir / "config.json", config.to_dict())
        state = train(
            system,
            make_optimizer(config.optimizer, **schedule),
            lambda step: endless_batches(
                data.train, batch_size=options.batch_size, seed=config.seed, start_step=step
            ),
            num_steps=num_steps,
            seed=config.seed,
            ema=make_ema(config.ema) if config.get("ema") else None,
            schedule=learning_rate_schedule(config.optimizer, **schedule),
            workdir=workdir,
            config=config.to_dict(),
            same_config=True,
            may_differ=MAY_DIFFER,
            metadata={
                "skeleton": get_skeleton(config.skeleton).name,
                "normalisation": "screen",
                "frames": data.train.length,
                "select_on": select_on(config),
            },
            log_every=options.log_every,
            save_every=options.save_every,
            eval_every=options.eval_every if scored else 0,
            evaluate=make_evaluate(config, system, scored) if scored else None,
            select_on="mpjpe" if scored else None,
            plateau=make_plateau(config.optimizer),
            max_seconds=max_seconds,
        )
    print(f"step {int(state.step)} of {num_steps}: {workdir}")
    return state


@contextlib.contextmanager
def drawn_curves(workdir: Path) -> Iterator[None]:
    """Leaves `curves.png` however the block ends, unless by a kill."""
    try:
        yield
    finally:
        log = workdir / "metrics.jsonl"
        lines = read_metrics(log) if log.exists() else []
        try:
            if lines:
                plot_curves(workdir / "curves.png", lines)
        except (ImportError, OSError) as error:
            # Never instead of what ended the block, such as a full disk.
            (workdir / "curves.partial.png").unlink(missing_ok=True)
            print(f"no curves.png: {error}")


def check_evaluation(config: ConfigDict) -> None:
    """Refuses at once what the first evaluation would refuse after many steps.

    Raises:
      ValueError: A number in the section `evaluation` is less than 1, or the section is missing, or
        its `select_on` is not one of `SELECT_ON`.
    """
    if select_on(config) not in SELECT_ON:
        raise ValueError(
            f"evaluation.select_on: expected one of {SELECT_ON}, got {select_on(config)!r}"
        )
    for name in ("train_hypotheses", "num_hypotheses", "batch_size"):
        value = config.get("evaluation", {}).get(name, 0)
        if value < 1:
            raise ValueError(f"evaluation.{name}: expected at least 1, got {value}")


def select_on(config: ConfigDict) -> str:
    """What chooses the best checkpoint: "heldout" training data, or the "test" set as released."""
    return config.get("evaluation", {}).get("select_on", "heldout")


def selection(config: ConfigDict, heldout: ScoredItems | None) -> ScoredItems | None:
    """The frames that choose the best checkpoint, said in a line; None where nothing is held out.

    Args:
      config: Its `evaluation.select_on` may name the test set, by `default_protocol`.
      heldout: What was held out of the training data.

    Raises:
      ValueError: The test set is to choose, and something is held out for nothing.
    """
    if select_on(config) == "test":
        if heldout is not None:
            raise ValueError(
                "evaluation.select_on: expected no held-out data with 'test' (data.heldout_every, "
                f"data.heldout_subjects), got {heldout.num_frames} frames"
            )
        items = load_test(config)
        print(
            f"{items.num_frames} frames of the TEST SET choose the best checkpoint, as in the "
            "papers' releases: its figures there are too good"
        )
        return items
    if heldout is None:
        print("nothing is held out: no evaluation, and the newest checkpoint is the one to use")
    else:
        print(f"{heldout.num_frames} held-out frames choose the best checkpoint")
    return heldout


def make_evaluate(config: ConfigDict, system: System, items: ScoredItems) -> EvaluateFn:
    """Figures of the scored frames in millimetres: the error of the mean of H hypotheses.

    And the `loss` of their windows, in the loss's own unit, where a plateau schedule watches it.

    Args:
      config: Its section `evaluation` says how many hypotheses.
      system: What is trained.
      items: See `selection`.
    """
    options = config.evaluation
    draw = map_sampler(system, num_hypotheses=options.train_hypotheses)
    key = stream_key(config.seed, "eval")
    plateau = make_plateau(config.optimizer)
    with_loss = plateau is not None and plateau.watch == "loss"
    loss_of = jax.jit(partial(system.loss, train=False))

    def mean_loss(placed: Variables) -> float:
        total = count = 0.0
        for batch, frames in items.batches(options.batch_size):
            # The last batch repeats an item.
            mask: Any = np.asarray(batch.mask) * frames.any(axis=1, keepdims=True)
            value, _ = loss_of(key, placed, dataclasses.replace(batch, mask=mask))
            total, count = total + float(value) * mask.sum(), count + mask.sum()
        return total / count

    def evaluate(variables: Variables) -> dict[str, float]:
        placed = replicate(dict(variables))
        batches = items.batches(options.batch_size)
        sampled = (draw(key, placed, batch).samples for batch, _ in batches)
        scores = score_items(items, sampled, batch_size=options.batch_size)
        mean = scores.values["mean"]
        figures = {name: 1000 * float(mean[name].mean()) for name in ("mpjpe", "p_mpjpe")}
        if scores.num_hypotheses > 1:
            figures["spread"] = 1000 * float(scores.spread.mean())
        if with_loss:
            figures["loss"] = mean_loss(placed)
        return figures

    return evaluate


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(given.config, given.workdir, given.max_seconds)


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    config_flags.DEFINE_config_file("config", None, "The run's config.")
    flags.DEFINE_string("workdir", None, "Where checkpoints, metrics and curves go.")
    flags.DEFINE_float("max_seconds", None, "Stop, saved, after this time.")
    flags.mark_flags_as_required(["config", "workdir"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
