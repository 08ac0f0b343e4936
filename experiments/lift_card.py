"""The figures of the card of `posediff-lift`'s weights: errors, size and calibration.

python -m experiments.lift_card --data=../shared/data/cmu17 [--bvh=../shared/data/cmu_raw/bvh]
    [--checkpoint=DIR] [--frames=0] [--num_hypotheses=1,10,50] [--only=val,postures]
    [--sampler=name=value ...] [--json=FILE]

Of the prior and anchors that come with the package, or of a run's prior with K-Means over its
training poses. Scores the bodies of `cmu17-val-v1` with exact and noisy keypoints, other bodies,
and procedural people in postures that motion capture of walking lacks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments.common import parse_options, start, write_json
from experiments.zedo_lifting import (
    Lifted,
    Prior,
    errors,
    kmeans,
    lift,
    load_frames,
    load_prior,
    reprojection,
    truth,
)
from experiments.zedo_tables import print_rows
from posediff_jax import assets
from posediff_jax.evaluation.calibration import coverage_error, truth_ranks
from posediff_jax.evaluation.metrics import PCK_JOINTS, pck
from posediff_jax.evaluation.oracle import best_hypothesis
from posediff_jax.geometry import root_center
from posediff_jax.samplers.body_size import skeleton_height
from posediff_jax.samplers.choose import choose_least, reprojection_and_energy
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems.zedo import make_energy
from posediff_jax.types import PoseBatch, Variables

# What `lift` changes in the published loop, see `LiftEngine`.
AS_LIFT = {"recenter": True, "fit_missing": "extent"}
POSTURES = ("sitting", "crouching", "kneeling", "leaning", "reaching")
_SKELETON = get_skeleton("h36m_17")


class Scored(NamedTuple):
    """A line of the card: the data it is about, their folder's flag, and a protocol."""

    data: Mapping[str, Any]
    folder: str
    protocol: str


_CMU17 = {"kind": "cmu17", "frames": 1}
# Other draws than the training's: test motion is that of the next seed.
_PROCEDURAL = {"kind": "procedural", "frames": 1, "procedural_kinds": POSTURES}
SCORED: Mapping[str, Scored] = {
    "val": Scored(_CMU17, "data", "cmu17-val-v1"),
    "val 5 px": Scored(_CMU17, "data", "cmu17-val-v1:noise5"),
    "scaled": Scored(_CMU17, "data", "cmu17-val-v1:scaled"),
    "scaled 5 px": Scored(_CMU17, "data", "cmu17-val-v1:scaled-noise5"),
    "bvh": Scored(_CMU17, "bvh", "cmu17-val-v1:bvh"),
    "postures": Scored(_PROCEDURAL, "", "unseen"),
    "postures 5 px": Scored({**_PROCEDURAL, "noise_px": 5.0}, "", "unseen"),
}
NOTE = (
    "mm, root-relative; chosen: by reprojection error and energy, as `lift` does; random: mean "
    "over hypotheses; ORACLE: the least error by the truth; PA aligns with reflection, as ZeDO's "
    "authors do; size: mean deviation of the chosen pose's bones from ankle to head; coverage: "
    "error of quantiles"
)


def run(
    prior: Prior,
    anchors: Mapping[int, Variables],
    folders: Mapping[str, str],
    *,
    only: Sequence[str] = (),
    frames: int = 0,
    sampler: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Lifts and scores.

    Args:
      prior: Weights and config.
      anchors: By number of hypotheses, the frozen part of the system.
      folders: "data" of `cmu17`, "bvh" of the BVH file of subject 131; what lies in a folder that
        is not given is left out.
      only: Keys of `SCORED`; empty for all.
      frames: So many frames of each, spread evenly; 0 for all.
      sampler: Fields of the section `sampler` to change.

    Returns:
      The rows of the card.

    Raises:
      ValueError: An unknown name in `only`.
    """
    unknown = sorted(set(only) - set(SCORED))
    if unknown:
        raise ValueError(f"only: expected some of {sorted(SCORED)}, got {unknown[0]!r}")
    rows = []
    for name in only or SCORED:
        data, folder, protocol = SCORED[name]
        root = folders.get(folder, "")
        if folder and not root:
            continue
        config = prior.config.copy_and_resolve_references().unlock()
        config.data = ConfigDict({**data, "root": root})
        batches = load_frames(config, protocol=protocol, frames=frames)
        for num, frozen in anchors.items():
            options = {**AS_LIFT, **(sampler or {})}
            lifted = lift(prior, batches, num_hypotheses=num, frozen=frozen, sampler=options)
            scores = lift_scores(prior, batches, lifted)
            rows.append({"scored": name, "S": num, **figures(lifted, batches, scores)})
            print_rows(rows[-1:], "")
    return rows


def lift_scores(prior: Prior, batches: list[PoseBatch], lifted: Lifted) -> jax.Array:
    """What `lift` chooses by, `(n, H, 1)`."""
    poses = jnp.asarray(lifted.samples)[:, :, None]
    energy = jax.jit(make_energy(prior.config))(jax.random.key(0), prior.variables, poses)
    return reprojection_and_energy(reprojection(batches, lifted), energy)


def figures(
    lifted: Lifted, batches: list[PoseBatch], scores: NDArray | jax.Array
) -> dict[str, float]:
    """The figures of one row; frames without an answer are left out and counted.

    Args:
      lifted: The hypotheses, H of each of n frames.
      batches: What was lifted.
      scores: The least is chosen, `(n, H, 1)`.
    """
    target = root_center(jnp.asarray(truth(batches)), root=_SKELETON.root)
    poses = jnp.asarray(lifted.samples)
    chosen = choose_least(poses[:, :, None], jnp.asarray(scores))[0]
    found, of_chosen = errors(lifted.samples, target), errors(chosen, target)
    row = {"chosen": of_chosen["mpjpe"], "random": jnp.mean(found["mpjpe"], axis=1)}
    row["ORACLE"] = best_hypothesis(found["mpjpe"])[0]
    row["PA chosen"] = of_chosen["p_mpjpe"]
    row["PA ORACLE"] = best_hypothesis(found["p_mpjpe"])[0]
    mean = {name: 1000 * float(jnp.nanmean(value)) for name, value in row.items()}
    pose = chosen[:, 0]
    joints = PCK_JOINTS[_SKELETON.name]
    ratio = skeleton_height(pose, _SKELETON) / skeleton_height(target, _SKELETON)
    mean["PCK %"] = 100 * float(jnp.nanmean(pck(pose, target, joints=joints)))
    mean["size %"] = 100 * float(jnp.nanmean(jnp.abs(ratio - 1)))
    mean["coverage %"] = 100 * _coverage_error(lifted.samples, np.asarray(target))
    mean["unsolved"] = float(jnp.isnan(row["chosen"]).sum())
    return mean


def shipped_prior(num_hypotheses: Sequence[int]) -> tuple[Prior, dict[int, Variables]]:
    """The prior and the anchors that come with the package."""
    file = assets.load_prior()
    # Only the seed of procedural people: nothing else is drawn.
    config = ConfigDict({**file.config.to_dict(), "seed": 0})
    prior = Prior("shipped", config, file.variables, np.empty((0, 17, 3)))
    return prior, {n: assets.load_anchors(n).frozen() for n in num_hypotheses}


def write_card(path: str, rows: Sequence[Mapping[str, Any]], sampler: Mapping[str, Any]) -> None:
    """The rows as JSON, which has no NaN: null where there is no figure."""
    clean = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    write_json(path, {"about": NOTE, "sampler": dict(sampler), "rows": clean})


def _coverage_error(samples: NDArray, target: NDArray) -> float:
    """Of all coordinates but the root's; NaN for one hypothesis, which has no quantiles."""
    num = samples.shape[1]
    solved = np.isfinite(samples).all(axis=(1, 2, 3))
    if num < 2 or not solved.any():
        return float("nan")
    joints = [j for j in range(samples.shape[-2]) if j != _SKELETON.root]
    ranks = truth_ranks(
        jnp.asarray(samples[solved][:, :, joints]), jnp.asarray(target[solved][:, joints])
    )
    return coverage_error(np.bincount(np.ravel(ranks), minlength=num + 1))


def main(argv: list[str]) -> None:
    """Scores what the flags name."""
    start(argv)
    values = flags.FLAGS
    numbers = [int(n) for n in values.num_hypotheses]
    anchors: dict[int, Variables]
    if values.checkpoint:
        prior = load_prior(values.checkpoint, data=values.data)
        anchors = {n: kmeans(prior, n) for n in numbers}
    else:
        prior, anchors = shipped_prior(numbers)
    options = parse_options(values.sampler)
    folders = {"data": values.data, "bvh": values.bvh}
    rows = run(prior, anchors, folders, only=values.only, frames=values.frames, sampler=options)
    print_rows(rows, f"{prior.name}: {NOTE}")
    if values.json:
        write_card(values.json, rows, options)


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_string("data", None, "Folder of `cmu17`.")
    flags.DEFINE_string("bvh", "", "Folder of the BVH file of subject 131; empty to leave it out.")
    flags.DEFINE_string("checkpoint", "", "Folder of a trained prior; empty for the shipped one.")
    flags.DEFINE_list("num_hypotheses", "1,10,50", "Each S.")
    flags.DEFINE_list("only", "", f"Some of {list(SCORED)}; empty for all.")
    flags.DEFINE_integer("frames", 0, "Score so many frames, spread evenly; 0 for all.")
    flags.DEFINE_multi_string("sampler", [], "A sampler option to change, as name=value.")
    flags.DEFINE_string("json", "", "Also write the rows to this file.")
    flags.mark_flags_as_required(["data"])


if __name__ == "__main__":
    define_flags()
    app.run(main)
