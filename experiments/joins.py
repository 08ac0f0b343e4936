"""Velocity errors of long clips where windows join, beside those inside windows.

python -m experiments.joins --checkpoint=runs/ddhpose_cmu [--protocol=cmu17-val-v1] [--data=DIR]
    [--overlaps=0,13] [--causal=true] [--num_hypotheses=1] [--sequences=0]

Whole sequences, every frame. A step from a frame to the next is a join where a window begins or
ends to say something; it is "blended" where the same several windows speak of both frames, "inside"
where one alone does. With a window for each frame (causal) every step is a join. Causal answers
take as many windows as there are frames: --sequences=N takes N sequences, spread evenly.

Joins are compared with what windows are like inside: those side by side (overlap 0), clip by clip.
A difference within two standard errors over clips is called none; views of a clip by several
cameras are not independent and count as one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from experiments.common import parse_options, start, write_json
from experiments.data import default_protocol, load_test_views
from posediff_jax.data import ScoredViews, item_table
from posediff_jax.data.windows import ClipPlan, plan_clip
from posediff_jax.evaluation.metrics import mpjpe
from posediff_jax.evaluation.report import print_whole
from posediff_jax.inference import clip_sampler, make_sampler
from posediff_jax.systems import make_system
from posediff_jax.training import load_variables, stream_key

PLACES = ("joins", "blended", "inside")
# By pose and place the velocity errors of each clip, and by pose under "mpjpe" its errors.
Errors = dict[str, dict[str, list[NDArray]]]


def run(
    checkpoint: str | Path,
    *,
    protocol: str = "",
    data: str = "",
    overlaps: Sequence[int] = (),
    causal: bool = True,
    num_hypotheses: int = 1,
    sequences: int = 0,
    sampler: Mapping[str, Any] | None = None,
    step: int | None = None,
    out: str | Path = "",
) -> dict[str, Any]:
    """Lifts whole sequences by windows that overlap more or less; prints and writes the table.

    Args:
      checkpoint: A run's folder.
      protocol: See `experiments.data.PROTOCOLS`; empty for `default_protocol`.
      data: Overrides `data.root` of the config.
      overlaps: Frames that neighbouring windows share; empty for none and half a window.
      causal: Also a window for each frame, which ends there.
      num_hypotheses: H; with several there is a row for their mean and one for the first of them.
      sequences: How many sequences, spread evenly; 0 for all.
      sampler: Fields of the section `sampler` to change.
      step: Which checkpoint.
      out: The JSON file; by default `joins.json` in the run's folder.

    Returns:
      What the JSON holds: "rows" as from `compare`, and what they were measured on.

    Raises:
      ValueError: A system that sees single frames, or joints that are hidden window by window.
    """
    variables, info = load_variables(checkpoint, step=step)
    config = ConfigDict(info.config)
    length = int(config.data.get("frames", 1))
    if length < 2:
        raise ValueError(f"checkpoint: {checkpoint} sees single frames, which have no joins")
    if config.data.get("occlusion", {}).get("pattern", "none") != "none":
        raise ValueError(
            f"checkpoint: {checkpoint} hides joints window by window; a neighbour would show them"
        )
    if data:
        config.data.root = data
    config.sampler.update(dict(sampler or {}))
    protocol = protocol or default_protocol(config)
    views = load_test_views(config, protocol)
    numbers = spread(len(views.views.sequences), sequences)
    table = item_table(views.views, length=length)
    draw = make_sampler(make_system(config), variables, num_hypotheses=num_hypotheses)
    found: dict[str, Errors] = {}
    for name, options in plans(length, overlaps, causal=causal).items():
        clip_of = clip_sampler(
            stream_key(config.seed, "eval"),
            draw,
            table,
            batch_size=config.evaluation.batch_size,
            **options,
        )
        found[name] = measure(
            clip_of,
            views,
            track(numbers, name),
            partial(plan_clip, length=length, **options),
        )
    result = {
        "checkpoint": str(checkpoint),
        "step": info.step,
        "system": config.system,
        "protocol": protocol,
        "window": length,
        "num_hypotheses": num_hypotheses,
        "sampler": config.sampler.to_dict(),
        "sequences": len(numbers),
        "frames": int(sum(views.views.sequences[n].num_frames for n in numbers)),
        "rows": compare(found),
    }
    print_joins(result)
    write_json(out or Path(checkpoint) / "joins.json", result)
    return result


def plans(length: int, overlaps: Sequence[int], *, causal: bool) -> dict[str, dict[str, Any]]:
    """By name the options of `plan_clip`; "side by side" comes first: others compare with it."""
    wanted = sorted({0, *(overlaps or (length // 2,))})
    named: dict[str, dict[str, Any]] = {
        f"overlap {shared}" if shared else "side by side": {"overlap": shared} for shared in wanted
    }
    return named | ({"causal": {"causal": True}} if causal else {})


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` numbers, spread evenly; all for 0."""
    if not 0 <= wanted <= count:
        raise ValueError(f"sequences: expected 0 to {count}, got {wanted}")
    return np.linspace(0, count - 1, wanted or count).astype(int).tolist()


def measure(
    clip_of: Callable[[int], NDArray],
    views: ScoredViews,
    numbers: Iterable[int],
    plan_of: Callable[[int], ClipPlan],
) -> Errors:
    """Errors of the mean pose and, of several, of the first hypothesis.

    Args:
      clip_of: `(number of a sequence) -> hypotheses (H, F, J, 3)`, metres.
      views: The sequences; steps from or to a frame whose pose is not known are left out.
      numbers: Which of them, in order.
      plan_of: `(frames) -> the windows`.

    Returns:
      By pose and place for each clip the velocity errors of its steps in all its views, metres per
      frame; under "mpjpe" the errors of its frames, metres.
    """
    found: dict[str, dict[str, dict[str, list[NDArray]]]] = {}
    for number in numbers:
        sequence = views.views.sequences[number]
        # The last part of a name is the camera's.
        clip = sequence.name.rpartition("/")[0] or sequence.name
        target = np.asarray(sequence.pose)
        known = np.ones(len(target), bool) if views.known is None else views.known[number]
        hypotheses = clip_of(number)
        poses = {"mean": hypotheses.mean(axis=0)}
        if len(hypotheses) > 1:
            poses["first"] = hypotheses[0]
        at = places(plan_of(len(target)))
        for name, pose in poses.items():
            errors = found.setdefault(name, {key: {} for key in (*PLACES, "mpjpe")})
            velocity = _errors(np.diff(pose, axis=0), np.diff(target, axis=0))
            both = known[1:] & known[:-1]
            for place, steps in at.items():
                errors[place].setdefault(clip, []).append(velocity[steps & both])
            errors["mpjpe"].setdefault(clip, []).append(_errors(pose, target)[known])
    return {
        name: {key: [np.concatenate(p) for p in of.values()] for key, of in errors.items()}
        for name, errors in found.items()
    }


def places(plan: ClipPlan) -> dict[str, NDArray[np.bool_]]:
    """Which of the F - 1 steps between frames are in each of `PLACES`."""
    speaks = np.zeros((len(plan.index), int(plan.index.max()) + 1), bool)
    window, position = np.nonzero(plan.weight > 0)
    speaks[window, plan.index[window, position]] = True
    changes = (speaks[:, 1:] != speaks[:, :-1]).any(axis=0)
    several = speaks[:, 1:].sum(axis=0) > 1
    return {"joins": changes, "blended": ~changes & several, "inside": ~changes & ~several}


def compare(found: Mapping[str, Errors]) -> list[dict[str, Any]]:
    """Means in millimetres, and how much larger joins are than "inside" side by side.

    Args:
      found: By name of the windows, "side by side" among them, see `measure`.

    Returns:
      A row for each kind of windows and pose: means over all steps of "joins", "blended", "inside",
      and "all", mm per frame; "num_joins"; "mpjpe", mm; "difference" of the joins from the inside
      of windows side by side, mean over clips, mm per frame, and its "standard_error". None
      where there is nothing, or a single clip.
    """
    rows = []
    for windows, by_pose in found.items():
        for pose, errors in by_pose.items():
            inside = found["side by side"][pose]["inside"]
            pairs = zip(errors["joins"], inside, strict=True)
            paired = [a.mean() - b.mean() for a, b in pairs if len(a) and len(b)]
            deviation = np.std(paired, ddof=1) if len(paired) > 1 else None
            row: dict[str, Any] = {"windows": windows, "pose": pose}
            row |= {place: _millimetres(errors[place]) for place in PLACES}
            row["all"] = _millimetres([x for place in PLACES for x in errors[place]])
            row["num_joins"] = sum(map(len, errors["joins"]))
            row["mpjpe"] = _millimetres(errors["mpjpe"])
            row["difference"] = 1000 * float(np.mean(paired)) if paired else None
            row["standard_error"] = (
                None if deviation is None else 1000 * float(deviation) / len(paired) ** 0.5
            )
            rows.append(row)
    return rows


def print_joins(result: Mapping[str, Any]) -> None:
    """Prints the rows of `run`."""
    table = Table(
        title=f"{result['system']} on {result['protocol']}: velocity errors (mm per frame), "
        f"{result['sequences']} sequences, windows of {result['window']} frames, "
        f"H = {result['num_hypotheses']}",
        caption="from inside: joins against 'inside' of windows side by side, clip by clip ± a "
        "standard error; needs ground truth",
    )
    for head in ("windows", "pose"):
        table.add_column(head, no_wrap=True)
    for head in (*PLACES, "all", "number of joins", "joins from inside", "MPJPE (mm)"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in result["rows"]:
        figures = ("-" if row[k] is None else f"{row[k]:.2f}" for k in (*PLACES, "all"))
        number = str(row["num_joins"])
        error = f"{row['mpjpe']:.1f}"
        table.add_row(row["windows"], row["pose"], *figures, number, difference_text(row), error)
    print_whole(table)


def difference_text(row: Mapping[str, Any]) -> str:
    """The difference of a row of `compare`, "none" within two standard errors."""
    difference, error = row["difference"], row["standard_error"]
    if difference is None:
        return "-"
    if error is None:
        return f"{difference:+.2f}"
    verdict = " (none)" if abs(difference) <= 2 * error else ""
    return f"{difference:+.2f} ± {error:.2f}{verdict}"


def _errors(pose: Any, target: Any) -> NDArray:
    return np.asarray(mpjpe(pose, target))


def _millimetres(parts: Sequence[NDArray]) -> float | None:
    values = np.concatenate(parts)
    return 1000 * float(values.mean()) if len(values) else None


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(
        given.checkpoint,
        protocol=given.protocol,
        data=given.data,
        overlaps=tuple(map(int, given.overlaps)),
        causal=given.causal,
        num_hypotheses=given.num_hypotheses,
        sequences=given.sequences,
        sampler=parse_options(given.sampler),
        step=given.step,
        out=given.out,
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_string("checkpoint", None, "The run's folder.")
    flags.DEFINE_string("protocol", "", "What is lifted; see experiments/data.py.")
    flags.DEFINE_string("data", "", "Folder of the data, if not where it was in training.")
    flags.DEFINE_list("overlaps", [], "Frames that windows share; none and half by default.")
    flags.DEFINE_bool("causal", True, "Also a window for each frame.")
    flags.DEFINE_integer("num_hypotheses", 1, "H.")
    flags.DEFINE_integer("sequences", 0, "So many sequences, spread evenly; 0 for all.")
    flags.DEFINE_multi_string("sampler", [], "A sampler option to change, such as num_steps=10.")
    flags.DEFINE_integer("step", None, "Which checkpoint; by default the best, else newest.")
    flags.DEFINE_string("out", "", "Where the JSON goes.")
    flags.mark_flags_as_required(["checkpoint"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
