"""DiffHPE's studies of occlusion and coherence: its Tables 2 and 4, and its figures 3 to 5.

python -m experiments.occlusion --data=cmu17 --root=../shared/data/cmu17
    [--workdir=runs/occlusion] [--size=small] [--seeds=1] [--tables=2,4,matrices]
    [--steps=N] [--steps=mixste=N,diffhpe_2d=N,diffhpe_wrapper=N] [--change=data.noise_px=0.0]
    [--patterns=none,random,leg_and_arm,consecutive_leg,consecutive_frames] [--every=N]

Trains what is not trained yet and scores what is not scored yet, each run in a folder named after
its config's hash: the same command goes on where a killed one stopped. A table is printed, drawn
and written (`table_2-HASH.json`, by the hash of the options) once all of its figures are there.

A network is trained with a pattern of hidden joints and scored with any. A wrapper is built on the
MixSTE trained with the same pattern; in Table 4 also on one trained with none. Figures are those of
the mean of the hypotheses over all scored frames; the paper's are on Human3.6M with CPN keypoints.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from rich.table import Table

from experiments.common import parse_options, start, write_json
from experiments.occlusion_study import (
    DATA,
    HYPOTHESES,
    METRICS,
    PATTERNS,
    Network,
    Study,
    supervised,
    wrapper,
)
from experiments.runs import ONE_SEED, difference, spread
from posediff_jax.evaluation.report import print_whole
from posediff_jax.visualize import plot_matrices

# The paper's Table 2: MPJPE, symmetry gap, segment std; the second line is from MixSTE's paper.
TABLE_2: Mapping[str, tuple[Network, tuple[float | None, float | None, float | None]]] = {
    "MixSTE, plain loss": (supervised(), (54.8, 18.2, 5.2)),
    "MixSTE, weighted loss, flipped": (supervised(weighted=True), (51.8, None, None)),
    "DiffHPE-2D": (Network("diffhpe_2d"), (51.8, 7.0, 2.1)),
    "DiffHPE-Wrapper": (wrapper(), (51.2, 12.4, 3.2)),
}
# Its Table 4, MPJPE: MixSTE, the wrapper on a MixSTE trained without occlusion, and with it.
TABLE_4: Mapping[str, tuple[float, float, float]] = {
    "none": (54.8, 51.2, 51.2),
    "random": (54.5, 60.3, 53.2),
    "leg_and_arm": (54.4, 55.2, 53.0),
    "consecutive_leg": (55.1, 54.1, 52.6),
    "consecutive_frames": (55.8, 52.2, 53.5),
}
_METHODS = ("MixSTE", "DiffHPE-Wrapper")
_GAIN = "MixSTE less DiffHPE-Wrapper"
_SEEDS = "mm; ± half the range over seeds; a difference within that of seeds is none"


def run(
    data: str,
    root: str,
    workdir: str | Path,
    *,
    size: str = "small",
    seeds: int = 1,
    steps: Mapping[str, int] | None = None,
    tables: Sequence[str] = ("2", "4", "matrices"),
    patterns: Sequence[str] = tuple(PATTERNS),
    every: int = 1,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Trains and scores what is missing; prints, draws, writes and returns the tables.

    Args:
      data: A key of `occlusion_study.DATA`.
      root: Folder of the data. A workdir is for one copy of them: runs do not know it by its place.
      workdir: Where runs and tables go.
      size: Variants of all configs, joined by commas, such as "small" or "tiny"; empty for the
        published size.
      seeds: Runs of each network, with seeds 0, 1, ...; a wrapper is built on the lifter of its
        seed.
      steps: By system what replaces `training.num_steps`.
      tables: Some of "2", "4" and "matrices".
      patterns: Those of Table 4 and of the matrices.
      every: Score one window in so many.
      changes: Fields of all configs and their values, such as `{"data.noise_px": 0.0}`.

    Returns:
      By table what its JSON holds beside the options: `rows`, or by metric the matrices of each
      method (training, test, seed) and their `difference`; with the `paper`'s figures.

    Raises:
      ValueError: An unknown name or field, or a number out of range.
    """
    study = Study(
        *(data, root, Path(workdir), size, seeds, dict(steps or {}), tuple(patterns), every),
        changes=dict(changes or {}),
    )
    unknown = [name for name in tables if name not in _TABLES]
    if unknown or not tables:
        raise ValueError(f"tables: expected some of {sorted(_TABLES)}, got {tuple(tables)}")
    study.check(network for name in tables for network in _NETWORKS[name](study.patterns))
    found = {}
    files = {name: _files(study, name) for name in tables}
    for path in (path for paths in files.values() for path in paths):
        # What an earlier command wrote is not to be taken for this one's.
        path.unlink(missing_ok=True)
    for name, (path, *_) in files.items():
        found[name] = _TABLES[name](study)
        about = {"options": study.options, "protocol": DATA[data].protocol}
        write_json(path, {**about, **found[name]})
        print(f"figures: {path}")
    return found


def _files(study: Study, name: str) -> list[Path]:
    """The JSON of a table, and its heat maps."""
    if name != "matrices":
        return [study.path(f"table_{name}.json")]
    return [study.path("matrices.json"), *(study.path(f"{metric}.png") for metric in METRICS)]


def table_2(study: Study) -> dict[str, Any]:
    """Coherence without occlusion, by the form of the network."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "H": HYPOTHESES[network.system],
            **study.figures(network, "none"),
            "paper": dict(zip(METRICS, paper, strict=True)),
        }
        for name, (network, paper) in TABLE_2.items()
    ]
    table = Table(title="Table 2: MixSTE and DiffHPE", caption=_caption(study))
    _add_columns(table, "", "H", *(h for m in METRICS.values() for h in (m, "paper", "from first")))
    for row in rows:
        cells = [row["name"], str(row["H"])]
        for metric in METRICS:
            paper = row["paper"][metric]
            gap = "" if row is rows[0] else difference(row[metric], rows[0][metric])
            cells += [spread(row[metric]), "-" if paper is None else f"{paper:g}", gap]
        table.add_row(*cells)
    print_whole(table)
    return {"rows": rows}


def table_4(study: Study) -> dict[str, Any]:
    """MPJPE where training and test hide joints by the same pattern."""
    columns = ("MixSTE", "Wrapper on vanilla MixSTE", "Wrapper on MixSTE of the pattern")
    rows: list[dict[str, Any]] = []
    for pattern in study.patterns:
        errors = [study.figures(network, pattern)["mpjpe"] for network in _row_of_4(pattern)]
        rows.append(
            {
                "pattern": pattern,
                **dict(zip(columns, errors, strict=True)),
                "paper": dict(zip(columns, TABLE_4[pattern], strict=True)),
            }
        )
    title = "Table 4: MPJPE where test and training hide the same"
    table = Table(title=title, caption=_caption(study))
    heads = (head for column in columns[1:] for head in (column, "paper", "from MixSTE"))
    _add_columns(table, "", columns[0], "paper", *heads)
    for row in rows:
        cells = [PATTERNS[row["pattern"]]]
        for column in columns:
            cells += [spread(row[column]), f"{row['paper'][column]:g}"]
            if column != columns[0]:
                cells.append(difference(row[column], row[columns[0]]))
        table.add_row(*cells)
    print_whole(table)
    return {"columns": columns, "rows": rows}


def matrices(study: Study) -> dict[str, Any]:
    """Figures 3 to 5: every pattern of training (rows) against every one of the test (columns)."""
    makers: tuple[Callable[[str], Network], ...] = (supervised, wrapper)
    found = {
        method: [[study.figures(make(p), q) for q in study.patterns] for p in study.patterns]
        for method, make in zip(_METHODS, makers, strict=True)
    }
    result: dict[str, Any] = {"rows": "training", "columns": "test"}
    for number, metric in enumerate(METRICS, start=3):
        cells = {m: [[c[metric] for c in row] for row in found[m]] for m in _METHODS}
        means = {method: np.mean(values, axis=-1) for method, values in cells.items()}
        gain = means[_METHODS[0]] - means[_METHODS[1]]
        paper = {method: _paper(metric, method, study.patterns) for method in _METHODS}
        result[metric] = {**cells, "difference": gain.tolist(), "paper": paper}
        title = f"Figure {number}: {METRICS[metric]}"
        _print_matrices(title, cells, paper, study)
        _draw(study.path(f"{metric}.png"), title, {_GAIN: gain, **means}, study.patterns)
    return result


def _paper(metric: str, method: str, patterns: Sequence[str]) -> list[list[float | None]]:
    """The cells that the paper prints: its figures show colours only."""
    number = _METHODS.index(method)
    known: dict[str, float | None] = {p: row[2 * number] for p, row in TABLE_4.items()}
    if metric != "mpjpe":
        row = TABLE_2[("MixSTE, plain loss", "DiffHPE-Wrapper")[number]][1]
        known = {"none": row[list(METRICS).index(metric)]}
    return [[known.get(p) if p == q else None for q in patterns] for p in patterns]


def _print_matrices(
    title: str,
    cells: Mapping[str, list[list[list[float]]]],
    paper: Mapping[str, list[list[float | None]]],
    study: Study,
) -> None:
    patterns = study.patterns
    ours, theirs = (cells[method] for method in _METHODS)
    gains = [
        [difference(a, b, 1) for a, b in zip(*rows, strict=True)]
        for rows in zip(ours, theirs, strict=True)
    ]
    means = {m: np.mean(values, axis=-1) for m, values in cells.items()}
    apart = np.array([[text != "none" for text in row] for row in gains])
    ahead = int((apart & (means[_METHODS[0]] > means[_METHODS[1]])).sum())
    texts = {
        method: [
            [spread(c, 1) + ("" if p is None else f" ({p:g})") for c, p in zip(*rows, strict=True)]
            for rows in zip(cells[method], paper[method], strict=True)
        ]
        for method in _METHODS
    }
    captions = dict.fromkeys(_METHODS, "mm; in brackets the paper's")
    one_seed = f"; {ONE_SEED}" if study.seeds == 1 else ""
    captions[_GAIN] = f"the wrapper is ahead in {ahead} of {len(patterns) ** 2}{one_seed}"
    for name, rows in {**texts, _GAIN: gains}.items():
        table = Table(title=f"{title}, {name}", caption=captions[name])
        _add_columns(table, "training, test", *(PATTERNS[p] for p in patterns))
        for pattern, row in zip(patterns, rows, strict=True):
            table.add_row(PATTERNS[pattern], *row)
        print_whole(table)


def _draw(path: Path, title: str, panels: Mapping[str, Any], patterns: Sequence[str]) -> None:
    names = [PATTERNS[p] for p in patterns]
    options: dict[str, Any] = {"row_label": "hidden in training", "column_label": "in the test"}
    try:
        plot_matrices(path, panels, names, names, signed=(_GAIN,), title=f"{title} (mm)", **options)
        print(f"heat map: {path}")
    except ImportError as error:
        # The figures took hours.
        print(f"no heat map: {error}")


def _add_columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first, no_wrap=True)
    for head in others:
        table.add_column(head, justify="right")


def _caption(study: Study) -> str:
    return f"mm; {ONE_SEED}" if study.seeds == 1 else _SEEDS


def _row_of_4(pattern: str) -> tuple[Network, Network, Network]:
    return supervised(pattern), wrapper(pattern, "none"), wrapper(pattern)


_TABLES = {"2": table_2, "4": table_4, "matrices": matrices}
# What each table shows, for patterns.
_NETWORKS: Mapping[str, Callable[[Sequence[str]], list[Network]]] = {
    "2": lambda patterns: [network for network, _ in TABLE_2.values()],
    "4": lambda patterns: [network for p in patterns for network in _row_of_4(p)],
    "matrices": lambda patterns: [n for p in patterns for n in (supervised(p), wrapper(p))],
}


def read_steps(parts: Sequence[str]) -> dict[str, int]:
    """The flag `--steps`: a number for all systems, or `system=number` for some.

    Raises:
      ValueError: Another system, or a number that is not a positive integer.

    >>> read_steps(["mixste=3000", "diffhpe_wrapper=2000"])
    {'mixste': 3000, 'diffhpe_wrapper': 2000}
    """
    if len(parts) == 1 and "=" not in parts[0]:
        parts = [f"{system}={parts[0]}" for system in HYPOTHESES]
    steps = parse_options(parts)
    for system, number in steps.items():
        if system not in HYPOTHESES or type(number) is not int or number < 1:
            raise ValueError(
                f"steps: expected a number of updates, for all or by one of {tuple(HYPOTHESES)}, "
                f"got {system}={number}"
            )
    return steps


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(
        given.data,
        given.root,
        given.workdir,
        size=given.size,
        seeds=given.seeds,
        steps=read_steps(given.steps),
        tables=given.tables,
        patterns=given.patterns,
        every=given.every,
        changes=parse_options(given.change),
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_enum("data", "cmu17", sorted(DATA), "What is trained on and scored.")
    flags.DEFINE_string("root", None, "Folder of the data; one copy of them for one workdir.")
    flags.DEFINE_string("workdir", "runs/occlusion", "Where runs, tables and heat maps go.")
    flags.DEFINE_string("size", "small", "Variants of all configs, such as small,visibility.")
    flags.DEFINE_multi_string("change", [], "A field of all configs, such as data.noise_px=0.0.")
    flags.DEFINE_integer("seeds", 1, "Runs of each network.")
    flags.DEFINE_list("steps", [], "Updates of each run, or of each system's: as the configs say.")
    flags.DEFINE_list("tables", sorted(_TABLES), "Some of 2, 4 and matrices.")
    flags.DEFINE_list("patterns", list(PATTERNS), "Of Table 4 and of the matrices.")
    flags.DEFINE_integer("every", 1, "Score one window in so many.")
    flags.mark_flags_as_required(["root"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
