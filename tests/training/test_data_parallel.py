"""DiffuPose on eight devices and on one, over an epoch whose last batch is mostly padding."""

import jax
import numpy as np
import pytest

from configs.diffupose_cmu import get_config
from posediff_jax.data import endless_batches, item_table, procedural_motion, virtual_views
from posediff_jax.parallel import replicate, shard_batch
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from posediff_jax.training.ema import constant_ema
from posediff_jax.training.optimizers import make_optimizer
from posediff_jax.training.state import state_from_variables
from posediff_jax.training.step import make_train_step, stream_key

SEED, BATCH, STEPS = 5, 16, 3


@pytest.fixture(scope="module")
def table():
    """20 items: the second batch of an epoch has 4, so that six of eight devices have none."""
    clips = procedural_motion(SEED, num_clips=2, frames=5)
    views = virtual_views(SEED, clips, H36M_17, views_per_clip=2)
    return item_table(views)


def config(**model):
    config = get_config("tiny").unlock()
    config.model.update(non_local=False, **model)
    return config


def real_items(batch):
    """The batch without its padding."""
    real = batch.mask.any(axis=1)
    return jax.tree.map(lambda leaf: leaf[real], batch)


def wide(tree):
    """Floating point leaves in float64, where two orders of a sum agree closely."""
    return jax.tree.map(
        lambda x: x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x, tree
    )


def counted(system, traces):
    """`system` with a loss that adds to `traces` whenever it is traced."""

    def loss(*args, **options):
        traces.append(1)
        return system.loss(*args, **options)

    return system._replace(loss=loss)


def run(table, *, num_devices, padded=True, traces=None, **model):
    """State on the devices and metrics, before the first step and after each."""
    system = make_system(config(**model))
    optimizer = make_optimizer({"learning_rate": 1e-3})
    system = counted(system, [] if traces is None else traces)
    devices = jax.devices()[:num_devices]
    with jax.enable_x64(True):
        step = make_train_step(system, optimizer, seed=SEED, ema=constant_ema(0.5), devices=devices)
        variables = wide(jax.jit(system.init)(stream_key(SEED, "init")))
        state = replicate(state_from_variables(variables, optimizer, ema=True), devices)
        batches = endless_batches(table, batch_size=BATCH, seed=SEED)
        history = [(jax.device_get(state), {})]
        for _, batch in zip(range(STEPS), batches, strict=False):
            batch = wide(batch if padded else real_items(batch))
            state, metrics = step(state, shard_batch(batch, num_devices))
            history.append(jax.device_get((state, metrics)))
    return history, (state, metrics)


@pytest.fixture(scope="module")
def eight(table):
    traces = []
    return *run(table, num_devices=8, traces=traces), traces


@pytest.fixture(scope="module")
def one(table):
    return run(table, num_devices=1)[0]


def assert_close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), left, right)


def test_eight_devices_equal_one(eight, one):
    for a, b in zip(eight[0], one, strict=True):
        assert_close(a, b)


def test_padding_counts_neither_in_loss_nor_in_statistics(one, table):
    """The oracle is the same run on batches from which the padding was cut away."""
    for (a, padded), (b, cut) in zip(one, run(table, num_devices=1, padded=False)[0], strict=True):
        assert_close(padded, cut)
        assert_close(a, b)
    start, end = (state.collections["batch_stats"] for state, _ in (one[0], one[-1]))
    moved = [np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (start, end)), strict=True)]
    assert min(moved) > 0


def test_traced_once_over_full_and_padded_batches(eight):
    assert len(eight[2]) == 1


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_what_leaves_the_step_is_equal_on_all_devices(eight, table, dropout):
    """With `out_axes=None` pmap hands on what was not averaged: every device keeps its own."""
    last = eight[1] if not dropout else run(table, num_devices=8, dropout=dropout)[1]
    for leaf in jax.tree.leaves(last):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 8
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


def test_the_trap_exists():
    """Were this to fail, pmap refused values that differ, and the test above were not needed."""
    values = np.arange(8.0)
    first = jax.pmap(lambda x: x, out_axes=None)(values)
    assert float(first) == 0.0
    assert [float(s.data) for s in first.addressable_shards] == list(values)
    mean = jax.pmap(lambda x: jax.lax.pmean(x, "d"), axis_name="d", out_axes=None)(values)
    assert [float(s.data) for s in mean.addressable_shards] == [3.5] * 8


def test_devices_are_not_left_out_in_silence():
    """By itself pmap takes a leading axis of 3 on 8 devices, so `shard_batch` counts."""
    assert jax.pmap(lambda x: x)(np.arange(3.0)).shape == (3,)
    with pytest.raises(ValueError, match="3 items do not split over 8 devices"):
        shard_batch({"x": np.arange(3.0)}, 8)
