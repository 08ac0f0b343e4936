"""Random search over learning rate and dropout (DiffHPE, section 4.2), resumable.

python -m experiments.sweep --config=configs/mixste_cmu.py:small \
    --config.data.root=../shared/data/cmu17 --dropout_field=model.drop_path --num_trials=20 \
    --workdir=runs/sweep [--learning_rate=1e-5,1e-2] [--dropout=0,0.5]

The field of dropout is by default DiffHPE's, `model.dropout`.

Each trial is a run of `experiments.train` in a folder of its own, chosen by held-out data (the
authors searched on the test subjects). `sweep.jsonl` has one line for each finished trial; the same
command goes on where a killed search stopped, and with a larger --num_trials after it ended.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags
from rich.table import Table

from experiments import train
from experiments.common import start, write_json
from posediff_jax.evaluation.report import print_whole
from posediff_jax.training import make_plateau, only_run, read_metrics

RATE_FIELD = "optimizer.learning_rate"
# Wide enough for the published values: 2.7e-4 and 8.1e-4, 0.032 and 0.27.
RATES, DROPOUTS = (1e-5, 1e-2), (0.0, 0.5)
# Those of an evaluation in training; the last two not of every run.
METRICS = ("mpjpe", "p_mpjpe", "spread", "loss")


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    num_trials: int,
    learning_rate: Sequence[float] = RATES,
    dropout: Sequence[float] = DROPOUTS,
    dropout_field: str = "model.dropout",
    metric: str = "mpjpe",
    max_seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Trains until there are so many trials; what is finished is not repeated.

    Args:
      config: Of each trial, but for the two fields; its `seed` decides the draws too.
      workdir: The folder of the search.
      num_trials: In all; a longer search begins with the trials of a shorter one.
      learning_rate: Least and largest, drawn evenly on a logarithmic scale.
      dropout: Least and largest, drawn evenly.
      dropout_field: The field of the config that it is, such as "model.drop_path".
      metric: The held-out figure that decides, lower is better.
      max_seconds: Stop, saved, after this time.

    Returns:
      The lines of `sweep.jsonl`: `trial`, the two fields, the best value of the metric (None for a
      run that diverged or was never finite), and the step that had it.

    Raises:
      ValueError: An option out of range, a field that the config does not have, nothing held out,
        or another search in `workdir`.
    """
    space = {
        "learning_rate": _range("learning_rate", learning_rate, above=0.0),
        "dropout": _range("dropout", dropout, below=1.0),
    }
    if num_trials < 1:
        raise ValueError(f"num_trials: expected at least 1, got {num_trials}")
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {METRICS}, got {metric!r}")
    if not (config.data.get("heldout_every") or config.data.get("heldout_subjects")):
        raise ValueError(
            "config.data: expected heldout_every or heldout_subjects, a search needs held-out data"
        )
    _check_metric(metric, config)
    # Before anything is written.
    changed(config, draw(config.seed, 0, space, dropout_field))
    workdir = Path(workdir)
    path = workdir / "sweep.jsonl"
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    with only_run(workdir):
        searched = {**space, "dropout_field": dropout_field, "metric": metric}
        _check_same(workdir / "sweep.json", {**searched, "config": config.to_dict()})
        lines = read_metrics(path) if path.exists() else []
        done = {line["trial"] for line in lines}
        for trial in range(num_trials):
            if trial in done:
                continue
            fields = draw(config.seed, trial, space, dropout_field)
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            result = _run_trial(changed(config, fields), workdir / f"trial_{trial:03d}", left)
            if result is None:
                break
            lines.append({"trial": trial, **fields, **_best(result, metric)})
            _write_lines(path, lines)
    print_trials(lines, metric)
    return lines


def _check_metric(metric: str, config: ConfigDict) -> None:
    """Refuses at once what no evaluation of a trial would have."""
    plateau = make_plateau(config.optimizer)
    if metric == "loss" and (plateau is None or plateau.watch != "loss"):
        raise ValueError(
            "metric: 'loss' of held-out data is there where the schedule watches it, "
            f"got optimizer.schedule {config.optimizer.schedule!r}"
        )
    if metric == "spread" and config.evaluation.train_hypotheses < 2:
        raise ValueError(
            "metric: 'spread' needs evaluation.train_hypotheses of at least 2, "
            f"got {config.evaluation.train_hypotheses}"
        )


def draw(
    seed: int, trial: int, space: Mapping[str, Sequence[float]], dropout_field: str
) -> dict[str, float]:
    """The fields of one trial, from its number alone."""
    rng = np.random.default_rng((seed, trial))
    low, high = np.log(space["learning_rate"])
    least, most = space["dropout"]
    return {
        RATE_FIELD: float(np.exp(rng.uniform(low, high))),
        dropout_field: float(rng.uniform(least, most)),
    }


def changed(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """The config with some fields, named by their paths, replaced.

    Raises:
      ValueError: The config has no such field.
    """
    result = ConfigDict(config.to_dict())
    for path, value in fields.items():
        *sections, name = path.split(".")
        section = result
        for part in sections:
            section = section.get(part, {})
        if name not in section:
            raise ValueError(f"dropout_field: the config has no field {path!r}")
        section[name] = value
    return result.lock()


def print_trials(lines: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Prints the trials, the best first."""
    table = Table(title=f"random search by held-out {metric}")
    for line in sorted(lines, key=lambda x: (x[metric] is None, x[metric], x["trial"])):
        if not table.columns:
            for name in line:
                table.add_column(name, justify="right")
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in line.values()))
    print_whole(table)


def _range(name: str, value: Sequence[float], *, above: float = -1.0, below: float = 1e9) -> Any:
    if len(value) != 2 or not above < value[0] <= value[1] < below or value[0] < 0:
        raise ValueError(f"{name}: expected a least and a largest value, got {tuple(value)}")
    return [float(v) for v in value]


def _check_same(path: Path, search: dict[str, Any]) -> None:
    # As JSON has it: tuples are lists.
    search = json.loads(json.dumps(search))
    if not path.exists():
        write_json(path, search)
        return
    found = json.loads(path.read_text("utf-8"))
    other = sorted(k for k in {*search, *found} if search.get(k) != found.get(k))
    if other:
        raise ValueError(
            f"workdir: {path.parent} holds another search, of another {', '.join(other)}; give "
            "another folder"
        )


def _run_trial(
    config: ConfigDict, folder: Path, max_seconds: float | None
) -> list[dict[str, Any]] | None:
    """The evaluations of a trial; none if it diverged, None if time ran out."""
    try:
        state = train.run(config, folder, max_seconds)
    except FloatingPointError as error:
        print(f"{folder.name} diverged: {error}")
        return []
    if int(state.step) < config.training.num_steps:
        return None
    return [x for x in read_metrics(folder / "metrics.jsonl") if x["split"] == "eval"]


def _best(evaluations: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    if evaluations and metric not in evaluations[0]:
        raise ValueError(f"metric: expected one of {sorted(evaluations[0])}, got {metric!r}")
    known = [x for x in evaluations if x[metric] is not None and np.isfinite(x[metric])]
    if not known:
        return {metric: None, "step": None}
    best = min(known, key=lambda x: x[metric])
    return {metric: best[metric], "step": best["step"]}


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Whole or not at all: a kill must not leave half a line to append to."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    partial.replace(path)


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(
        given.config,
        given.workdir,
        num_trials=given.num_trials,
        learning_rate=[float(x) for x in given.learning_rate],
        dropout=[float(x) for x in given.dropout],
        dropout_field=given.dropout_field,
        metric=given.metric,
        max_seconds=given.max_seconds,
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    config_flags.DEFINE_config_file("config", None, "The config of each trial.")
    flags.DEFINE_string("workdir", None, "Where trials and sweep.jsonl go.")
    flags.DEFINE_integer("num_trials", 20, "Trials in all.")
    flags.DEFINE_list("learning_rate", [str(x) for x in RATES], "Least and largest.")
    flags.DEFINE_list("dropout", [str(x) for x in DROPOUTS], "Least and largest.")
    flags.DEFINE_string("dropout_field", "model.dropout", "The field of the config that it is.")
    flags.DEFINE_enum("metric", "mpjpe", METRICS, "The held-out figure that decides.")
    flags.DEFINE_float("max_seconds", None, "Stop, saved, after this time.")
    flags.mark_flags_as_required(["config", "workdir"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
