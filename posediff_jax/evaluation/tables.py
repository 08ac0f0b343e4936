"""The tables of the papers from scored frames, each figure marked with what it needed."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from posediff_jax.evaluation import coherence, metrics, protocols
from posediff_jax.evaluation.hypotheses import RULES, FrameScores
from posediff_jax.evaluation.report import print_whole

# Printed in millimetres; the others are shares, printed in percent.
ERRORS = ("mpjpe", "rerooted_mpjpe", "p_mpjpe", "prealigned_p_mpjpe", "n_mpjpe", "mpjve")
COHERENCE = tuple(coherence.NEEDS)
LENGTHS = (*ERRORS, *COHERENCE)
METRICS = (*LENGTHS, "pck", "auc")
_NEEDS = {
    **metrics.NEEDS,
    "prealigned_p_mpjpe": metrics.NEEDS["p_mpjpe"],
    **coherence.NEEDS,
}
_COMPARED = (*ERRORS, "pck", "auc")

# Column heads of the papers' Human3.6M tables, in their order.
_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "Directions": "Dir.",
        "Discussion": "Disc.",
        "Eating": "Eat",
        "Greeting": "Greet",
        "Phoning": "Phone",
        "Photo": "Photo",
        "Posing": "Pose",
        "Purchases": "Pur.",
        "Sitting": "Sit",
        "SittingDown": "SitD.",
        "Smoking": "Smoke",
        "Waiting": "Wait",
        "WalkDog": "WalkD.",
        "Walking": "Walk",
        "WalkTogether": "WalkT.",
    }
)


def summarise(
    scores: FrameScores,
    *,
    actions: tuple[str, ...],
    subjects: tuple[str, ...],
    by_subject: bool = False,
) -> dict[str, Any]:
    """Averages scored frames into the figures of a paper's table; ready for JSON.

    Args:
      scores: See `score_items`.
      actions: Legend of the action numbers.
      subjects: Legend of the subject numbers.
      by_subject: A group is an action of one subject (HumanEva's tables), not an action.

    Returns:
      `rules`: by rule and metric the mean of each group (`groups`), of the groups (`mean`) and of
      all frames (`frames`); millimetres or percent, None where undefined. `needs`: what rules and
      metrics took beside the keypoints. `levels`: by rule, for each level of the tree from 1 on the
      same means of its joints' error, millimetres. `calibration`: see `FrameScores.calibration`,
      lengths in millimetres. `shared`: see `FrameScores`. `num_hypotheses`,
      `num_frames`, and `num_failed`: by rule the frames without a finite answer, which its averages
      leave out.
    """
    names, group = _groups(scores, actions, subjects, by_subject=by_subject)
    rules = {
        rule: {metric: _means(values[metric] * _factor(metric), group, names) for metric in METRICS}
        for rule, values in scores.values.items()
    }
    calibration = {
        name: _number(value * (1000 if name in ("crps", "energy_score", "spread") else 1))
        for name, value in scores.calibration().items()
    }
    levels = {
        rule: [_means(v * 1000, group, names) for v in by_level.T]
        for rule, by_level in scores.levels.items()
    }
    needs = _NEEDS
    if scores.official:
        needs = {**needs, "n_mpjpe": protocols.NEEDS["n_mpjpe_per_axis"]}
    return {
        "num_hypotheses": scores.num_hypotheses,
        "num_frames": len(scores.action),
        "shared": scores.shared,
        "num_failed": scores.num_failed,
        "rules": rules,
        "levels": levels,
        "calibration": calibration,
        "needs": {
            "rules": {rule: list(RULES[rule]) for rule in rules},
            "metrics": {metric: list(needs[metric]) for metric in METRICS},
        },
        "units": {
            "rules": {metric: "mm" if metric in LENGTHS else "percent" for metric in METRICS},
            "calibration": {
                "coverage_error": "share",
                "crps": "mm",
                "energy_score": "mm",
                "spread": "mm",
                "spread_error_correlation": "Spearman",
            },
        },
    }


def print_summary(
    summary: Mapping[str, Any],
    *,
    title: str,
    by_group: Sequence[str] = ("mpjpe", "p_mpjpe"),
) -> None:
    """Prints tables by group, all metrics, levels and calibration of a `summarise` result.

    Args:
      summary: See `summarise`.
      title: Printed on top of each table.
      by_group: Metrics that have a table by action (or what else a group is).
    """
    for metric in by_group:
        _print_groups(summary, metric, title)
    several = f"H = {summary['num_hypotheses']}"
    _print_metrics(summary, f"{title}: mean over groups, {several}", _COMPARED)
    _print_metrics(summary, f"{title}: coherence, mean over groups, {several}", COHERENCE)
    _print_levels(summary, title)
    _print_calibration(summary)
    failed = [f"{rule}: {count}" for rule, count in summary["num_failed"].items() if count]
    if failed:
        print(
            f"of {summary['num_frames']} frames some have no finite answer and are left out of the "
            f"rule's averages, which then compare with no other's: {', '.join(failed)}"
        )


def _groups(
    scores: FrameScores, actions: tuple[str, ...], subjects: tuple[str, ...], *, by_subject: bool
) -> tuple[list[str], NDArray]:
    if not by_subject:
        return list(actions), scores.action
    names = [f"{action} {subject}" for action in actions for subject in subjects]
    return names, scores.action * len(subjects) + scores.subject


def _means(values: NDArray, group: NDArray, names: list[str]) -> dict[str, Any]:
    known = np.isfinite(values)
    if not known.any():
        return {"groups": {}, "mean": None, "frames": None}
    found = protocols.action_means(values[known], group[known])
    by_group = {names[a]: float(m) for a, m in zip(found.actions, found.means, strict=True)}
    order = {name: i for i, name in enumerate(_SHORT)}
    ordered = sorted(by_group, key=lambda name: (order.get(name, len(order)), name))
    return {
        "groups": {name: by_group[name] for name in ordered},
        "mean": found.mean,
        "frames": float(values[known].mean()),
    }


def _print_groups(summary: Mapping[str, Any], metric: str, title: str) -> None:
    rules = summary["rules"]
    first = next(iter(rules.values()))[metric]["groups"]
    table = Table(
        title=f"{title}: {_head(metric)} ({_unit(metric)})", caption=_caption(summary, [metric])
    )
    table.add_column("rule", no_wrap=True)
    for name in [*(_SHORT.get(group, group) for group in first), "mean", "frames"]:
        table.add_column(name, justify="right", no_wrap=True)
    for rule, figures in rules.items():
        found = figures[metric]
        values = [*found["groups"].values(), found["mean"], found["frames"]]
        table.add_row(_rule_head(summary, rule), *map(_text, values))
    print_whole(table)


def _print_metrics(summary: Mapping[str, Any], title: str, metrics: Sequence[str]) -> None:
    caption = _caption(summary, metrics)
    if "p_best_batch" in summary["rules"]:
        shared = summary.get("shared", "some")
        caption += f"; p_best_batch: one hypothesis for {shared} windows of a sequence"
    table = Table(title=title, caption=caption)
    table.add_column("rule", no_wrap=True)
    for metric in metrics:
        table.add_column(f"{_head(metric)} ({_unit(metric)})", justify="right", no_wrap=True)
    for rule, figures in summary["rules"].items():
        table.add_row(_rule_head(summary, rule), *(_text(figures[m]["mean"]) for m in metrics))
    print_whole(table)


def _print_levels(summary: Mapping[str, Any], title: str) -> None:
    if not summary["levels"]:
        return
    head = f"{title}: MPJPE (mm) by level, mean over groups"
    table = Table(
        title=head,
        caption="level: bones between a joint and the root; needs ground truth",
        min_width=len(head),  # few columns: it would be broken
    )
    table.add_column("rule", no_wrap=True)
    for level in range(len(next(iter(summary["levels"].values())))):
        table.add_column(str(level + 1), justify="right", no_wrap=True)
    for rule, figures in summary["levels"].items():
        table.add_row(_rule_head(summary, rule), *(_text(found["mean"]) for found in figures))
    print_whole(table)


def _print_calibration(summary: Mapping[str, Any]) -> None:
    units = summary["units"]["calibration"]
    table = Table(
        title=f"calibration of {summary['num_hypotheses']} hypotheses",
        caption="needs ground truth; a minimum over hypotheses means little without it",
    )
    values = summary["calibration"]
    for name in values:
        table.add_column(f"{name.replace('_', ' ')} ({units[name]})", justify="right")
    table.add_row(*(_text(v, 1 if units[n] == "mm" else 3) for n, v in values.items()))
    print_whole(table)


def _rule_head(summary: Mapping[str, Any], rule: str) -> str:
    needs = summary["needs"]["rules"][rule]
    if not needs:
        return rule
    oracle = any(need.startswith(("ground truth", "ground-truth")) for need in needs)
    return f"{rule} ({'ORACLE' if oracle else 'needs'}: {', '.join(needs)})"


def _caption(summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    needs = summary["needs"]["metrics"]
    return "; ".join(f"{_head(m)} needs {', '.join(needs[m]) or 'nothing'}" for m in metrics)


def _head(metric: str) -> str:
    return metric.upper().replace("_", "-")


def _unit(metric: str) -> str:
    return "mm" if metric in LENGTHS else "%"


def _factor(metric: str) -> float:
    return 1000.0 if metric in LENGTHS else 100.0


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _text(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
