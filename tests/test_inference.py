"""Sampling for users: one compilation, weights that may change, batches of any size."""

import tracemalloc

import jax
import numpy as np
import pytest

from posediff_jax.data import all_frames, procedural_motion, scored_items, virtual_views
from posediff_jax.data.windows import plan_clip
from posediff_jax.inference import (
    make_sampler,
    map_sampler,
    sample_all,
    sample_blended,
    sample_clip,
)
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import System
from posediff_jax.types import SampleResult
from tests.systems.test_modgcn import make_batch


def counting_system():
    """Poses that say which weights, key and item made them; counts its traces."""
    traces = []

    def sample(key, variables, batch, *, num_hypotheses, return_trajectory=False):
        traces.append(num_hypotheses)
        shape = (batch.num_items, num_hypotheses, *batch.keypoints.shape[1:-1], 3)
        value = variables["params"] + batch.index[:, None, None, None, None]
        return SampleResult(samples=jax.numpy.broadcast_to(value, shape) * 1.0)

    return System(init=lambda key: {}, loss=None, sample=sample), traces


KEY = jax.random.key(0)


def test_one_compilation_for_many_batches_and_weights():
    system, traces = counting_system()
    draw = map_sampler(system, num_hypotheses=2)
    for weight in (0.0, 10.0, 20.0):
        for seed in range(3):
            samples = draw(KEY, {"params": np.float32(weight)}, make_batch(8, seed=seed)).samples
            np.testing.assert_array_equal(samples[:, 0, 0, 0, 0], weight + np.arange(8))
    assert traces == [2]


@pytest.mark.parametrize("size", [1, 3, 8, 13])
def test_items_need_not_split_evenly_over_devices(size):
    system, _ = counting_system()
    draw = make_sampler(system, {"params": np.float32(5)}, num_hypotheses=1)
    samples = draw(KEY, make_batch(size)).samples
    assert isinstance(samples, np.ndarray)
    np.testing.assert_array_equal(samples[:, 0, 0, 0, 0], 5 + np.arange(size))


def test_all_unmasked_items_in_order():
    system, _ = counting_system()
    draw = make_sampler(system, {"params": np.float32(0)}, num_hypotheses=1)
    batch = make_batch(8)
    mask = batch.mask.copy()
    mask[6:] = 0
    found = sample_all(KEY, draw, [batch, batch.replace(mask=mask)])
    assert found[:, 0, 0, 0, 0].tolist() == [*range(8), *range(6)]
    with pytest.raises(ValueError, match="batches: expected at least one"):
        sample_all(KEY, draw, [])


def test_values_are_checked_where_frames_count():
    system, _ = counting_system()
    draw = make_sampler(system, {"params": np.float32(0)}, num_hypotheses=1)
    keypoints = make_batch(8).keypoints.copy()
    keypoints[3, 1, 4] = np.nan
    spoiled = make_batch(8).replace(keypoints=keypoints)
    with pytest.raises(ValueError, match=r"expected finite .* item 3, frame 1, joint 4"):
        draw(KEY, spoiled)
    mask = spoiled.mask.copy()
    mask[3, 1] = 0
    draw(KEY, spoiled.replace(mask=mask))


def per_window(key, batch):
    """Two hypotheses: each keypoint in space, moved by the number of the window."""
    del key
    x = np.asarray(batch.keypoints)
    points = np.concatenate([x, x[..., :1]], axis=-1)
    number = np.asarray(batch.index, np.float32)[:, None, None, None]
    return SampleResult(samples=np.stack([points + number, points - number], axis=1))


def clip_of(frames, plan, batch_size, sizes=None):
    """`sample_clip` of `per_window` over keypoints that grow with time, windows all at place 0."""
    x = np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None, None], (frames, 17, 2))

    def gather(rows):
        if sizes is not None:
            sizes.append(len(rows))
        batch = make_batch(len(rows))
        return batch.replace(keypoints=x[plan.index[rows]], index=rows)

    return sample_clip(KEY, per_window, gather, plan, batch_size=batch_size)


def test_a_clip_is_the_weighted_sum_of_its_windows():
    plan = plan_clip(25, length=9, overlap=3)
    expected = np.zeros((2, 25))
    for number, (index, weight) in enumerate(zip(plan.index, plan.weight, strict=True)):
        for frame, share in zip(index, weight, strict=True):
            expected[:, frame] += share * (frame + number * np.array([1, -1]))
    for batch_size in (1, 2, 64):
        poses = clip_of(25, plan, batch_size)
        assert poses.shape == (2, 25, 17, 3)
        np.testing.assert_allclose(poses[..., 4, 2], expected, rtol=1e-6)


def test_where_a_window_is_alone_its_answer_is_untouched():
    plan = plan_clip(25, length=9, overlap=3)
    poses = clip_of(25, plan, 64)
    np.testing.assert_array_equal(poses[0, :6, 0, 0], np.arange(6))
    np.testing.assert_array_equal(poses[0, 9:12, 0, 0], np.arange(9, 12) + 1)


def test_no_join_jumps():
    """Windows that differ by 1 are one frame apart without overlap, and a quarter with three."""

    def largest_step(overlap):
        poses = clip_of(21, plan_clip(21, length=9, overlap=overlap), 64)
        return (np.diff(poses[0, :, 0, 0]) - 1).max()

    assert largest_step(3) == pytest.approx(0.25)
    # 21 frames: the last window of three is moved back by six.
    assert largest_step(0) == pytest.approx(1)


def test_ten_thousand_frames_never_ask_for_more_than_a_batch():
    sizes = []
    plan = plan_clip(10_000, length=27, overlap=6)
    tracemalloc.start()
    try:
        poses = clip_of(10_000, plan, 64, sizes)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert poses.shape == (2, 10_000, 17, 3)
    assert set(sizes) == {64}
    # The result, and beside it a few batches: not the answers of all windows, another 5 MB.
    assert most < poses.nbytes + 6 * (64 * 27 * 17 * 3 * 2) * poses.itemsize
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        clip_of(5, plan_clip(5, length=3), 0)


def test_windows_cut_from_blended_clips_are_those_clips():
    views = virtual_views(0, procedural_motion(0, num_clips=3, frames=11), H36M_17)
    items = scored_items(all_frames(views), length=4)
    windows = list(sample_blended(KEY, per_window, items, batch_size=2, overlap=2))
    assert {w.shape for w in windows} == {(2, 2, 4, 17, 3)}
    real = [inside for _, inside in items.rows(2)]
    answers = np.concatenate([w[inside] for w, inside in zip(windows, real, strict=True)])
    plan = plan_clip(11, length=4, overlap=2)
    for number in range(3):
        start = number * len(plan.index)
        x = items.table.gather(np.flatnonzero(items.table.items[:, 0] == number)).keypoints
        x = np.asarray(x).reshape(-1, 17, 2)[:11]
        clip = sample_clip(
            KEY,
            per_window,
            lambda rows, x=x, start=start: make_batch(len(rows)).replace(
                keypoints=x[plan.index[rows]], index=start + rows
            ),
            plan,
            batch_size=8,
        )
        found = answers[items.sequence == number]
        found = np.moveaxis(found, 1, 0).reshape(2, -1, 17, 3)
        np.testing.assert_allclose(found[:, :11], clip, atol=1e-5)
