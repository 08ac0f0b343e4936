"""What ZeDO's tables share: a trained prior, its anchors, and lifted frames with their errors."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from experiments import anchors
from experiments.data import load_test
from posediff_jax.evaluation.metrics import mpjpe, p_mpjpe
from posediff_jax.evaluation.oracle import best_hypothesis
from posediff_jax.inference import make_sampler
from posediff_jax.samplers.choose import reprojection_error
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems import make_system
from posediff_jax.training import load_variables, stream_key
from posediff_jax.types import PoseBatch, Variables


class Prior(NamedTuple):
    """A trained prior.

    Attributes:
      name: For the table.
      config: Of its training.
      variables: Its weights.
      poses: What it was trained on, `(N, J, 3)`, at most 20000.
    """

    name: str
    config: ConfigDict
    variables: Variables
    poses: NDArray


class Lifted(NamedTuple):
    """Hypotheses of all scored frames.

    Attributes:
      samples: `(n, H, J, 3)`, metres.
      records: See `systems.zedo.from_config`; leaves `(n, ...)`.
      seconds: Time of all batches but for compilation.
    """

    samples: NDArray
    records: dict[str, NDArray]
    seconds: float


def load_prior(checkpoint: str | Path, *, data: str = "", weights: str = "auto") -> Prior:
    """Reads a run's weights and the poses it was trained on.

    Args:
      checkpoint: The run's folder.
      data: Overrides `data.root` of its config.
      weights: "auto", "ema" or "raw", see `load_variables`.
    """
    variables, info = load_variables(checkpoint, which=weights)
    config = ConfigDict(info.config)
    if data and config.data.root:
        config.data.root = data
    return Prior(Path(checkpoint).name, config, variables, anchors.load_poses(config))


def load_frames(
    config: ConfigDict, *, protocol: str = "", frames: int = 0, batch_size: int = 64
) -> list[PoseBatch]:
    """The scored frames of a protocol, or some of them spread evenly, in batches of one shape.

    Args:
      config: Whose data is scored.
      protocol: See `experiments.data`; empty for `default_protocol`.
      frames: How many frames; 0 for all.
      batch_size: Frames in a batch; the last batch repeats its last frame, with mask 0.
    """
    items = load_test(config, protocol)
    rows = items.items
    if 0 < frames < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, frames).astype(int)]
    batches = []
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        batch = items.table.gather(np.pad(part, (0, batch_size - len(part)), mode="edge"))
        batch.mask[len(part) :] = 0.0
        batches.append(batch)
    return batches


def kmeans(prior: Prior, num: int, *, pick: str = "member") -> dict[str, Any]:
    """The frozen part: S anchors of the poses that the prior was trained on."""
    skeleton = get_skeleton(prior.config.skeleton)
    return anchors.run(prior.poses, skeleton, num=num, pick=pick).frozen()


def lift(
    prior: Prior,
    batches: list[PoseBatch],
    *,
    num_hypotheses: int = 1,
    frozen: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    process: Mapping[str, Any] | None = None,
    timed: bool = False,
) -> Lifted:
    """Lifts frames with a prior.

    Args:
      prior: Weights and config.
      batches: From `load_frames`.
      num_hypotheses: H.
      frozen: Anchors; None for K-Means with S = H.
      sampler: Fields of the section `sampler` to change.
      process: Fields of the section `process` to change.
      timed: Compile before the clock starts, at the price of one more batch.
    """
    config = prior.config.copy_and_resolve_references().unlock()
    config.sampler.update(sampler or {})
    config.process.update(process or {})
    frozen = kmeans(prior, num_hypotheses) if frozen is None else frozen
    draw = make_sampler(make_system(config, frozen), prior.variables, num_hypotheses=num_hypotheses)
    key = stream_key(config.seed, "eval")
    if timed:
        draw(key, batches[0])
    start = time.perf_counter()
    parts = []
    for batch in batches:
        result = draw(key, batch)
        real = np.asarray(batch.mask)[:, 0] > 0
        fields = {"samples": result.samples[:, :, 0], "used": result.records["used"][:, 0]}
        fields |= {n: v[:, :, 0] for n, v in result.records.items() if n != "used"}
        parts.append({name: value[real] for name, value in fields.items()})
    joined = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return Lifted(joined.pop("samples"), joined, time.perf_counter() - start)


def truth(batches: list[PoseBatch]) -> NDArray:
    """The true poses of the frames that count, `(n, J, 3)`."""
    poses = [np.asarray(b.pose)[:, 0][np.asarray(b.mask)[:, 0] > 0] for b in batches]
    return np.concatenate(poses)


@jax.jit
def errors(samples: Any, target: Any) -> dict[str, jax.Array]:
    """MPJPE and P-MPJPE of each hypothesis, `(n, H)`, metres; the root is scored where it is.

    The alignment may mirror, as the published one does.
    """
    return {
        "mpjpe": mpjpe(samples, target[:, None]),
        "p_mpjpe": p_mpjpe(samples, target[:, None], allow_reflection=True),
    }


def least_errors(lifted: Lifted, target: NDArray) -> dict[str, float]:
    """Mean over frames of the least error over hypotheses, which USES the truth, in millimetres.

    Frames that could not be solved are left out and counted as `unsolved`.
    """
    figures: dict[str, float] = {}
    for name, values in errors(lifted.samples, target).items():
        least = np.asarray(best_hypothesis(values)[0])
        figures[name] = 1000 * float(np.nanmean(least))
        figures["unsolved"] = float(np.isnan(least).sum())
    return figures


def reprojection(batches: list[PoseBatch], lifted: Lifted) -> jax.Array:
    """The error of each hypothesis in pixels, `(n, H, 1)`, seen through the lens of its camera."""
    real = [np.asarray(b.mask)[:, 0] > 0 for b in batches]

    def join(*leaves: Any) -> Any:
        return np.concatenate([np.asarray(x)[r] for x, r in zip(leaves, real, strict=True)])

    return reprojection_error(
        jnp.asarray(lifted.samples)[:, :, None],
        jnp.asarray(lifted.records["translation"])[:, :, None],
        jax.tree.map(join, *(b.camera for b in batches)),
        join(*(b.keypoints_px for b in batches)),
        confidence=join(*(b.confidence for b in batches)),
    )
