"""Sampling for users: one compilation, weights that may change, batches of any size."""

import jax
import numpy as np
import pytest

from posediff_jax.inference import make_sampler, map_sampler, sample_all
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
    with pytest.raises(ValueError, match=r"expected finite values, got .* item 3, frame 1, joint 4"):
        draw(KEY, spoiled)
    mask = spoiled.mask.copy()
    mask[3, 1] = 0
    draw(KEY, spoiled.replace(mask=mask))
