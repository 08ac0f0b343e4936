"""Turns a trained prior and its anchors into the files that come with the package.

python -m experiments.export_assets --checkpoint=runs/zedo_prior_cmu \
    --anchors=runs/anchors_1.npz,runs/anchors_10.npz,runs/anchors_50.npz \
    [--output=posediff_jax/assets] [--weights=auto] [--sampler=num_iterations=200 ...]

The prior is kept in half precision; what that costs is printed. `configs/zedo_prior_cmu.py` has the
whole recipe.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from ml_collections import ConfigDict

from experiments.common import parse_options, start
from posediff_jax.assets import ANCHORS, PRIOR
from posediff_jax.data import read_anchors, write_anchors
from posediff_jax.prior_file import read_prior, write_prior
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems.zedo import make_energy
from posediff_jax.training import load_variables

MOST_BYTES = 8_000_000


def run(
    checkpoint: str | Path,
    anchors: Sequence[str | Path],
    *,
    output: str | Path = "posediff_jax/assets",
    weights: str = "auto",
    sampler: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes prior and anchors.

    Args:
      checkpoint: A run's folder.
      anchors: Files by `experiments.anchors`, one for each size in `assets.ANCHORS`.
      output: The folder of the package's assets.
      weights: "auto", "ema" or "raw", see `load_variables`.
      sampler: Fields of the section `sampler` to change.

    Returns:
      The files.

    Raises:
      ValueError: Another system than "zedo", another number of anchors, or a prior that is larger
        than 8 MB.
    """
    variables, info = load_variables(checkpoint, which=weights)
    config = ConfigDict(info.config)
    if config.system != "zedo":
        raise ValueError(f"checkpoint: expected a prior of 'zedo', got {config.system!r}")
    config.sampler.update(sampler or {})
    skeleton = get_skeleton(config.skeleton)
    read = {len(a.poses): a for a in (read_anchors(path, skeleton) for path in anchors)}
    if set(read) != set(ANCHORS):
        raise ValueError(
            f"anchors: expected one file for each of {sorted(ANCHORS)}, got {sorted(read)} anchors"
        )
    output = Path(output)
    file = output / PRIOR
    source = f"{config.data.kind} training poses, step {info.step}"
    if config.data.get("procedural_clips", 0):
        source += f", {config.data.procedural_clips} procedural clips"
    write_prior(file, variables, config, source=source)
    if file.stat().st_size > MOST_BYTES:
        size = file.stat().st_size
        file.unlink()
        raise ValueError(f"checkpoint: expected at most {MOST_BYTES} bytes of weights, got {size}")
    poses = jnp.asarray(read[max(ANCHORS)].poses)
    energy, key = make_energy(config), jax.random.key(0)
    exact, half = (energy(key, v, poses) for v in (variables, read_prior(file).variables))
    change = float(jnp.max(jnp.abs(half / exact - 1)))
    print(f"{file}: {file.stat().st_size} bytes; half precision changes energies by {change:.2e}")
    for size, found in read.items():
        write_anchors(output / ANCHORS[size], found)
        print(f"{output / ANCHORS[size]}: {found.source}")
    return [file, *(output / ANCHORS[size] for size in sorted(ANCHORS))]


def main(argv: list[str]) -> None:
    """Parses flags and runs."""
    start(argv)
    given = flags.FLAGS
    run(
        given.checkpoint,
        given.anchors,
        output=given.output,
        weights=given.weights,
        sampler=parse_options(given.sampler),
    )


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_string("checkpoint", None, "The run's folder.")
    flags.DEFINE_list("anchors", None, "Files by experiments.anchors.")
    flags.DEFINE_string("output", "posediff_jax/assets", "The folder of the package's assets.")
    flags.DEFINE_enum("weights", "auto", ["auto", "ema", "raw"], "Averaged or as trained.")
    flags.DEFINE_multi_string("sampler", [], "A sampler option to change, name=value.")
    flags.mark_flags_as_required(["checkpoint", "anchors"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
