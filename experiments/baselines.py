"""Scores what a trained lifter must beat: the mean pose and the nearest training view.

python -m experiments.baselines --config=configs/diffupose_cmu.py \
    --config.data.root=../shared/data/cmu17 [--protocol=cmu17-val-v1] [--data=DIR]
"""

from typing import Any

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags
from numpy.typing import NDArray

from experiments.common import start
from experiments.data import load_test, load_training
from posediff_jax.data import ScoredItems
from posediff_jax.evaluation.baselines import mean_training_pose, nearest_training_poses
from posediff_jax.evaluation.report import print_scores, score_hypotheses


def run(config: ConfigDict, protocol: str = "", data: str = "") -> dict[str, dict[str, float]]:
    """Prints and returns the rows, millimetres over all scored frames.

    Args:
      config: See `configs/diffupose_cmu.py`.
      protocol: See `experiments.data.PROTOCOLS`.
      data: Overrides `data.root` for what is scored.
    """
    table = load_training(config).train
    tested = ConfigDict(config.to_dict())
    if data:
        tested.data.root = data
    items = load_test(tested, protocol)
    truth = _truth(items)
    poses: dict[str, Any] = {
        "mean pose": np.broadcast_to(mean_training_pose(table), truth.shape),
        f"nearest of {table.num_items} views": nearest_training_poses(table, items),
    }
    rows = {
        name: score_hypotheses(np.asarray(pose)[:, None, None], truth[:, None])
        for name, pose in poses.items()
    }
    print_scores(rows, title=protocol or "baselines", columns=("mpjpe", "p_mpjpe"))
    return rows


def _truth(items: ScoredItems) -> NDArray:
    return np.concatenate([np.asarray(b.pose)[frames] for b, frames in items.batches(1024)])


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(given.config, given.protocol, given.data)


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    config_flags.DEFINE_config_file("config", None, "The section `data` is used.")
    flags.DEFINE_string("protocol", "", "What is scored; see experiments/data.py.")
    flags.DEFINE_string("data", "", "Folder of what is scored, if not that of the training.")
    flags.mark_flags_as_required(["config"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
