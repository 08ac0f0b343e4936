"""Runs by the hash of their config: each is trained once, and each of its figures made once.

What the commands behind a paper's tables share. Killed at any point they go on where they were:
`trained.json` says that a run has ended, and a file of figures is there whole or not at all.
"""

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import evaluate, train
from experiments.common import write_json
from experiments.data import complete_occlusion, load_test

# Said beside differences between single seeds, which are all shown.
ONE_SEED = "one seed: how far seeds lie apart is not known, a difference may be chance"


class Model(NamedTuple):
    """A config and its variants, such as "ddhpose" and "no_hrst,no_hrtt"."""

    system: str
    variants: str = ""


def make_config(
    model: Model, suffix: str, root: str, *, size: str, seed: int, steps: int
) -> ConfigDict:
    """The config of one run.

    Args:
      model: What is trained.
      suffix: Of the config's file: "cmu" for `configs/SYSTEM_cmu.py`.
      root: Folder of the data.
      size: Variant of the size, such as "small"; empty for the published one.
      seed: Of the run.
      steps: Replaces `training.num_steps`; 0 keeps it.

    Raises:
      ValueError: A variant that the config does not have, or `steps` below 0.
    """
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, got {steps}")
    module = importlib.import_module(f"configs.{model.system}_{suffix}")
    config = module.get_config(",".join(filter(None, (size, model.variants)))).unlock()
    config.data.root, config.seed = root, seed
    if steps:
        config.training.num_steps = steps
    return config.lock()


def folder_of(config: ConfigDict, workdir: str | Path) -> Path:
    """A folder of the run's own: the config's hash, but for what does not change the run.

    That is where data and other runs are, and how often it is logged and saved. So a `workdir` is
    for one copy of the data.
    """
    # With the rates that a pattern has by default, as a checkpoint holds it.
    fields = complete_occlusion(config).to_dict()
    watched = ("log_every", "save_every")
    fields["training"] = {k: v for k, v in fields["training"].items() if k not in watched}
    fields["data"] = {k: v for k, v in fields["data"].items() if k != "root"}
    below = fields.get("frozen", {}).get("checkpoint")
    if below:
        # The folder of a run, whose own name says which one it is.
        fields["frozen"] = {**fields["frozen"], "checkpoint": Path(below).name}
    return Path(workdir) / f"{config.system}-{digest(fields)}"


def digest(fields: Mapping[str, Any]) -> str:
    """Twelve characters that stand for what JSON can hold."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def trained(config: ConfigDict, workdir: str | Path, *, below: ConfigDict | None = None) -> Path:
    """The folder of a run, trained to its end: now, unless it has been.

    Args:
      config: The run.
      workdir: Where the runs are.
      below: The run that `frozen.checkpoint` of this one names; trained before it.
    """
    folder = folder_of(config, workdir)
    done = _done(folder)
    if not done.exists():
        if below is not None:
            trained(below, workdir)
        train.run(config, folder)
        write_json(done, {"steps": config.training.num_steps})
    return folder


def _done(folder: Path) -> Path:
    return folder / "trained.json"


def scored(
    config: ConfigDict,
    workdir: str | Path,
    name: str,
    *,
    below: ConfigDict | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The summary of a run's evaluation, from its folder where it is there already.

    Args:
      config: The run; it is trained first where it has not been.
      workdir: Where the runs are.
      name: Of the JSON file in the run's folder; it says what `options` are.
      below: See `trained`.
      **options: See `experiments.evaluate.run`.

    Raises:
      ValueError: There are frames without a finite answer, which averages leave out; or data that
        cannot be scored, refused before anything is trained.
    """
    if not _done(folder_of(config, workdir)).exists():
        load_test(config, options.get("protocol", "")).every(options.get("every", 1))
    # First: figures of a run that has not ended would be taken for those of its end.
    folder = trained(config, workdir, below=below)
    figures = folder / name
    if not figures.exists():
        evaluate.run(folder, data=config.data.root, out=figures, **options)
    summary: dict[str, Any] = json.loads(figures.read_text("utf-8"))
    failed = max(summary["num_failed"].values())
    if failed:
        raise ValueError(
            f"{figures}: expected a finite answer for all frames, got none for {failed} of "
            f"{summary['num_frames']}; without that file they are scored again"
        )
    return summary


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The mean over seeds, and half their range where there are several."""
    half = f" ± {np.ptp(values) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{half}"


def difference(values: Sequence[float], first: Sequence[float], digits: int = 2) -> str:
    """By how much the mean is above that of the first: none if no more than seeds differ.

    Of single seeds that is not known, and every gap is shown: say so beside it.

    >>> difference([42.0, 42.5], [40.0, 41.0]), difference([41.0, 41.1], [40.0, 41.0])
    ('+1.75', 'none')
    """
    gap = float(np.mean(values) - np.mean(first))
    noise = max(float(np.ptp(v)) for v in (values, first))
    return "none" if abs(gap) <= noise else f"{gap:+.{digits}f}"
