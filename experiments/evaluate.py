"""Scores a checkpoint by a protocol and prints the papers' tables.

python -m experiments.evaluate --checkpoint=runs/diffupose_cmu [--protocol=cmu17-val-v1]
    [--num_hypotheses=10] [--data=DIR] [--step=N] [--weights=auto]
    [--windows=blend] [--occlusion=random] [--every=4]

Writes the figures beside the checkpoints, in a file named after protocol, number of hypotheses and
whatever else was changed, or to --out: all at the end, so an evaluation that was interrupted is
made again from the start.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict
from rich.progress import track

from experiments.common import parse_options, start, write_json
from experiments.data import default_protocol, load_test
from experiments.train import select_on
from posediff_jax.data import read_anchors, read_occlusion
from posediff_jax.data.scored import CUTS
from posediff_jax.evaluation.hypotheses import score_items
from posediff_jax.evaluation.protocols import NEEDS
from posediff_jax.evaluation.tables import print_summary, summarise
from posediff_jax.inference import make_sampler, sample_blended
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems import make_system
from posediff_jax.training import load_variables, stream_key

WINDOWS = (*CUTS, "blend")


def run(
    checkpoint: str | Path,
    *,
    protocol: str = "",
    num_hypotheses: int = 0,
    data: str = "",
    occlusion: str = "",
    step: int | None = None,
    weights: str = "auto",
    sampler: dict[str, Any] | None = None,
    windows: str = "side",
    overlap: int | None = None,
    every: int = 1,
    anchors: str | Path = "",
    batch_size: int = 0,
    out: str | Path = "",
) -> dict[str, Any]:
    """Samples hypotheses for every scored frame, prints the tables, writes the JSON.

    Args:
      checkpoint: A run's folder.
      protocol: See `experiments.data.PROTOCOLS`; empty for `default_protocol`.
      num_hypotheses: H; 0 for `evaluation.num_hypotheses` of the config.
      data: Overrides `data.root` of the config.
      occlusion: Pattern by which joints are hidden, see `hide`; empty for what the config says.
      step: Which checkpoint.
      weights: "auto", "ema" or "raw", see `load_variables`.
      sampler: Fields of the section `sampler` to change.
      windows: How systems that see several frames see a sequence: a cut of `scored_items` ("shift",
        "shift_twice": as published; "causal": no later frames), or "blend": windows that overlap.
      overlap: Frames that windows of "blend" share at least, see `plan_clip`; None for half.
      every: Score one window in so many (or frame, of systems that see one at a time).
      anchors: File of the anchors that "zedo" starts from.
      batch_size: Windows that are sampled at once; 0 for `evaluation.batch_size` of the config.
      out: The JSON file; by default beside the checkpoints.

    Returns:
      What the JSON holds, see `summarise`.
    """
    variables, info = load_variables(checkpoint, which=weights, step=step)
    config = ConfigDict(info.config)
    if "evaluation" not in config:
        raise ValueError(
            f"checkpoint: {checkpoint} was not written by experiments.train: its config has no "
            "section 'evaluation'"
        )
    if data:
        config.data.root = data
    config.data = hide(config.data, occlusion)
    config.sampler.update(sampler or {})
    if config.sampler.get("name") == "ddpm" and "num_steps" in (sampler or {}):
        raise ValueError(
            "sampler: 'ddpm' takes all steps, expected name=ddim beside num_steps="
            f"{config.sampler.num_steps}"
        )
    num_hypotheses = num_hypotheses or config.evaluation.num_hypotheses
    protocol = protocol or default_protocol(config)
    if windows not in WINDOWS:
        raise ValueError(f"windows: expected one of {WINDOWS}, got {windows!r}")
    hidden = config.data.get("occlusion", {}).get("pattern", "none")
    if windows != "side" and hidden != "none":
        raise ValueError(
            "windows: expected 'side' where joints are hidden, for they are drawn window by window "
            f"and a neighbour would show them, got {windows!r} with {hidden!r}"
        )
    if overlap is not None and windows != "blend":
        raise ValueError(f"overlap: expected windows='blend' with it, got {windows!r}")
    changed = {
        "windows": None if windows == "side" else windows,
        "overlap": overlap,
        "every": None if every == 1 else every,
        "occlusion": occlusion or None,
        "step": step,
        "weights": None if weights == "auto" else weights,
        "batch_size": batch_size or None,
        **(sampler or {}),
    }
    path = Path(out) if out else Path(checkpoint) / file_name(protocol, num_hypotheses, changed)
    if path.is_dir():
        raise ValueError(f"out: expected a file, got the folder {path}")
    skeleton = get_skeleton(config.skeleton)
    frozen = read_anchors(anchors, skeleton).frozen() if anchors else None
    system = make_system(config, frozen)
    cut = "side" if windows == "blend" else windows
    items = load_test(config, protocol, cut=cut).every(every)
    size = batch_size or config.evaluation.batch_size
    draw = make_sampler(system, variables, num_hypotheses=num_hypotheses)
    key = stream_key(config.seed, "eval")
    if windows == "blend":
        shared = items.table.length // 2 if overlap is None else overlap
        sampled = sample_blended(key, draw, items, batch_size=size, overlap=shared)
    else:
        sampled = (draw(key, batch).samples for batch, _ in items.batches(size))
    total = sum(1 for _ in items.rows(size))
    sampled = iter(track(sampled, f"sampling H = {num_hypotheses}", total=total))
    official = protocol == "diffupose_official"
    scores = score_items(items, sampled, batch_size=size, official=official)
    summary = {
        "checkpoint": str(checkpoint),
        "step": info.step,
        # A step that was named is the caller's choice.
        "selected_on": select_on(config) if step is None else "step",
        "weights": weights,
        "seed": config.seed,
        "data": config.data.to_dict(),
        "system": config.system,
        "protocol": protocol,
        "protocol_needs": list(NEEDS.get(protocol, ())),
        "windows": windows,
        "every": every,
        "sampler": config.sampler.to_dict(),
        **summarise(
            scores,
            actions=items.actions,
            subjects=items.subjects,
            by_subject=config.data.kind == "humaneva",
        ),
    }
    # Their papers print PCK and AUC of each sequence too.
    on_3dhp = config.data.kind == "mpi_inf_3dhp"
    by_group = ("mpjpe", "pck", "auc") if on_3dhp else ("mpjpe", "p_mpjpe")
    print_summary(summary, title=make_title(summary), by_group=by_group)
    write_json(path, summary)
    print(f"figures: {path}")
    return summary


def hide(data: ConfigDict, occlusion: str) -> ConfigDict:
    """The section `data` with another pattern of occlusion.

    Args:
      data: The section of a checkpoint's config, its convention of a missing joint included.
      occlusion: A pattern of `data.Occlusion`, at its published rate and in that form also where
        training had it otherwise, unless fields follow, as in "leg_and_arm,draw=bernoulli"; empty
        changes nothing.

    Raises:
      ValueError: An unknown pattern or field, a value out of range, or a checkpoint of another
        convention.
      TypeError: A value of the wrong type.
    """
    pattern, *fields = occlusion.split(",")
    stored = data.get("occlusion")
    # The checkpoint's own section may name a convention that this package does not have.
    kept = {} if stored is None else {"missing": read_occlusion(stored).missing}
    # Without that section nothing was hidden: joints missing in the data stay where they are.
    if not occlusion or (stored is None and pattern == "none"):
        return data
    changed = ConfigDict(data.to_dict())
    wanted = {**kept, **parse_options(fields), "pattern": pattern}
    changed.occlusion = ConfigDict(dataclasses.asdict(read_occlusion(wanted)))
    return changed


def file_name(protocol: str, num_hypotheses: int, changed: Mapping[str, Any]) -> str:
    """Names a file after what was evaluated, so that one ablation does not replace another.

    >>> file_name("cmu17-val-v1:bvh", 10, {"step": None, "name": "ddpm"})
    'evaluation_cmu17-val-v1_bvh_H10_name-ddpm.json'
    """
    parts = [f"{name}-{value}" for name, value in changed.items() if value is not None]
    return (
        "_".join(["evaluation", protocol.replace(":", "_"), f"H{num_hypotheses}", *parts]) + ".json"
    )


def make_title(summary: dict[str, Any]) -> str:
    """What the tables are of: system, protocol, and what makes their figures too good."""
    needs = summary["protocol_needs"]
    used = f" USES {', '.join(needs)}" if needs else ""
    # MPI-INF-3DHP has two truths, and those of a protocol need not be what was trained on.
    scored = summary["protocol"].rpartition(":")[2]
    trained = summary["data"].get("annotation", scored)
    other = "" if trained == scored else f", TRAINED ON {trained}"
    hidden = summary["data"].get("occlusion", {}).get("pattern", "none")
    how = "" if hidden == "none" else f", joints hidden: {hidden}"
    chosen = ", CHECKPOINT CHOSEN ON THE TEST SET" if summary["selected_on"] == "test" else ""
    return f"{summary['system']} on {summary['protocol']}{other}{how}{used}{chosen}"


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(
        given.checkpoint,
        protocol=given.protocol,
        num_hypotheses=given.num_hypotheses,
        data=given.data,
        occlusion=given.occlusion,
        step=given.step,
        weights=given.weights,
        sampler=parse_options(given.sampler),
        windows=given.windows,
        overlap=given.overlap,
        every=given.every,
        anchors=given.anchors,
        batch_size=given.batch_size,
        out=given.out,
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_string("checkpoint", None, "The run's folder.")
    flags.DEFINE_string("protocol", "", "What is scored; see experiments/data.py.")
    flags.DEFINE_integer("num_hypotheses", 0, "0: as the config says.")
    flags.DEFINE_string("data", "", "Folder of the data, if not where it was in training.")
    flags.DEFINE_string(
        "occlusion",
        "",
        "Pattern of hidden joints, and fields such as random,rate=0.3; if not as the config says.",
    )
    flags.DEFINE_integer("step", None, "Which checkpoint; by default the best, else newest.")
    flags.DEFINE_enum("weights", "auto", ["auto", "ema", "raw"], "Averaged or as trained.")
    flags.DEFINE_enum("windows", "side", WINDOWS, "How sequences are cut into windows, see `run`.")
    flags.DEFINE_integer("overlap", None, "Frames that windows of 'blend' share; half by default.")
    flags.DEFINE_integer("every", 1, "Score one window in so many.")
    flags.DEFINE_string("anchors", "", "ZeDO: a file by experiments.anchors.")
    flags.DEFINE_integer(
        "batch_size", 0, "Windows sampled at once, best a multiple of 4; 0: as the config says."
    )
    flags.DEFINE_string("out", "", "Where the JSON goes.")
    flags.DEFINE_multi_string(
        "sampler", [], "A sampler option to change, such as name=ddpm, or num_steps=10 (of DDIM)."
    )
    flags.mark_flags_as_required(["checkpoint"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
