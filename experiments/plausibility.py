"""Draws poses from a trained prior of ZeDO and says how much they are like people.

python -m experiments.plausibility --checkpoint=DIR [--num=1024] [--weights=auto] [--data=DIR]

Prints figures in millimetres beside those of unseen real poses, and writes them beside the
checkpoints as `plausibility.json`. See `posediff_jax.evaluation.plausibility`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.common import start, write_json
from experiments.data import load_test
from posediff_jax.evaluation.plausibility import plausibility
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems.zedo import make_generator
from posediff_jax.training import load_variables, stream_key
from posediff_jax.types import Variables

_CHUNK = 256


def run(
    checkpoint: str | Path, *, num: int = 1024, weights: str = "auto", data: str = ""
) -> dict[str, float]:
    """Generates and measures.

    Args:
      checkpoint: A run's folder.
      num: Poses to generate, and at most as many unseen ones.
      weights: "auto", "ema" or "raw", see `load_variables`.
      data: Overrides `data.root` of the config.

    Returns:
      Figures in millimetres, see `plausibility`.

    Raises:
      ValueError: The data has no poses to compare with.
    """
    variables, info = load_variables(checkpoint, which=weights)
    config = ConfigDict(info.config)
    if data:
        config.data.root = data
    poses = generate(config, variables, num=num)
    real = load_test(config)
    if real.table.pose is None:
        raise ValueError("config.data: expected unseen poses to compare with, got keypoints only")
    rows = np.linspace(0, len(real.items) - 1, min(num, len(real.items))).astype(int)
    unseen = np.asarray(real.table.gather(real.items[rows]).pose)[:, 0]
    metres = plausibility(jnp.asarray(poses), jnp.asarray(unseen), get_skeleton(config.skeleton))
    figures = {name: 1000 * value for name, value in metres.items()}
    write_json(Path(checkpoint) / "plausibility.json", {"step": info.step, **figures})
    for name, value in figures.items():
        print(f"{name:>16} {value:8.1f} mm")
    return figures


def generate(config: ConfigDict, variables: Variables, *, num: int) -> NDArray:
    """Poses of the prior, `(num, J, 3)` metres; pose i depends on the seed and i alone."""
    draw = jax.jit(make_generator(config))
    keys = jax.random.split(stream_key(config.seed, "eval"), num)
    chunk = min(num, _CHUNK)
    # The last chunk overlaps the one before, so that all have one shape.
    starts = [min(first, num - chunk) for first in range(0, num, chunk)]
    poses = np.zeros((num, get_skeleton(config.skeleton).num_joints, 3), np.float32)
    for first in starts:
        poses[first : first + chunk] = draw(keys[first : first + chunk], variables)
    return poses


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    values = flags.FLAGS
    run(values.checkpoint, num=values.num, weights=values.weights, data=values.data)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "The run's folder.")
    flags.DEFINE_integer("num", 1024, "Poses to generate.")
    flags.DEFINE_enum("weights", "auto", ["auto", "ema", "raw"], "Averaged or as trained.")
    flags.DEFINE_string("data", "", "Folder of the data, if not where it was in training.")
    flags.mark_flags_as_required(["checkpoint"])
    app.run(main)
