"""Trains a small DiffuPose from nothing, and shows what it makes of motion it has not seen.

python -m experiments.quickstart [--data=DIR] [--workdir=DIR]

Uses the embedded procedural motion, or with --data the `train.npz` and `val.npz` of a folder in the
layout of `posediff_jax.data.load_cmu17`. Prints a table, writes a checkpoint and a picture, and
exits with status 1 unless ten hypotheses beat the mean pose by 40 percent.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags
from numpy.typing import NDArray
from rich.progress import track

from experiments.common import start
from posediff_jax.data import (
    ItemTable,
    MotionClip,
    endless_batches,
    item_table,
    load_cmu17,
    procedural_motion,
    virtual_views,
)
from posediff_jax.evaluation.report import print_scores, score_hypotheses
from posediff_jax.inference import make_sampler, sample_all
from posediff_jax.skeleton import Skeleton, get_skeleton
from posediff_jax.systems import make_system
from posediff_jax.training import eval_variables, make_ema, make_optimizer, stream_key, train
from posediff_jax.visualize import plot_hypotheses

TITLE = "Unseen motion, 2D keypoints to 3D"
COLUMNS = ("mpjpe", "p_mpjpe", "spread")
SAMPLING_BATCHES = 8
NEEDED_GAIN = 0.4  # of the mean pose's error


def run(config: ConfigDict, workdir: str | Path, data: str = "") -> dict[str, dict[str, float]]:
    """Trains, samples, scores, draws.

    Args:
      config: See `configs/quickstart.py`.
      workdir: Gets `checkpoints/`, `metrics.jsonl` and `hypotheses.png`. A run that was stopped
        goes on from its checkpoint.
      data: Folder of real motion; empty for the embedded procedural motion.

    Returns:
      Figures in millimetres of each row of the table.
    """
    workdir = Path(workdir)
    skeleton = get_skeleton(config.skeleton)
    train_table, val_table = load_tables(config, skeleton, data)
    system = make_system(config)
    options = config.training
    state = train(
        system,
        make_optimizer(config.optimizer, num_steps=options.num_steps),
        lambda step: endless_batches(
            train_table, batch_size=options.batch_size, seed=config.seed, start_step=step
        ),
        num_steps=options.num_steps,
        seed=config.seed,
        ema=make_ema(config.ema),
        workdir=workdir,
        config=config.to_dict() | {"data": {**config.data, "motion": data or "procedural"}},
        same_config=True,
        metadata={"skeleton": skeleton.name, "normalisation": "screen"},
        log_every=options.log_every,
        save_every=options.save_every,
    )

    scored = np.linspace(0, val_table.num_items - 1, config.data.scored_poses).astype(int)
    batch = val_table.gather(scored)
    truth = np.asarray(batch.pose)
    sampler = make_sampler(system, eval_variables(state), num_hypotheses=config.num_hypotheses)
    parts = [val_table.gather(p) for p in np.array_split(scored, SAMPLING_BATCHES) if len(p)]
    hypotheses = sample_all(
        stream_key(config.seed, "eval"),
        sampler,
        track(parts, f"sampling {config.num_hypotheses} hypotheses for {len(scored)} poses"),
    )
    rows = {
        "mean pose": score_hypotheses(_mean_pose(train_table, truth), truth),
        "DiffuPose N=1": score_hypotheses(hypotheses[:, :1], truth),
        f"DiffuPose N={config.num_hypotheses}": score_hypotheses(hypotheses, truth),
    }
    print_scores(rows, title=TITLE, columns=COLUMNS)
    picture = workdir / "hypotheses.png"
    shown = np.linspace(0, len(scored) - 1, 5).astype(int)[1:4]
    plot_hypotheses(
        picture,
        batch.keypoints_px[shown, 0],
        truth[shown, 0],
        hypotheses[shown, :, 0],
        skeleton,
        title=TITLE,
    )
    print(f"checkpoint and picture: {workdir / 'checkpoints'}, {picture}")
    return rows


def load_tables(config: ConfigDict, skeleton: Skeleton, data: str) -> tuple[ItemTable, ItemTable]:
    """Motion seen by virtual cameras: training items with mirrored copies, and unseen items."""
    options = config.data
    views: dict[str, Any] = {"noise_px": options.noise_px}
    train_clips, val_clips = load_clips(config, data)
    train_views = virtual_views(
        config.seed, train_clips, skeleton, views_per_clip=options.train_views, **views
    )
    val_views = virtual_views(config.seed + 1, val_clips, skeleton, **views)
    print(f"{train_views.num_frames} training poses, {val_views.num_frames} unseen ones")
    return item_table(train_views, augment=True), item_table(val_views)


def load_clips(config: ConfigDict, data: str) -> tuple[list[MotionClip], list[MotionClip]]:
    """Training clips and clips of motion not in them, in pieces with a camera each."""
    options = config.data
    frames = options.frames_per_clip
    if data and not Path(data).is_dir():
        raise FileNotFoundError(f"data: expected a folder with train.npz and val.npz, got {data!r}")
    if data:
        splits = [load_cmu17(data, split) for split in ("train", "val")]
    else:
        seeds, counts = (config.seed, config.seed + 1), (options.train_clips, options.val_clips)
        splits = [
            procedural_motion(seed, num_clips=count, frames=frames)
            for seed, count in zip(seeds, counts, strict=True)
        ]
    train_clips, val_clips = ([p for clip in split for p in clip.split(frames)] for split in splits)
    return train_clips, val_clips


def _mean_pose(table: ItemTable, like: NDArray) -> NDArray:
    """The mean of all training poses as a single hypothesis for each scored pose."""
    mean = np.asarray(table.gather(np.arange(table.num_items)).pose).mean(axis=(0, 1))
    return np.broadcast_to(mean, like.shape)[:, None]


def main(argv: list[str]) -> None:
    """Runs and judges."""
    start(argv)
    given = flags.FLAGS
    motion = Path(given.data).resolve().name if given.data else "procedural"
    workdir = given.workdir or f"runs/quickstart_{motion}"
    rows = run(given.config, workdir, given.data)
    baseline, *_, final = (figures["mpjpe"] for figures in rows.values())
    gain = 1 - final / baseline
    print(f"{gain:.0%} below the mean pose (needed: {NEEDED_GAIN:.0%})")
    sys.exit(0 if gain >= NEEDED_GAIN else 1)


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    config_flags.DEFINE_config_file("config", "configs/quickstart.py", "The run's config.")
    flags.DEFINE_string("data", "", "Folder with train.npz and val.npz; else procedural.")
    flags.DEFINE_string(
        "workdir",
        "",
        "Where checkpoint and picture go; by default a folder in runs/ for each motion.",
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
