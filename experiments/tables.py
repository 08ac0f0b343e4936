"""Trains the models behind a paper's tables and prints these, resumable at any point.

python -m experiments.tables --paper=ddhpose --data=cmu17 --root=../shared/data/cmu17
    [--workdir=runs/tables] [--size=small] [--seeds=2] [--steps=N] [--only=mixste,d3dp]

Every run has a folder named after its config's hash; what is trained or scored there already is not
done again, and a killed run goes on where it stopped. Figures are those of the mean of the
hypotheses (P-Agg), over all scored frames; the paper's are on Human3.6M and not comparable, only
their order is. A difference is called none where it is not above the spread over seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from experiments.common import start
from experiments.runs import Model, difference, make_config, scored, spread

# Hypotheses and iterations.
ONE = (1, 1)
SAMPLED = (ONE, (5, 1), (20, 10), (5, 50))


class Row(NamedTuple):
    """One line: its name, the model, (H, W), and the paper's MPJPE and P-MPJPE, if any."""

    name: str
    model: Model
    sampled: tuple[int, int]
    paper: tuple[float | None, float | None] = (None, None)


_OURS = Model("ddhpose")
_BASELINE = Model("ddhpose", "no_levels,no_hrst,no_hrtt")
_PAPER_1 = {
    (1, 1): (39.7, 31.2),
    (5, 1): (39.5, 31.2),
    (20, 10): (39.0, 31.2),
    (5, 50): (39.2, 31.1),
}
# The papers' figures of several hypotheses USE the true root; ours, the mean, use no truth.
_CAPTION = (
    "mm; ours ± half the range over seeds, the mean of H | the paper's on Human3.6M, for H > 1 by "
    "J-Agg at the true root"
)
# The first line of an ablation is what the others are compared with.
TABLES: Mapping[str, tuple[Row, ...]] = {
    "Tables 1, 2 and 7: systems": (
        Row("MixSTE", Model("mixste"), ONE, (40.9, 32.6)),
        *(
            Row("D3DP", Model("d3dp"), s, (39.5, 31.6) if s == (20, 10) else (None, None))
            for s in SAMPLED
        ),
        *(Row("DDHPose", _OURS, s, _PAPER_1[s]) for s in SAMPLED),
    ),
    "Table 4: disentangled input, output": (
        Row("input", _OURS, ONE, (39.65, 31.24)),
        Row("neither", Model("ddhpose", "pose_input"), ONE, (40.23, 31.56)),
        Row("output", Model("ddhpose", "pose_input,bone_output"), ONE, (41.72, 33.06)),
        Row("input and output", Model("ddhpose", "bone_output"), ONE, (40.48, 32.08)),
    ),
    "Table 5: modules": (
        Row("levels, HRST, HRTT", _OURS, ONE, (39.65, 31.24)),
        Row("levels, HRST", Model("ddhpose", "no_hrtt"), ONE, (39.68, 31.55)),
        Row("levels", Model("ddhpose", "no_hrst,no_hrtt"), ONE, (40.08, 31.83)),
        Row("baseline", _BASELINE, ONE, (40.10, 31.94)),
    ),
    "Table 6: loss": (
        Row("position and bones", _OURS, ONE, (39.65, 31.24)),
        Row("position", Model("ddhpose", "position_only"), ONE, (39.87, 31.94)),
    ),
}
PAPERS = {"ddhpose": TABLES}
DATA = {"cmu17": "cmu"}


def run(
    paper: str,
    data: str,
    root: str,
    workdir: str | Path,
    *,
    size: str = "small",
    seeds: int = 2,
    steps: int = 0,
    only: Sequence[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Trains and scores what is missing; prints and returns the tables.

    Args:
      paper: A key of `PAPERS`.
      data: A key of `DATA`.
      root: Folder of the data.
      workdir: Where runs and figures go.
      size: Variant of all configs, such as "small" or "tiny"; empty for the published size.
      seeds: Runs of each model, with seeds 0, 1, ...
      steps: Replaces `training.num_steps`; 0 keeps it.
      only: Systems; empty for all.

    Returns:
      By table its rows: "name", "H", "W", "paper", and "mpjpe", "p_mpjpe", "levels" of each seed.

    Raises:
      ValueError: An unknown name, or fewer than one seed.
    """
    for name, value, known in (("paper", paper, PAPERS), ("data", data, DATA)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {sorted(known)}, got {value!r}")
    if seeds < 1:
        raise ValueError(f"seeds: expected at least 1, got {seeds}")
    found: dict[str, list[dict[str, Any]]] = {}
    for title, rows in PAPERS[paper].items():
        for row in rows:
            if only and row.model.system not in only:
                continue
            options: dict[str, Any] = {"size": size, "steps": steps}
            cells = [
                score(
                    make_config(row.model, DATA[data], root, seed=seed, **options),
                    row.sampled,
                    workdir,
                )
                for seed in range(seeds)
            ]
            H, W = row.sampled
            line: dict[str, Any] = {"name": row.name, "H": H, "W": W, "paper": row.paper}
            line |= {key: [cell[key] for cell in cells] for key in ("mpjpe", "p_mpjpe", "levels")}
            found.setdefault(title, []).append(line)
        if title in found:
            print_table(title, found[title])
    return found


def score(config: ConfigDict, sampled: tuple[int, int], workdir: str | Path) -> dict[str, Any]:
    """Figures of one run at (H, W), from its folder where they are there already."""
    H, W = sampled
    sampler = {"num_steps": W} if "process" in config else {}
    summary = scored(config, workdir, f"H{H}_W{W}.json", num_hypotheses=H, sampler=sampler)
    mean = summary["rules"]["mean"]
    return {
        "mpjpe": mean["mpjpe"]["frames"],
        "p_mpjpe": mean["p_mpjpe"]["frames"],
        "levels": [level["frames"] for level in summary["levels"]["mean"]],
    }


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the mean over seeds, half their range, and the difference from the first row."""
    table = Table(title=title, caption=_CAPTION)
    for head in ("", "H, W", "MPJPE", "paper", "P-MPJPE", "paper", "from the first"):
        table.add_column(head, justify="right", no_wrap=True)
    for level in range(len(rows[0]["levels"][0])):
        table.add_column(f"level {level + 1}", justify="right", no_wrap=True)
    for row in rows:
        figures = []
        for metric, paper in zip(("mpjpe", "p_mpjpe"), row["paper"], strict=True):
            figures += [spread(row[metric]), "-" if paper is None else f"{paper:g}"]
        levels = (f"{value:.1f}" for value in np.mean(row["levels"], axis=0))
        where = f"{row['H']}, {row['W']}"
        table.add_row(row["name"], where, *figures, _gap(row, rows[0]), *levels)
    Console(width=160).print(table)


def _gap(row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    return "" if row is first else difference(row["mpjpe"], first["mpjpe"])


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(
        given.paper,
        given.data,
        given.root,
        given.workdir,
        size=given.size,
        seeds=given.seeds,
        steps=given.steps,
        only=tuple(given.only),
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_enum("paper", "ddhpose", sorted(PAPERS), "Whose tables.")
    flags.DEFINE_enum("data", "cmu17", sorted(DATA), "What is trained on and scored.")
    flags.DEFINE_string("root", None, "Folder of the data.")
    flags.DEFINE_string("workdir", "runs/tables", "Where runs and figures go.")
    flags.DEFINE_string("size", "small", "Variant of all configs.")
    flags.DEFINE_integer("seeds", 2, "Runs of each model.")
    flags.DEFINE_integer("steps", 0, "Updates of each run; 0: as the configs say.")
    flags.DEFINE_list("only", [], "Systems, such as mixste; all by default.")
    flags.mark_flags_as_required(["root"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
