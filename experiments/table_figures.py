"""What DDHPose shows beside its tables: rules over hypotheses, errors by level, training curves.

Printed by `experiments.tables` from what its runs leave, with `levels.png` and `curves.png`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from experiments.runs import ONE_SEED, difference, spread
from posediff_jax.evaluation.report import print_whole
from posediff_jax.training import read_metrics
from posediff_jax.visualize import Line, plot_lines

# System and variants of a config, as `tables.Model`; hypotheses and iterations.
Key = tuple[str, str]
Sampled = tuple[int, int]
# The folders of a model's seeds.
Runs = Mapping[Key, Sequence[Path]]


class Scored(NamedTuple):
    """What is known of a model at (H, W).

    Attributes:
      file: The name of what `evaluate` wrote in the folder of each seed.
      paper: The paper's MPJPE and P-MPJPE, if any; of several hypotheses by J-Agg at the true root.
    """

    file: str
    paper: tuple[float | None, float | None]


AllScored = Mapping[tuple[Key, Sampled], Scored]

_D3DP, _OURS = ("d3dp", ""), ("ddhpose", "")
_POSES = ("ddhpose", "pose_input")
# The others are compared with the first one.
LEVELS: Mapping[str, Mapping[str, Key]] = {
    "Figure 1, right: systems": {"DDHPose": _OURS, "D3DP": _D3DP, "MixSTE": ("mixste", "")},
    "Figure 4, right: output, poses as input": {
        "poses": _POSES,
        "bones": ("ddhpose", "pose_input,bone_output"),
    },
}
CURVES: Mapping[str, Key] = {"bones as input": _OURS, "poses as input": _POSES}
# Title, split and name of a figure in `metrics.jsonl`, and its factor to millimetres.
CURVE_PANELS = (
    ("Figure 4, left: training loss of positions", "train", "position", 1000.0),
    ("error of held-out frames", "eval", "mpjpe", 1.0),
)
SYSTEMS: Mapping[str, Key] = {"D3DP": _D3DP, "DDHPose": _OURS}
# The papers' names of rules that `evaluate` writes; others are shown by theirs.
RULES: Mapping[str, str] = {
    "mean": "P-Agg (mean)",
    "j_agg": "J-Agg, root fitted to the mean",
    "j_agg_true_root": "J-Agg at the true root",
    "p_best": "P-Best of each frame",
    "p_best_batch": "P-Best of a few windows, as released",
    "j_best": "J-Best",
}
# Figures of a rule where `evaluate` has them; of J-Agg and J-Best the paper's P-MPJPE is the last.
METRICS: Mapping[str, str] = {
    "mpjpe": "MPJPE",
    "p_mpjpe": "P-MPJPE",
    "prealigned_p_mpjpe": "aligned first",
}
_SPREAD = "mm, the mean over seeds ± half their range"


def show(runs: Runs, scored: AllScored, workdir: str | Path) -> None:
    """Prints rules, levels and curves of the runs that are there, and writes the pictures.

    Args:
      runs: Trained and scored, see `experiments.tables`.
      scored: What has been scored.
      workdir: Gets the pictures.
    """
    for sampled in dict.fromkeys(sampled for _, sampled in scored if sampled[0] > 1):
        show_rules(runs, scored, sampled)
    levels = {title: read_levels(runs, scored, models) for title, models in LEVELS.items()}
    for title, found in levels.items():
        if found:
            heads = [f"level {n}" for n in range(1, len(next(iter(found.values()))[0]))]
            _print_compared(title, [*heads, "all joints"], found)
    curves = {
        title: read_curves(runs, CURVES, split, name, factor)
        for title, split, name, factor in CURVE_PANELS
    }
    for title, (steps, found) in curves.items():
        shown = doubling(len(steps))
        if shown:
            heads = [f"update {steps[i]}" for i in shown]
            _print_compared(title, heads, {k: v[:, shown] for k, v in found.items()})
    _draw(Path(workdir), levels, curves)


def show_rules(runs: Runs, scored: AllScored, sampled: Sampled) -> None:
    """Prints what each rule makes of the hypotheses at (H, W), and what it needs beside them."""
    summaries = {name: _summaries(runs, scored, key, sampled) for name, key in SYSTEMS.items()}
    found = {name: read_rules(of) for name, of in summaries.items() if of}
    if not found:
        return
    shared = next(of[0].get("shared", "some") for of in summaries.values() if of)
    grouped = any("p_best_batch" in by for by in found.values())
    few = f"; a few windows: one hypothesis for {shared} windows of a sequence" if grouped else ""
    single = any(len(of) == 1 for of in summaries.values())
    published = ", ".join(
        f"{name} {p[0]:.1f} / {p[1]:.1f}"
        for name in found
        if None not in (p := scored[SYSTEMS[name], sampled].paper)
    )
    table = Table(
        title=f"Rules over hypotheses, H = {sampled[0]}, W = {sampled[1]}",
        caption=f"{_SPREAD}; P-MPJPE: of the pose that a rule made (P-Best: the least); aligned "
        f"first: of joints of aligned hypotheses, as published{few} | the paper's on Human3.6M, "
        f"J-Agg at the true root: {published or '-'}" + (f" | {ONE_SEED}" if single else ""),
    )
    metrics = [
        m for m in METRICS if all(m in rule for by in found.values() for _, rule in by.values())
    ]
    table.add_column("rule", no_wrap=True)
    for name in found:
        for metric in metrics:
            table.add_column(f"{name} {METRICS[metric]}", justify="right", no_wrap=True)
    first, *others = found
    for name in others:
        table.add_column(f"{name} from {first}", justify="right", no_wrap=True)
    for rule, needs in {
        k: n for by_rule in found.values() for k, (n, _) in by_rule.items()
    }.items():
        values = {name: by_rule[rule][1] for name, by_rule in found.items() if rule in by_rule}
        cells = [
            spread(values[name][metric]) if name in values else "-"
            for name in found
            for metric in metrics
        ]
        cells += [
            difference(values[name]["mpjpe"], values[first]["mpjpe"])
            if {name, first} <= set(values)
            else "-"
            for name in others
        ]
        table.add_row(rule_head(rule, needs), *cells)
    print_whole(table)


def rule_head(rule: str, needs: Sequence[str]) -> str:
    """A rule's name, marked where it takes the truth.

    >>> rule_head("mean", ()), rule_head("j_agg", ("camera",))
    ('P-Agg (mean)', 'J-Agg, root fitted to the mean (needs: camera)')
    >>> rule_head("j_best", ("ground truth",)), rule_head("another", ("ground-truth root",))
    ('J-Best (ORACLE: ground truth)', 'another (TRUTH: ground-truth root)')
    """
    name = RULES.get(rule, rule)
    if not needs:
        return name
    truth = any(need.startswith(("ground", "true")) for need in needs)
    mark = "ORACLE" if "ground truth" in needs else "TRUTH" if truth else "needs"
    return f"{name} ({mark}: {', '.join(needs)})"


def read_rules(
    summaries: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[tuple[str, ...], dict[str, list[float]]]]:
    """By rule what it needs, and by metric the figures of all seeds, millimetres.

    A rule is left out where a seed lacks it: it was scored before there was that rule. So is the
    released one where not all windows are scored, for then none are together.
    """
    found = {}
    for rule in summaries[0]["rules"] if summaries else ():
        apart = rule == "p_best_batch" and any(s.get("every", 1) > 1 for s in summaries)
        if not apart and all(rule in summary["rules"] for summary in summaries):
            figures = [summary["rules"][rule] for summary in summaries]
            needs = tuple(summaries[0]["needs"]["rules"][rule])
            found[rule] = (
                needs,
                {
                    metric: [figure[metric]["frames"] for figure in figures]
                    for metric in METRICS
                    if all(metric in figure for figure in figures)
                },
            )
    return found


def read_levels(runs: Runs, scored: AllScored, models: Mapping[str, Key]) -> dict[str, NDArray]:
    """By name the errors at H = W = 1 of each level and of all joints, `(S, L + 1)`, mm."""
    found = {}
    for name, key in models.items():
        summaries = _summaries(runs, scored, key, (1, 1))
        if summaries:
            found[name] = np.array(
                [
                    [
                        *(level["frames"] for level in summary["levels"]["mean"]),
                        summary["rules"]["mean"]["mpjpe"]["frames"],
                    ]
                    for summary in summaries
                ]
            )
    return found


def read_curves(
    runs: Runs, models: Mapping[str, Key], split: str, figure: str, factor: float
) -> tuple[list[int], dict[str, NDArray]]:
    """A figure of `metrics.jsonl` over the updates that all runs logged.

    Returns:
      The updates `(N,)`, and by name the values of all seeds `(S, N)`, times `factor`.
    """
    by_name: dict[str, list[dict[int, float]]] = {}
    for name, key in models.items():
        logs = [folder / "metrics.jsonl" for folder in runs.get(key, ())]
        if logs and all(log.exists() for log in logs):
            by_name[name] = [
                {
                    line["step"]: factor * line[figure]
                    for line in read_metrics(log)
                    if line["split"] == split and line.get(figure) is not None
                }
                for log in logs
            ]
    seeds = [curve for curves in by_name.values() for curve in curves]
    steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
    found = {n: np.array([[c[s] for s in steps] for c in curves]) for n, curves in by_name.items()}
    return steps, found


def doubling(count: int) -> list[int]:
    """Places along a curve that lie twice as far each time, and its end.

    >>> doubling(12), doubling(1), doubling(0)
    ([0, 1, 3, 7, 11], [0], [])
    """
    places, place = [], 1
    while place < count:
        places.append(place - 1)
        place *= 2
    return [*places, count - 1] if count else []


def _summaries(runs: Runs, scored: AllScored, key: Key, sampled: Sampled) -> list[dict[str, Any]]:
    """What `evaluate` wrote for all seeds."""
    if (key, sampled) not in scored:
        return []
    files = [folder / scored[key, sampled].file for folder in runs[key]]
    return [json.loads(file.read_text("utf-8")) for file in files]


def _print_compared(title: str, heads: Sequence[str], rows: Mapping[str, NDArray]) -> None:
    """Prints `(S, columns)` of each row, and differences from the first row."""
    single = any(len(values) == 1 for values in rows.values())
    caption = f"{_SPREAD}, difference from the first row" + (f" | {ONE_SEED}" if single else "")
    table = Table(title=title, caption=caption)
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    first = next(iter(rows.values()))
    for name, values in rows.items():
        cells = [spread(column) for column in values.T]
        if values is not first:
            pairs = zip(cells, values.T, first.T, strict=True)
            cells = [f"{cell}, {difference(a, b)}" for cell, a, b in pairs]
        table.add_row(name, *cells)
    print_whole(table)


def _draw(
    workdir: Path,
    levels: Mapping[str, Mapping[str, NDArray]],
    curves: Mapping[str, tuple[Sequence[int], Mapping[str, NDArray]]],
) -> None:
    by_level = {
        title: [Line(n, np.arange(1, v.shape[1]), v[:, :-1]) for n, v in found.items()]
        for title, found in levels.items()
        if found
    }
    by_update = {
        title: [Line(n, steps, v) for n, v in found.items()]
        for title, (steps, found) in curves.items()
        if steps
    }
    try:
        if by_level:
            plot_lines(workdir / "levels.png", by_level, x_label="level", y_label="MPJPE (mm)")
        if by_update:
            plot_lines(workdir / "curves.png", by_update, x_label="update", y_label="mm")
    except ImportError as error:
        print(f"no pictures: {error}")
