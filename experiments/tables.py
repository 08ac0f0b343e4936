"""Trains the models behind a paper's tables and prints these, resumable at any point.

python -m experiments.tables --paper=ddhpose --data=cmu17 --root=../shared/data/cmu17
    [--workdir=runs/tables] [--size=small] [--seeds=2] [--steps=N] [--every=N] [--only=mixste,d3dp]

Every run has a folder named after its config's hash; what is trained or scored there already is not
done again, and a killed run goes on where it stopped. Figures are those of the mean of the
hypotheses (P-Agg), over all scored frames, sequences cut into windows as published; the paper's are
on Human3.6M and not comparable, only their order is. A difference is called none where it is not
above the spread over seeds. Beside the tables: all rules over hypotheses, errors by level and
training curves, see `table_figures`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from rich.table import Table

from experiments import table_figures
from experiments.common import start
from experiments.runs import ONE_SEED, Model, difference, folder_of, make_config, scored, spread
from experiments.table_figures import Scored
from posediff_jax.evaluation.report import print_whole

# Hypotheses and iterations.
ONE = (1, 1)
SAMPLED = (ONE, (5, 1), (20, 10), (5, 50))


class Row(NamedTuple):
    """One line: its name, the model, (H, W), and the paper's MPJPE and P-MPJPE, if any.

    Attributes:
      than: The model that it is compared with, at the same (H, W); None for the table's first line.
    """

    name: str
    model: Model
    sampled: tuple[int, int]
    paper: tuple[float | None, float | None] = (None, None)
    than: Model | None = None


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
    "J-Agg at the true root | difference: from the first row, DDHPose's from D3DP's at the same "
    "H, W | from 1, 1: of the same network, on the same windows | *N: one window in N scored"
)
# The last window of a sequence is moved back, as published.
_WINDOWS = "shift"
TABLES: Mapping[str, tuple[Row, ...]] = {
    "Tables 1, 2 and 7: systems": (
        Row("MixSTE", Model("mixste"), ONE, (40.9, 32.6)),
        *(
            Row("D3DP", Model("d3dp"), s, (39.5, 31.6) if s == (20, 10) else (None, None))
            for s in SAMPLED
        ),
        *(Row("DDHPose", _OURS, s, _PAPER_1[s], than=Model("d3dp")) for s in SAMPLED),
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
    every: int = 1,
) -> dict[str, list[dict[str, Any]]]:
    """Trains and scores what is missing; prints and returns the tables.

    Args:
      paper: A key of `PAPERS`.
      data: A key of `DATA`.
      root: Folder of the data. A workdir is for one copy of them: runs do not know it by its place.
      workdir: Where runs and figures go.
      size: Variant of all configs, such as "small" or "tiny"; empty for the published size.
      seeds: Runs of each model, with seeds 0, 1, ...
      steps: Replaces `training.num_steps`; 0 keeps it.
      only: Systems of the tables; empty for all.
      every: Of many hypotheses and iterations (H W above 5) score one window in so many.

    Returns:
      By table its rows: "name", "H", "W", "every", "paper", "than" (the number of the row that it
      is compared with; None where that one is not shown), "mpjpe", "p_mpjpe", "levels" of each
      seed, and "single": the same at H = W = 1 on the same windows.

    Raises:
      ValueError: An unknown name, or fewer than one seed.
    """
    for name, value, known in (("paper", paper, PAPERS), ("data", data, DATA)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {sorted(known)}, got {value!r}")
    for name, number in (("seeds", seeds), ("every", every)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    systems = {row.model.system for rows in PAPERS[paper].values() for row in rows}
    if unknown := sorted(set(only) - systems):
        raise ValueError(f"only: expected some of {sorted(systems)}, got {unknown}")
    shown = {
        title: [row for row in rows if not only or row.model.system in only]
        for title, rows in PAPERS[paper].items()
    }
    every_row = [row for rows in shown.values() for row in rows]
    given: dict[str, Any] = {"size": size, "steps": steps}
    configs = {
        row.model: [
            make_config(row.model, DATA[data], root, seed=seed, **given) for seed in range(seeds)
        ]
        for row in every_row
    }
    found = {}
    for title, rows in shown.items():
        if rows:
            found[title] = [fill(row, rows, configs[row.model], workdir, every) for row in rows]
            print_table(title, found[title])
    table_figures.show(
        {model: [folder_of(c, workdir) for c in each] for model, each in configs.items()},
        {
            (r.model, r.sampled): Scored(file_name(r.sampled, share(r.sampled, every)), r.paper)
            for r in every_row
        },
        workdir,
    )
    return found


def fill(
    row: Row, rows: Sequence[Row], configs: Sequence[ConfigDict], workdir: str | Path, every: int
) -> dict[str, Any]:
    """A row with the figures of all seeds, see `run`; `rows` are those of its table."""
    H, W = row.sampled
    some = share(row.sampled, every)

    def figures(sampled: tuple[int, int]) -> dict[str, list[Any]]:
        cells = [score(config, sampled, workdir, every=some) for config in configs]
        return {key: [cell[key] for cell in cells] for key in ("mpjpe", "p_mpjpe", "levels")}

    line: dict[str, Any] = {"name": row.name, "H": H, "W": W, "every": some, "paper": row.paper}
    line["than"] = 0
    if row.than is not None:
        compared = [(other.model, other.sampled) for other in rows]
        wanted = (row.than, row.sampled)
        line["than"] = compared.index(wanted) if wanted in compared else None
    return line | figures(row.sampled) | {"single": figures(ONE)}


def share(sampled: tuple[int, int], every: int) -> int:
    """One window in how many is scored: all but for many hypotheses and iterations."""
    return every if sampled[0] * sampled[1] > 5 else 1


def file_name(sampled: tuple[int, int], every: int) -> str:
    """Of a run's figures.

    >>> file_name((20, 10), 1), file_name((20, 10), 4)
    ('H20_W10_shift.json', 'H20_W10_shift_every4.json')
    """
    some = f"_every{every}" if every > 1 else ""
    return f"H{sampled[0]}_W{sampled[1]}_{_WINDOWS}{some}.json"


def score(
    config: ConfigDict, sampled: tuple[int, int], workdir: str | Path, *, every: int = 1
) -> dict[str, Any]:
    """Figures of one run at (H, W), from its folder where they are there already."""
    H, W = sampled
    options: dict[str, Any] = {"num_hypotheses": H, "every": every, "windows": _WINDOWS}
    options["sampler"] = {"num_steps": W} if "process" in config else {}
    summary = scored(config, workdir, file_name(sampled, every), **options)
    mean = summary["rules"]["mean"]
    return {
        "mpjpe": mean["mpjpe"]["frames"],
        "p_mpjpe": mean["p_mpjpe"]["frames"],
        "levels": [level["frames"] for level in summary["levels"]["mean"]],
    }


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the mean over seeds, half their range, and differences."""
    one_seed = any(len(row["mpjpe"]) == 1 for row in rows)
    table = Table(title=title, caption=_CAPTION + (f" | {ONE_SEED}" if one_seed else ""))
    several = any((row["H"], row["W"]) != ONE for row in rows)
    columns = ("difference", *(("from 1, 1",) if several else ()), "paper")
    metrics = (head for name in ("MPJPE", "P-MPJPE") for head in (name, *columns))
    for head in ("", "H, W", *metrics):
        table.add_column(head, justify="right", no_wrap=True)
    for level in range(len(rows[0]["levels"][0])):
        table.add_column(f"level {level + 1}", justify="right", no_wrap=True)
    for row in rows:
        figures = []
        for metric, paper in zip(("mpjpe", "p_mpjpe"), row["paper"], strict=True):
            than = None if row["than"] is None else rows[row["than"]]
            figures += [spread(row[metric]), _compared(row, than, metric)]
            if several:
                single = (row["H"], row["W"]) == ONE
                figures.append("" if single else difference(row[metric], row["single"][metric]))
            figures.append("-" if paper is None else f"{paper:g}")
        levels = (f"{value:.1f}" for value in np.mean(row["levels"], axis=0))
        where = f"{row['H']}, {row['W']}" + (f" *{row['every']}" if row["every"] > 1 else "")
        table.add_row(row["name"], where, *figures, *levels)
    print_whole(table)


def _compared(row: Mapping[str, Any], than: Mapping[str, Any] | None, metric: str) -> str:
    if row is than:
        return ""
    # On other windows a difference says nothing.
    if than is None or row["every"] != than["every"]:
        return "-"
    return difference(row[metric], than[metric])


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
        every=given.every,
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_enum("paper", "ddhpose", sorted(PAPERS), "Whose tables.")
    flags.DEFINE_enum("data", "cmu17", sorted(DATA), "What is trained on and scored.")
    flags.DEFINE_string("root", None, "Folder of the data; one copy of them for one workdir.")
    flags.DEFINE_string("workdir", "runs/tables", "Where runs and figures go.")
    flags.DEFINE_string("size", "small", "Variant of all configs.")
    flags.DEFINE_integer("seeds", 2, "Runs of each model.")
    flags.DEFINE_integer("steps", 0, "Updates of each run; 0: as the configs say.")
    flags.DEFINE_integer("every", 1, "Of many hypotheses score one window in so many.")
    flags.DEFINE_list("only", [], "Systems, such as mixste; all by default.")
    flags.mark_flags_as_required(["root"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
