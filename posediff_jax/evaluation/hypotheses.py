"""Scores hypotheses frame by frame: rules that make one pose of many, metrics, calibration."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from posediff_jax.camera import intrinsics_vector
from posediff_jax.data.scored import ScoredItems
from posediff_jax.evaluation import metrics, oracle, protocols
from posediff_jax.evaluation.calibration import coverage_error, crps, energy_score, truth_ranks
from posediff_jax.evaluation.coherence import segment_std, symmetry_gap
from posediff_jax.evaluation.levels import level_errors
from posediff_jax.geometry import procrustes_align
from posediff_jax.samplers.aggregate import (
    joint_spread,
    mean_pose,
    medoid_pose,
    reprojection_pose,
)
from posediff_jax.skeleton import RELEASED_SEGMENTS, Skeleton
from posediff_jax.types import Array, PoseBatch

# Rules that give a pose, and what each needs beside the keypoints.
RULES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "first": (),
        "mean": (),
        "medoid": (),
        "j_agg": ("camera",),
        # As published; that of "j_agg" is estimated.
        "j_agg_true_root": ("camera", "ground-truth root"),
        "p_best": oracle.NEEDS,
        # As released: one hypothesis for all scored frames of a few windows of a sequence.
        "p_best_batch": oracle.NEEDS,
        "j_best": oracle.NEEDS,
    }
)
# Metrics of one frame; the velocity error is added from frames that follow each other.
FRAME_METRICS: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {
        "mpjpe": metrics.mpjpe,
        "rerooted_mpjpe": metrics.rerooted_mpjpe,
        "p_mpjpe": metrics.p_mpjpe,
        "n_mpjpe": metrics.n_mpjpe,
        "pck": metrics.pck,
        "auc": metrics.auc,
    }
)
_SHARES = ("pck", "auc")


class FrameScores(NamedTuple):
    """Figures of every scored frame, in the order of the sequences.

    Attributes:
      values: By rule, then metric: `(n,)`, metres or shares. PCK and AUC are over the 14 joints of
        `metrics.PCK_JOINTS` where the skeleton has them. P-MPJPE aligns the pose of the rule; with
        "prealigned_p_mpjpe", as published for J-Agg and J-Best, each hypothesis is aligned before
        joints are mixed (for rules that mix none they are the same). A velocity error is NaN where
        nobody asked for the frame before (windows of one frame, unless that is scored too; the
        first frame). The deviation of segments is that of a whole window in each of its frames, NaN
        where a window runs over the end of its sequence or has a single frame.
      spread: Root mean square distance of the hypotheses to their mean, mean over joints, `(n,)`,
        metres.
      crps: Mean over coordinates of all joints but the root, `(n,)`, metres.
      energy: Energy score, mean over all joints but the root, `(n,)`, metres.
      rank_counts: How often each of the ranks 0 ... H occurs (`truth_ranks`), `(H + 1,)`.
      sequence: Sequence of each frame, `(n,)`.
      frame: Number of each frame in its sequence, `(n,)`.
      subject: Subject number of each frame, `(n,)`.
      action: Action number of each frame, `(n,)`.
      levels: By rule, the error of the joints of each level of the tree, `(n, L)`, metres; see
        `level_errors`.
      shared: Windows of a sequence that share a hypothesis of "p_best_batch"; 0 where that is not
        known.
      official: Of the protocol "diffupose_official", whose N-MPJPE has a scale for each axis, see
        `protocols.n_mpjpe_per_axis`.
    """

    values: dict[str, dict[str, NDArray]]
    spread: NDArray
    crps: NDArray
    energy: NDArray
    rank_counts: NDArray[np.int64]
    sequence: NDArray[np.int64]
    frame: NDArray[np.int64]
    subject: NDArray[np.int64]
    action: NDArray[np.int64]
    levels: Mapping[str, NDArray] = MappingProxyType({})
    shared: int = 0
    official: bool = False

    @property
    def num_hypotheses(self) -> int:
        """H."""
        return len(self.rank_counts) - 1

    @property
    def num_failed(self) -> dict[str, int]:
        """By rule the scored frames that it has no finite answer for; its averages lack them."""
        return {
            rule: int((~np.isfinite(found["mpjpe"])).sum()) for rule, found in self.values.items()
        }

    def calibration(self) -> dict[str, float]:
        """Coverage error, CRPS and energy score in metres, rank correlation of spread and error.

        The correlation is Spearman's, of the spread and the MPJPE of the mean pose over frames;
        NaN where all hypotheses are alike. The coverage error is NaN for a single hypothesis.
        Frames without an answer are left out.

        Raises:
          ValueError: No frame has finite hypotheses.
        """
        answered = np.isfinite(self.values["mean"]["mpjpe"])
        if not answered.any():
            raise ValueError("values: expected a frame with finite hypotheses, got none")
        error, spread = self.values["mean"]["mpjpe"][answered], self.spread[answered]
        varies = np.ptp(spread) > 0 and np.ptp(error) > 0
        several = self.num_hypotheses > 1
        return {
            # One hypothesis has no quantiles.
            "coverage_error": coverage_error(self.rank_counts) if several else float("nan"),
            "crps": float(self.crps[answered].mean()),
            "energy_score": float(self.energy[answered].mean()),
            "spread": float(spread.mean()),
            "spread_error_correlation": (
                float(spearmanr(spread, error).statistic) if varies else float("nan")
            ),
        }


def score_items(
    items: ScoredItems, sampled: Iterable[NDArray], *, batch_size: int, official: bool = False
) -> FrameScores:
    """Scores the hypotheses of every scored frame.

    Args:
      items: What is scored; poses must be known.
      sampled: For each of `items.batches(batch_size)` in order the hypotheses `(B, H, F, J, 3)`,
        metres; a batch may have gaps (`items.rows`). May be a generator: one batch is in memory at
        a time.
      batch_size: B. Nothing depends on it, unless it is below `items.shared`: so many windows share
        a hypothesis of "p_best_batch".
      official: Apply `protocols.diffupose_official` first, which USES the true depth of the root,
        and measure N-MPJPE as its authors' code does.

    Returns:
      Figures of the rules of `RULES`, but for "j_agg_true_root" where the root is not known.

    Raises:
      ValueError: Poses or (for `official`) roots are not known, `official` for hidden joints, or
        the batches of hypotheses are not as many and as large as those of items.
    """
    occlusion = items.table.occlusion
    if official and occlusion is not None and occlusion.hides:
        raise ValueError(
            "official: takes x and y of every joint from the keypoints, and some are hidden "
            f"({occlusion.pattern!r})"
        )
    if items.table.pose is None or (official and items.table.root is None):
        raise ValueError("items: expected sequences whose pose and root are known")
    parts, counts, scored = [], [], []
    hypotheses_of = iter(sampled)
    groups = items.groups(batch_size)
    batches = zip(items.rows(batch_size), items.batches(batch_size), strict=True)
    for number, ((rows, inside), (batch, frames)) in enumerate(batches):
        hypotheses = next(hypotheses_of, None)
        if hypotheses is None:
            raise ValueError(f"sampled: expected one array for each batch, got {number}")
        if len(hypotheses) != batch_size:
            raise ValueError(
                f"sampled: expected {batch_size} items in a batch, got {np.shape(hypotheses)}"
            )
        scores = _score_batch(
            hypotheses,
            batch,
            frames,
            groups[rows] - groups[rows[0]],
            official=official,
            skeleton=items.skeleton,
        )
        ranks, scores = scores["ranks"], {k: v for k, v in scores.items() if k != "ranks"}
        kept = frames | (items.before[rows] & inside[:, None])
        scored.append(frames[kept])
        parts.append(jax.tree.map(lambda x, keep=kept: np.asarray(x)[keep], scores))
        num_ranks = hypotheses.shape[1] + 1
        # A frame without an answer (NaN) has no ranks.
        answered = frames & np.isfinite(hypotheses).all(axis=(1, 3, 4))
        counts.append(np.bincount(np.asarray(ranks)[answered].ravel(), minlength=num_ranks))
    if next(hypotheses_of, None) is not None:
        raise ValueError(f"sampled: expected {len(parts)} batches, one for each of items, got more")
    joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    sequence, frame = _places(items)
    values = {rule: dict(found) for rule, found in joined["values"].items()}
    follows = (np.diff(sequence) == 0) & (np.diff(frame) == 1)
    for rule, velocity in _velocity_errors(joined["poses"], joined["target"], follows).items():
        values[rule]["mpjve"] = velocity
    # From here on without the frames that only velocities needed.
    counted = np.concatenate(scored)
    ordered = {rule: values[rule] for rule in RULES if rule in values}
    whole = {"values": ordered, "at": (sequence, frame)}
    for name in ("levels", "spread", "crps", "energy"):
        whole[name] = joined[name]
    found = jax.tree.map(lambda x: x[counted], whole)
    sequence, frame = found["at"]
    codes = (
        np.asarray(c, np.int64)[items.sequence] for c in (items.table.subject, items.table.action)
    )
    per_window = items.frames.sum(axis=1)
    subject, action = (np.repeat(c, per_window) for c in codes)
    return FrameScores(
        values=found["values"],
        spread=found["spread"],
        crps=found["crps"],
        energy=found["energy"],
        rank_counts=np.sum(counts, axis=0),
        sequence=sequence,
        frame=frame,
        subject=subject,
        action=action,
        levels=found["levels"],
        shared=min(items.shared, batch_size),
        official=official,
    )


@partial(jax.jit, static_argnames=("official", "skeleton"))
def _score_batch(
    hypotheses: Array,
    batch: PoseBatch,
    scored: Array,
    group: Array,
    *,
    official: bool,
    skeleton: Skeleton,
) -> dict[str, Any]:
    """Figures `(B, F)` of each rule and metric, chosen poses `(B, F, J, 3)`, ranks."""
    target, root = jnp.asarray(batch.pose), skeleton.root
    joints = metrics.PCK_JOINTS.get(skeleton.name)
    frame_metrics = dict(FRAME_METRICS) | {
        "rerooted_mpjpe": partial(metrics.rerooted_mpjpe, root=root),
        "pck": partial(metrics.pck, joints=joints),
        "auc": partial(metrics.auc, joints=joints),
    }
    # A joint that nobody saw lies anywhere: it may not choose.
    seen = (jnp.asarray(batch.confidence) > 0).astype(hypotheses.dtype)
    if official:
        hypotheses = _official(hypotheses, batch)
        frame_metrics["n_mpjpe"] = protocols.n_mpjpe_per_axis
    view = (batch.keypoints_px, batch.camera)
    # With the root that fits the mean pose, not the true one as published.
    mixed = {"j_agg": reprojection_pose(hypotheses, *view, confidence=seen)}
    if batch.root is not None:
        mixed["j_agg_true_root"] = reprojection_pose(
            hypotheses, *view, root=batch.root, confidence=seen, clamp=1.0
        )
    poses = {
        "first": hypotheses[:, 0],
        "mean": mean_pose(hypotheses),
        "medoid": medoid_pose(hypotheses)[0],
        **{rule: pose for rule, (pose, _) in mixed.items()},
        "j_best": oracle.best_joints(hypotheses, target)[0],
    }
    truth = target[:, None]
    aligned = metrics.joint_error(procrustes_align(hypotheses, truth), truth)
    by_metric = {
        name: metric(hypotheses, truth)
        for name, metric in frame_metrics.items()
        if name != "p_mpjpe"
    }
    by_metric["p_mpjpe"] = by_metric["prealigned_p_mpjpe"] = jnp.mean(aligned, axis=-1)
    least = oracle.best_hypothesis(by_metric["mpjpe"])[1]
    best = {name: _best_of_groups(v, scored, group, name) for name, v in by_metric.items()}
    poses["p_best"] = oracle.take_hypothesis(hypotheses, least)
    poses["p_best_batch"] = _take(hypotheses, best["mpjpe"])
    # All rules at once: one compilation of each metric.
    every = jnp.stack([*poses.values()])
    figures = {name: metric(every, target) for name, metric in frame_metrics.items()}
    figures["prealigned_p_mpjpe"] = figures["p_mpjpe"]
    figures |= _coherence(every, batch.mask, skeleton)
    levels = level_errors(every, target, skeleton)
    values = {rule: {k: v[i] for k, v in figures.items()} for i, rule in enumerate(poses)}
    # Each metric has its own best hypothesis; shares are best where they are large.
    values["p_best"] |= {
        name: jnp.max(v, axis=1) if name in _SHARES else oracle.best_hypothesis(v)[0]
        for name, v in by_metric.items()
    }
    values["p_best_batch"] |= {name: _take(v, best[name]) for name, v in by_metric.items()}
    for rule, error in _prealigned(aligned, {r: index for r, (_, index) in mixed.items()}).items():
        values[rule]["prealigned_p_mpjpe"] = error
    others = np.delete(np.arange(target.shape[-2]), root)
    free, true = hypotheses[..., others, :], target[..., others, :]
    return {
        "values": values,
        "poses": poses,
        "target": target,
        "levels": dict(zip(poses, levels, strict=True)),
        "spread": joint_spread(hypotheses).mean(axis=-1),
        "crps": crps(free, true).mean(axis=(-2, -1)),
        "energy": energy_score(free, true).mean(axis=-1),
        "ranks": truth_ranks(free, true),
    }


def _best_of_groups(values: Array, scored: Array, group: Array, metric: str) -> Array:
    """Which hypothesis is best for the scored frames of each group, by `(B, H, F)` figures."""
    # A frame that a hypothesis has no answer for would rule it out for all others.
    counted = scored & jnp.all(jnp.isfinite(values), axis=1)
    losses = -values if metric in _SHARES else values
    return oracle.best_of_groups(losses, group, counted)


def _take(values: Array, index: Array) -> Array:
    """`(B, H, ...)` and one hypothesis for each item `(B,)` to `(B, ...)`."""
    return values[jnp.arange(len(values)), index]


def _prealigned(errors: Array, chosen: Mapping[str, Array]) -> dict[str, Array]:
    """P-MPJPE of rules that mix joints as published, `(B, F)`.

    Args:
      errors: Of the joints of aligned hypotheses, `(B, H, F, J)`.
      chosen: By rule the hypothesis of each joint, `(B, F, J)`; "j_best" finds its own.
    """
    found = {
        rule: jnp.take_along_axis(errors, index[:, None], axis=1)[:, 0]
        for rule, index in chosen.items()
    }
    # The nearest after alignment, not before it.
    found["j_best"] = oracle.best_hypothesis(errors)[0]
    return {rule: jnp.mean(values, axis=-1) for rule, values in found.items()}


def _coherence(poses: Array, mask: Array, skeleton: Skeleton) -> dict[str, Array]:
    """Figures `(..., B, F)` by both lists of segments; NaN where there is no such list."""
    figures = {}
    # A shorter window would seem steadier than it is.
    whole = jnp.all(jnp.asarray(mask) > 0, axis=1, keepdims=True) & (poses.shape[-3] > 1)
    for bones, suffix in (("official", ""), ("anatomical", "_anatomical")):
        gap = steadiness = jnp.full(poses.shape[:-2], jnp.nan, poses.dtype)
        if bones == "anatomical" or skeleton.name in RELEASED_SEGMENTS:
            gap = symmetry_gap(poses, skeleton, bones=bones)
            deviation = segment_std(poses, skeleton, bones=bones)[..., None]
            steadiness = jnp.where(whole, deviation, jnp.full_like(gap, jnp.nan))
        figures[f"symmetry_gap{suffix}"] = gap
        figures[f"segment_std{suffix}"] = steadiness
    return figures


def _official(hypotheses: Array, batch: PoseBatch) -> Array:
    """The post-processing of DiffuPose's test code on each hypothesis; it is linear in z."""
    intrinsics = intrinsics_vector(batch.camera)[:, None]

    def one(pose: Array) -> Array:
        depth = jnp.asarray(batch.root)[..., 2]
        return protocols.diffupose_official(
            pose, batch.keypoints, depth, jnp.broadcast_to(intrinsics, (*depth.shape, 9))
        )

    return jax.vmap(one, in_axes=1, out_axes=1)(hypotheses)


def _places(items: ScoredItems) -> tuple[NDArray, NDArray]:
    """Sequence and number of each frame whose answer is used."""
    window, offset = np.nonzero(items.frames | items.before)
    return items.sequence[window], items.start[window] + offset


def _velocity_errors(
    poses: Mapping[str, NDArray], target: NDArray, follows: NDArray[np.bool_]
) -> dict[str, NDArray]:
    """Error of the step from the frame before, `(n,)`; NaN where that frame is another's."""
    errors = {}
    for rule, pose in poses.items():
        step = np.diff(pose, axis=0) - np.diff(target, axis=0)
        error = np.linalg.norm(step, axis=-1).mean(axis=-1)
        errors[rule] = np.concatenate([[np.nan], np.where(follows, error, np.nan)])
    return errors
