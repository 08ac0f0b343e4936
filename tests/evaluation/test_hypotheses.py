"""Scored frames: rules, metrics and velocity against NumPy, whatever the batches."""

import dataclasses

import numpy as np
import pytest

from posediff_jax.camera import intrinsics_vector
from posediff_jax.data import ScoredViews, procedural_motion, scored_items, virtual_views
from posediff_jax.data.occlusion import Occlusion
from posediff_jax.evaluation import metrics
from posediff_jax.evaluation.coherence import segment_std, symmetry_gap
from posediff_jax.evaluation.hypotheses import RULES, score_items
from posediff_jax.evaluation.protocols import diffupose_official, n_mpjpe_per_axis
from posediff_jax.geometry import procrustes_align
from posediff_jax.samplers.aggregate import reprojection_pose
from posediff_jax.skeleton import H36M_17

VIEWS = virtual_views(1, procedural_motion(1, num_clips=3, frames=6), H36M_17)
COUNT = 4


def scored(step):
    flags = tuple(np.arange(s.num_frames) % step == 0 for s in VIEWS.sequences)
    return ScoredViews(VIEWS, flags)


def hypotheses_of(poses):
    """Truth plus noise that depends on the pose alone, `(B, H, F, J, 3)`."""
    poses = np.asarray(poses)[:, None]
    waves = np.sin(1e3 * poses * np.arange(1, COUNT + 1).reshape(1, -1, 1, 1, 1))
    return (poses + 0.02 * waves).astype(np.float32)


def run(step=1, length=1, batch_size=4, **options):
    items = scored_items(scored(step), length=length)
    sampled = (hypotheses_of(batch.pose) for batch, _ in items.batches(batch_size))
    return score_items(items, sampled, batch_size=batch_size, **options)


@pytest.fixture(scope="module")
def scores():
    return run()


def of_frames(scores):
    """Without the rule that depends on the batch."""
    return {rule: v for rule, v in scores.values.items() if rule != "p_best_batch"}


TRUTH = np.concatenate([s.pose for s in VIEWS.sequences])
SAMPLES = hypotheses_of(TRUTH[:, None])[:, :, 0]
ERRORS = np.linalg.norm(SAMPLES - TRUTH[:, None], axis=-1).mean(axis=-1)


def test_places(scores):
    assert scores.sequence.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert scores.frame.tolist() == [*range(6)] * 3
    legend = {name: i for i, name in enumerate(VIEWS.actions)}
    expected = np.repeat([legend[s.action] for s in VIEWS.sequences], 6)
    np.testing.assert_array_equal(scores.action, expected)
    assert scores.num_hypotheses == COUNT


def test_rules(scores):
    mpjpe = {rule: values["mpjpe"] for rule, values in scores.values.items()}
    assert set(mpjpe) == set(RULES)
    np.testing.assert_allclose(mpjpe["first"], ERRORS[:, 0], atol=1e-6)
    mean = np.linalg.norm(SAMPLES.mean(axis=1) - TRUTH, axis=-1).mean(axis=-1)
    np.testing.assert_allclose(mpjpe["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(mpjpe["p_best"], ERRORS.min(axis=1), atol=1e-6)
    distances = np.linalg.norm(SAMPLES[:, :, None] - SAMPLES[:, None], axis=-1).mean(axis=-1)
    medoid = distances.sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(mpjpe["medoid"], ERRORS[np.arange(18), medoid], atol=1e-6)
    joints = np.linalg.norm(SAMPLES - TRUTH[:, None], axis=-1).min(axis=1).mean(axis=-1)
    np.testing.assert_allclose(mpjpe["j_best"], joints, atol=1e-6)
    batch = scored_items(scored(1)).table.gather(np.arange(18))
    pose, _ = reprojection_pose(SAMPLES[:, :, None], batch.keypoints_px, batch.camera)
    joint_wise = np.linalg.norm(np.asarray(pose)[:, 0] - TRUTH, axis=-1).mean(axis=-1)
    np.testing.assert_allclose(mpjpe["j_agg"], joint_wise, atol=1e-5)


def test_the_published_joint_wise_rule_stands_at_the_true_root(scores):
    batch = scored_items(scored(1)).table.gather(np.arange(18))
    pose, _ = reprojection_pose(
        SAMPLES[:, :, None], batch.keypoints_px, batch.camera, root=batch.root, clamp=1.0
    )
    error = np.linalg.norm(np.asarray(pose)[:, 0] - TRUTH, axis=-1).mean(axis=-1)
    found = scores.values["j_agg_true_root"]["mpjpe"]
    np.testing.assert_allclose(found, error, atol=1e-5)
    assert np.abs(found - scores.values["j_agg"]["mpjpe"]).max() > 1e-4


def test_mixed_joints_of_hypotheses_that_were_aligned_first(scores):
    """As published for J-Best and J-Agg; whole poses have one P-MPJPE."""
    aligned = np.asarray(procrustes_align(SAMPLES, TRUTH[:, None]))
    error = np.linalg.norm(aligned - TRUTH[:, None], axis=-1)
    batch = scored_items(scored(1)).table.gather(np.arange(18))
    _, index = reprojection_pose(SAMPLES[:, :, None], batch.keypoints_px, batch.camera)
    by_rule = {
        "j_best": error.min(axis=1),
        "j_agg": np.take_along_axis(error, np.asarray(index), axis=1)[:, 0],
    }
    for rule, values in scores.values.items():
        found = values["prealigned_p_mpjpe"]
        if rule in by_rule:
            np.testing.assert_allclose(found, by_rule[rule].mean(axis=-1), atol=1e-5)
            assert np.abs(found - values["p_mpjpe"]).max() > 1e-4
        elif rule != "j_agg_true_root":
            np.testing.assert_array_equal(found, values["p_mpjpe"])


@pytest.mark.parametrize("batch_size", [4, 7, 18])
def test_one_hypothesis_for_a_few_windows_of_a_sequence(batch_size):
    """As released: four, then two, whatever is sampled at once; each metric chooses for itself."""
    scores = run(batch_size=batch_size)
    by_metric = {
        "mpjpe": ERRORS,
        "p_mpjpe": np.asarray(metrics.p_mpjpe(SAMPLES, TRUTH[:, None])),
        "auc": np.asarray(
            metrics.auc(SAMPLES, TRUTH[:, None], joints=metrics.PCK_JOINTS["h36m_17"])
        ),
    }
    for name, values in by_metric.items():
        parts = np.split(values, [4, 6, 10, 12, 16])
        best = np.argmax if name == "auc" else np.argmin
        expected = np.concatenate([p[:, best(p.mean(axis=0))] for p in parts])
        found = scores.values["p_best_batch"][name]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    every = scores.values["p_best"]["mpjpe"]
    assert scores.values["p_best_batch"]["mpjpe"].mean() > every.mean()
    assert scores.shared == 4


def test_fewer_windows_share_a_hypothesis_where_fewer_are_sampled_at_once():
    scores = run(batch_size=3)
    expected = [part[:, part.mean(axis=0).argmin()] for part in np.split(ERRORS, 6)]
    found = scores.values["p_best_batch"]["mpjpe"]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
    assert scores.shared == 3


def test_a_broken_frame_does_not_rule_a_hypothesis_out_for_its_group():
    items = scored_items(scored(1))._replace(shared=6)

    def draw(pose):
        found = hypotheses_of(pose)
        found[:, 1:] += 0.1
        found[0, 0] = np.nan
        return found

    sampled = (draw(b.pose) for b, _ in items.batches(6))
    error = score_items(items, sampled, batch_size=6).values["p_best_batch"]["mpjpe"]
    assert np.flatnonzero(np.isnan(error)).tolist() == [0, 6, 12]
    assert np.nanmax(error) < 0.05


def test_the_oracle_of_each_metric_has_its_own_best(scores):
    aligned = np.asarray(metrics.p_mpjpe(SAMPLES, TRUTH[:, None]))
    np.testing.assert_allclose(scores.values["p_best"]["p_mpjpe"], aligned.min(axis=1), atol=1e-6)
    joints = [j for j in range(17) if j not in (0, 7, 9)]  # without pelvis, spine and head centre
    share = np.asarray(metrics.auc(SAMPLES, TRUTH[:, None], joints=joints))
    np.testing.assert_allclose(scores.values["p_best"]["auc"], share.max(axis=1), atol=1e-6)


def test_velocity_needs_the_frame_before(scores):
    velocity = scores.values["mean"]["mpjve"]
    assert np.flatnonzero(np.isnan(velocity)).tolist() == [0, 6, 12]
    error = np.diff(SAMPLES.mean(axis=1) - TRUTH, axis=0)
    expected = np.linalg.norm(error, axis=-1).mean(axis=-1)
    known = ~np.isnan(velocity)
    np.testing.assert_allclose(velocity[known], expected[known[1:]], atol=1e-6)
    assert np.isnan(run(step=2).values["mean"]["mpjve"]).all()


@pytest.mark.parametrize(("length", "batch_size"), [(4, 3), (3, 4)])
def test_in_windows_every_scored_frame_has_a_velocity_but_the_first(scores, length, batch_size):
    found = run(step=2, length=length, batch_size=batch_size)
    even = scores.frame % 2 == 0
    assert found.frame.tolist() == scores.frame[even].tolist()
    for rule, values in of_frames(scores).items():
        for name, value in values.items():
            if name.startswith("segment_std"):
                continue  # that of a window: single frames have none
            np.testing.assert_allclose(
                found.values[rule][name], value[even], atol=1e-5, err_msg=name
            )
        np.testing.assert_allclose(found.levels[rule], scores.levels[rule][even], atol=1e-5)
    np.testing.assert_allclose(found.spread, scores.spread[even], atol=1e-6)
    assert found.rank_counts.sum() == 9 * 16 * 3


def test_levels_are_bones_from_the_root(scores):
    """Counted by hand on Human3.6M: hips and spine, knees and thorax, and so on."""
    error = np.linalg.norm(SAMPLES.mean(axis=1) - TRUTH, axis=-1)
    by_hand = ([1, 4, 7], [2, 5, 8], [3, 6, 9, 11, 14], [10, 12, 15], [13, 16])
    expected = np.stack([error[:, joints].mean(axis=1) for joints in by_hand], axis=1)
    np.testing.assert_allclose(scores.levels["mean"], expected, atol=1e-6)
    assert set(scores.levels) == set(RULES)


@pytest.mark.parametrize(("length", "batch_size"), [(1, 18), (1, 5), (4, 2), (6, 3)])
def test_windows_and_batches_do_not_matter(scores, length, batch_size):
    other = run(length=length, batch_size=batch_size)
    for rule, values in of_frames(scores).items():
        for name, value in values.items():
            # The deviation of segments is that of a window.
            if not name.startswith("segment_std"):
                np.testing.assert_allclose(other.values[rule][name], value, atol=1e-5, err_msg=name)
    for field in ("spread", "crps", "energy", "rank_counts", "sequence", "frame", "action"):
        np.testing.assert_allclose(getattr(other, field), getattr(scores, field), atol=1e-6)


def test_calibration_leaves_the_root_out(scores):
    assert scores.rank_counts.sum() == 18 * 16 * 3
    below = (SAMPLES[..., 1:, :] < TRUTH[:, None, 1:]).sum(axis=1)
    np.testing.assert_array_equal(scores.rank_counts, np.bincount(below.ravel(), minlength=5))
    figures = scores.calibration()
    assert figures["spread"] == pytest.approx(
        np.sqrt(SAMPLES.var(axis=1).sum(axis=-1)).mean(), rel=1e-4
    )
    assert -1 <= figures["spread_error_correlation"] <= 1


def test_spread_that_follows_the_error_is_seen():
    items = scored_items(scored(1))
    rng = np.random.default_rng(0)

    def draw(pose):
        size = rng.uniform(0.001, 0.2, (len(pose), 1, 1, 1, 1))
        return pose[:, None] + size * rng.normal(size=(len(pose), 5, *pose.shape[1:]))

    sampled = (draw(np.asarray(b.pose)).astype(np.float32) for b, _ in items.batches(4))
    found = score_items(items, sampled, batch_size=4).calibration()
    assert found["spread_error_correlation"] > 0.9


def test_equal_hypotheses_have_no_correlation():
    items = scored_items(scored(1))
    sampled = (np.repeat(np.asarray(b.pose)[:, None] * 0.9, 2, axis=1) for b, _ in items.batches(4))
    found = score_items(items, sampled, batch_size=4).calibration()
    assert np.isnan(found["spread_error_correlation"])


def test_frames_without_an_answer_are_counted_and_left_out():
    items = scored_items(scored(1))

    def draw(pose):
        found = hypotheses_of(pose)
        found[0, 1] = np.nan
        return found

    found = score_items(items, (draw(b.pose) for b, _ in items.batches(6)), batch_size=6)
    assert found.num_failed["mean"] == 3
    assert {found.num_failed[rule] for rule in ("first", "medoid", "p_best", "j_best")} == {0}
    assert found.rank_counts.sum() == 15 * 16 * 3
    assert all(np.isfinite(value) for value in found.calibration().values())
    nothing = (np.full_like(hypotheses_of(b.pose), np.nan) for b, _ in items.batches(6))
    with pytest.raises(ValueError, match="values: expected a frame with finite hypotheses"):
        score_items(items, nothing, batch_size=6).calibration()


@pytest.mark.parametrize("suffix", ["", "_anatomical"])
def test_coherence_of_whole_windows(suffix):
    """Windows of 4 frames: the last two frames of each sequence are in one that runs over."""
    values = run(step=2, length=4, batch_size=4).values["mean"]
    bones = "anatomical" if suffix else "official"
    poses = SAMPLES.mean(axis=1).reshape(3, 6, 17, 3)
    gap = np.asarray(symmetry_gap(poses, H36M_17, bones=bones))[:, ::2]
    np.testing.assert_allclose(values[f"symmetry_gap{suffix}"], gap.ravel(), atol=1e-6)
    deviation = np.asarray(segment_std(poses[:, :4], H36M_17, bones=bones))
    expected = np.stack([deviation, deviation, np.full(3, np.nan)], axis=1)
    np.testing.assert_allclose(values[f"segment_std{suffix}"], expected.ravel(), atol=1e-6)


def test_one_frame_has_no_deviation_of_segments(scores):
    assert np.isnan(scores.values["mean"]["segment_std"]).all()


def test_rerooted_error(scores):
    pose = SAMPLES.mean(axis=1)
    moved = pose - pose[:, :1]
    expected = np.linalg.norm(moved - TRUTH, axis=-1).mean(axis=-1)
    np.testing.assert_allclose(scores.values["mean"]["rerooted_mpjpe"], expected, atol=1e-6)


@pytest.mark.slow
def test_a_hidden_joint_does_not_choose():
    """J-Agg gives it the hypothesis that fits the joints that are seen; the root is not known."""
    items = scored_items(scored(1), length=6, occlusion=Occlusion("random", 0.5))
    items = items._replace(table=dataclasses.replace(items.table, root=None))
    batch, _ = next(items.batches(3))
    hypotheses = hypotheses_of(batch.pose)
    values = score_items(items, [hypotheses], batch_size=3).values
    assert set(RULES) - set(values) == {"j_agg_true_root"}
    found = values["j_agg"]["mpjpe"]
    seen = (batch.confidence > 0).astype(np.float32)
    assert 0.3 < seen.mean() < 0.7
    pose, _ = reprojection_pose(hypotheses, batch.keypoints_px, batch.camera, confidence=seen)
    expected = np.linalg.norm(np.asarray(pose) - batch.pose, axis=-1).mean(axis=-1)
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-5)
    with pytest.raises(ValueError, match=r"official: .* some are hidden \('random'\)"):
        score_items(items, [hypotheses], batch_size=3, official=True)


def test_official_uses_the_depth_of_the_root():
    scores = run(official=True)
    sequence = VIEWS.sequences[0]
    size = sequence.camera.image_size
    poses = diffupose_official(
        SAMPLES[:6].mean(axis=1),
        2 * sequence.keypoints_px / size[0] - size / size[0],
        sequence.root[:, 2],
        np.broadcast_to(intrinsics_vector(sequence.camera), (6, 9)),
    )
    expected = np.linalg.norm(np.asarray(poses) - TRUTH[:6], axis=-1).mean(axis=-1)
    np.testing.assert_allclose(scores.values["mean"]["mpjpe"][:6], expected, atol=1e-4)
    # The authors' code scales each axis by itself.
    expected = n_mpjpe_per_axis(poses, TRUTH[:6])
    np.testing.assert_allclose(scores.values["mean"]["n_mpjpe"][:6], expected, atol=1e-4)
    assert scores.official


def test_errors():
    items = scored_items(scored(1))
    with pytest.raises(ValueError, match="sampled: expected one array for each batch, got 0"):
        score_items(items, [], batch_size=4)
    hidden = items._replace(table=items.table.__class__(**{**vars(items.table), "pose": None}))
    with pytest.raises(ValueError, match="items: expected sequences whose pose"):
        score_items(hidden, [], batch_size=4)
