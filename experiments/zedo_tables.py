"""ZeDO's tables and figure on any protocol, one command each.

python -m experiments.zedo_tables --table=4 --priors=runs/zedo_cmu,runs/zedo_cmu_norotation
    [--data=DIR] [--protocol=cmu17-val-v1] [--frames=0] [--num_hypotheses=50] [--sampler=...]

--table=4        initial fit (RO), warm-up (WU) and rotations in training (a prior of its own)
--table=5        backbones: give a score prior and one of discrete steps
--table=7        K-Means, random and generated starts
--table=figure5  error and time over the number of iterations
--table=choice   rules that choose one hypothesis without the truth, beside the oracle

Needs priors from `experiments.train` with `configs/zedo_prior_synthetic.py`. The first prior says
what is scored. Errors over several hypotheses are the least of them, by the truth, as published.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from numpy.typing import NDArray
from rich.table import Table

from experiments.common import parse_options, start, write_json
from experiments.zedo_lifting import (
    Lifted,
    Prior,
    errors,
    kmeans,
    least_errors,
    lift,
    load_frames,
    load_prior,
    reprojection,
    truth,
)
from posediff_jax.evaluation.report import print_whole
from posediff_jax.samplers.aggregate import mean_pose, medoid_pose
from posediff_jax.samplers.choose import (
    NEEDS,
    choose_least,
    most_agreed,
    nearest_to_mean,
    reprojection_and_energy,
)
from posediff_jax.systems.zedo import make_energy
from posediff_jax.training import stream_key
from posediff_jax.types import PoseBatch

# What the figures of all tables needed; the rows of "choice" say which rule needs the truth too.
NOTE = (
    "of several hypotheses the least error by the truth (ORACLE) but for 'choice'; "
    "P-MPJPE aligns with reflection, as published"
)
ITERATIONS = (50, 100, 200, 500, 1000, 2000)

Rows = list[dict[str, Any]]


def table_4(
    priors: list[Prior], batches: list[PoseBatch], num_hypotheses: int, sampler: Mapping[str, Any]
) -> Rows:
    """Ablation: each prior without fit and warm-up, with the fit, and with both."""
    steps = {
        "": {"fit_iterations": 0, "warmup": 0.0},
        "RO": {"warmup": 0.0},
        "RO WU": {},
    }
    target, rows = truth(batches), []
    for prior in priors:
        anchors = {h: kmeans(prior, h) for h in (1, num_hypotheses)}
        for name, options in steps.items():
            row: dict[str, Any] = {"prior": prior.name, "steps": name}
            for h, frozen in anchors.items():
                lifted = lift(
                    prior, batches, num_hypotheses=h, frozen=frozen, sampler={**sampler, **options}
                )
                row |= {f"S={h} {k}": v for k, v in least_errors(lifted, target).items()}
            rows.append(row)
    return rows


def table_5(
    priors: list[Prior], batches: list[PoseBatch], num_hypotheses: int, sampler: Mapping[str, Any]
) -> Rows:
    """Backbones; a prior of discrete steps runs as DDIM, and as DDPM with its noise."""
    target, rows = truth(batches), []
    for prior in priors:
        if prior.config.process.name in ("ddpm", "ddim"):
            backbones = {"DDIM": ("ddim", False), "DDPM": ("ddpm", True)}
        else:
            backbones = {"score": (prior.config.process.name, False)}
        for name, (process, noisy) in backbones.items():
            lifted = lift(
                prior,
                batches,
                num_hypotheses=num_hypotheses,
                sampler={**sampler, "noisy": noisy},
                process={"name": process},
            )
            rows.append({"prior": prior.name, "backbone": name, **least_errors(lifted, target)})
    return rows


def table_7(
    priors: list[Prior], batches: list[PoseBatch], num_hypotheses: int, sampler: Mapping[str, Any]
) -> Rows:
    """Starts. "random" draws from all training poses, anew for each frame."""
    target, rows = truth(batches), []
    for prior in priors:
        starts: dict[str, tuple[str, dict[str, Any]]] = {
            "random": ("random", {"anchors": prior.poses}),
            "generated": ("generated", {"anchors": prior.poses}),
            "K-Means, member": ("anchors", kmeans(prior, num_hypotheses)),
            "K-Means, center": ("anchors", kmeans(prior, num_hypotheses, pick="center")),
        }
        for name, (option, frozen) in starts.items():
            lifted = lift(
                prior,
                batches,
                num_hypotheses=num_hypotheses,
                frozen=frozen,
                sampler={**sampler, "starts": option},
            )
            rows.append({"prior": prior.name, "start": name, **least_errors(lifted, target)})
    return rows


def figure_5(
    priors: list[Prior],
    batches: list[PoseBatch],
    num_hypotheses: int,
    sampler: Mapping[str, Any],
    iterations: tuple[int, ...] = ITERATIONS,
) -> Rows:
    """Errors and time over N: the published steps of 1 / 1000, and steps rescaled to 1 / N."""
    target, rows = truth(batches), []
    for prior in priors:
        frozen = kmeans(prior, num_hypotheses)
        for rescale in (False, True):
            for n in iterations:
                options = {**sampler, "num_iterations": n, "rescale_dt": rescale}
                lifted = lift(
                    prior,
                    batches,
                    num_hypotheses=num_hypotheses,
                    frozen=frozen,
                    sampler=options,
                    timed=True,
                )
                rows.append(
                    {
                        "prior": prior.name,
                        "steps of": "1 / N" if rescale else "1 / 1000",
                        "N": n,
                        **least_errors(lifted, target),
                        "ms per frame": 1e3 * lifted.seconds / len(target),
                    }
                )
    return rows


def choices(
    priors: list[Prior], batches: list[PoseBatch], num_hypotheses: int, sampler: Mapping[str, Any]
) -> Rows:
    """Rules without the truth, the first anchor, and the oracle, over the same hypotheses."""
    target, rows = truth(batches), []
    for prior in priors:
        lifted = lift(prior, batches, num_hypotheses=num_hypotheses, sampler=sampler)
        for name, pose in _chosen(prior, batches, lifted).items():
            by_frame = errors(pose, target)
            found = {k: 1000 * float(jnp.nanmean(v)) for k, v in by_frame.items()}
            found["unsolved"] = float(jnp.isnan(by_frame["mpjpe"]).sum())
            needs = ", ".join(NEEDS.get(name, ()))
            rows.append({"prior": prior.name, "rule": name, **found, "needs": needs})
        oracle = least_errors(lifted, target)
        oracle = {name: oracle[name] for name in found}
        rows.append({"prior": prior.name, "rule": "oracle", **oracle, "needs": "ground truth"})
    return rows


def _chosen(prior: Prior, batches: list[PoseBatch], lifted: Lifted) -> dict[str, NDArray]:
    """The pose of each rule as one hypothesis, `(n, 1, J, 3)`."""
    x = jnp.asarray(lifted.samples)[:, :, None]  # (n, H, F, J, 3)
    energy = jax.jit(make_energy(prior.config))
    key = stream_key(prior.config.seed, "eval")
    pixels = reprojection(batches, lifted)
    energies = energy(key, prior.variables, x)
    both = reprojection_and_energy(pixels, energies)
    poses = {
        "first": x[:, 0],
        "mean": mean_pose(x),
        "medoid": medoid_pose(x)[0],
        "nearest_to_mean": nearest_to_mean(x)[0],
        "most_agreed": most_agreed(x)[0],
        "denoising_energy": choose_least(x, energies)[0],
        "reprojection_error": choose_least(x, pixels)[0],
        "reprojection_and_energy": choose_least(x, both)[0],
    }
    return {name: np.asarray(pose) for name, pose in poses.items()}


# The default number of hypotheses is the paper's.
TABLES: dict[str, tuple[Callable[..., Rows], int]] = {
    "4": (table_4, 50),
    "5": (table_5, 1),
    "7": (table_7, 1),
    "figure5": (figure_5, 1),
    "choice": (choices, 50),
}


def print_rows(rows: Rows, title: str) -> None:
    """Prints rows; figures with one digit."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column.replace("_", "-"), justify="right")
    for row in rows:
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
    print_whole(table)


def main(argv: list[str]) -> None:
    """Runs the table that the flags name."""
    start(argv)
    values = flags.FLAGS
    make_rows, hypotheses = TABLES[values.table]
    priors = [load_prior(path, data=values.data, weights=values.weights) for path in values.priors]
    batches = load_frames(
        priors[0].config,
        protocol=values.protocol,
        frames=values.frames,
        batch_size=values.batch_size,
    )
    num_hypotheses = values.num_hypotheses or hypotheses
    rows = make_rows(priors, batches, num_hypotheses, parse_options(values.sampler))
    scored = f"{len(truth(batches))} frames of {values.protocol or priors[0].config.data.kind}"
    title = f"ZeDO, table {values.table}, S = {num_hypotheses}, {scored} (mm); {NOTE}"
    print_rows(rows, title)
    if values.json:
        write_json(values.json, {"title": title, "rows": rows})


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_enum("table", None, list(TABLES), "Which table.")
    flags.DEFINE_list("priors", None, "Folders of trained priors.")
    flags.DEFINE_string("data", "", "Folder of the data, if not where it was in training.")
    flags.DEFINE_string("protocol", "", "What is scored; see experiments/data.py.")
    flags.DEFINE_enum("weights", "auto", ["auto", "ema", "raw"], "Averaged or as trained.")
    flags.DEFINE_integer("frames", 0, "Score so many frames, spread evenly; 0 for all.")
    flags.DEFINE_integer("num_hypotheses", 0, "S; 0 for the paper's.")
    flags.DEFINE_integer("batch_size", 64, "Frames in a batch.")
    flags.DEFINE_multi_string("sampler", [], "A sampler option to change, as name=value.")
    flags.DEFINE_string("json", "", "Also write the rows to this file.")
    flags.mark_flags_as_required(["table", "priors"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
