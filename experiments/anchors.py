"""Anchor poses for ZeDO: K-Means over a set of poses seen by cameras, written to one npz.

python -m experiments.anchors --config=configs/zedo_prior_synthetic.py --output=anchors.npz
    [--num=50] [--pick=member] [--most=20000]

Takes the training poses of any config. The published runs have one K-Means for each number S of
hypotheses: run this once for each.
"""

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags
from numpy.typing import NDArray

from experiments.common import start
from experiments.data import load_training
from posediff_jax.data import Anchors, write_anchors
from posediff_jax.skeleton import Skeleton, check_joints, get_skeleton

PICKS = ("member", "center")
RESTARTS = 4


def run(
    poses: NDArray,
    skeleton: Skeleton,
    *,
    num: int,
    pick: str = "member",
    seed: int = 0,
    source: str = "",
) -> Anchors:
    """Clusters poses by K-Means (Lloyd's, k-means++ starts, the best of some restarts).

    Args:
      poses: `(N, J, 3)`, root-relative metres in camera axes.
      skeleton: Their joints.
      num: S, at most N.
      pick: "member": the pose nearest to the mean of its cluster, a real pose as the paper has
        it. "center": that mean, whose bones are shorter than anybody's.
      seed: Decides the starts.
      source: What the poses are, in words.

    Returns:
      The anchors, largest cluster first.

    Raises:
      ValueError: Poses of another skeleton or that are not finite, S out of range, or an unknown
        `pick`.
    """
    from scipy.spatial.distance import cdist

    check_joints(poses, skeleton, channels=3, name="poses")
    if poses.ndim != 3 or not np.isfinite(poses).all():
        raise ValueError(f"poses: expected (N, J, 3) finite metres, got shape {poses.shape}")
    if not 1 <= num <= len(poses):
        raise ValueError(f"num: expected 1 to {len(poses)} (the poses), got {num}")
    if pick not in PICKS:
        raise ValueError(f"pick: expected one of {PICKS}, got {pick!r}")
    rows = np.asarray(poses, np.float64).reshape(len(poses), -1)
    centers, labels = _cluster(rows, num, seed)
    counts = np.bincount(labels, minlength=num)
    order = np.argsort(-counts, kind="stable")
    chosen = centers[order]
    if pick == "member":
        chosen = rows[cdist(chosen, rows).argmin(axis=1)]
    anchors = chosen.reshape(num, *poses.shape[1:])
    return Anchors(
        poses=(anchors - anchors[:, skeleton.root, None]).astype(np.float32),
        joints=skeleton.joints,
        counts=counts[order],
        source=f"{source}; K-Means, S={num}, {pick}, seed {seed}, {len(poses)} poses",
    )


def load_poses(config: ConfigDict, *, most: int = 20000) -> NDArray:
    """The training poses of a config as its cameras see them, `(N, J, 3)` root-relative metres.

    Args:
      config: See `experiments.data`.
      most: Largest N; more poses are thinned out evenly.

    Raises:
      ValueError: The data has no poses; and errors as in `load_training`.
    """
    poses = load_training(config).train.pose
    if poses is None:
        raise ValueError("config.data: expected poses to choose anchors from, got keypoints only")
    return poses[np.linspace(0, len(poses) - 1, min(most, len(poses))).astype(int)]


def _cluster(rows: NDArray, num: int, seed: int) -> tuple[NDArray, NDArray]:
    """Centres `(S, D)` and the cluster of each row, from the restart with the least error."""
    # jax brings SciPy; importing it takes a moment that other commands need not wait for.
    from scipy.cluster.vq import ClusterError, kmeans2, vq

    best: tuple[float, NDArray, NDArray] | None = None
    for restart in range(RESTARTS):
        rng = np.random.default_rng((seed, restart))
        try:
            centers, _ = kmeans2(rows, num, iter=50, minit="++", missing="raise", seed=rng)
        except ClusterError:  # A cluster lost all its poses.
            continue
        labels, distance = vq(rows, centers)
        error = float((distance**2).sum())
        if best is None or error < best[0]:
            best = error, centers, labels
    if best is None:
        raise ValueError(f"num: no {num} clusters found in {len(rows)} poses; take fewer")
    return best[1:]


def source_of(data: ConfigDict) -> str:
    """The section `data` in words: what the poses are of."""
    clips = data.get("procedural_clips", 0)
    return f"{data.kind} and {clips} procedural clips" if clips else data.kind


def main(argv: list[str]) -> None:
    """Clusters and writes."""
    start(argv)
    config = flags.FLAGS.config
    anchors = run(
        load_poses(config, most=flags.FLAGS.most),
        get_skeleton(config.skeleton),
        num=flags.FLAGS.num,
        pick=flags.FLAGS.pick,
        seed=config.seed,
        source=source_of(config.data),
    )
    write_anchors(flags.FLAGS.output, anchors)
    print(f"{flags.FLAGS.output}: {len(anchors.poses)} anchors of {anchors.source}")
    print(f"poses that each stands for: {anchors.counts.tolist()}")


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    config_flags.DEFINE_config_file("config", None, "Says which poses to take.")
    flags.DEFINE_string("output", None, "The npz to write.")
    flags.DEFINE_integer("num", 50, "S, the number of anchors.")
    flags.DEFINE_enum("pick", "member", PICKS, "What stands for a cluster.")
    flags.DEFINE_integer("most", 20000, "Poses used; more are thinned out evenly.")
    flags.mark_flags_as_required(["config", "output"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
