"""The training step on one device and on eight."""

import jax
import numpy as np
import optax
import pytest

from posediff_jax.parallel import replicate, shard_batch
from posediff_jax.training.ema import EmaOptions, constant_ema, update_ema
from posediff_jax.training.optimizers import learning_rate_schedule, make_optimizer
from posediff_jax.training.state import create_state
from posediff_jax.training.step import make_train_step, stream_key
from tests.training.fakes import make_batch, make_system

CONFIG = {"learning_rate": 0.01}


def run(system, batches, *, num_devices, config=CONFIG, ema=None, **options):
    """States and metrics after each batch, as host arrays."""
    devices = jax.devices()[:num_devices]
    optimizer = make_optimizer(config)
    step = make_train_step(system, optimizer, seed=3, ema=ema, devices=devices, **options)
    state = create_state(stream_key(3, "init"), system, optimizer, ema=ema is not None)
    state = replicate(state, devices)
    trace = []
    for batch in batches:
        state, metrics = step(state, shard_batch(batch, num_devices))
        trace.append(jax.device_get((state, metrics)))
    return trace


@pytest.fixture(scope="module")
def three_steps():
    """Three steps, the last batch two thirds padding, on one device and on eight."""
    with jax.enable_x64(True):
        batches = [make_batch(i, dtype=np.float64) for i in range(2)]
        batches.append(make_batch(2, real=5, dtype=np.float64))
        counts = {1: [], 8: []}
        traces = {
            n: run(
                make_system(on_trace=lambda n=n: counts[n].append(1)),
                batches,
                num_devices=n,
                ema=constant_ema(0.5),
            )
            for n in counts
        }
    return batches, traces, counts


def test_eight_devices_equal_one(three_steps):
    _, traces, _ = three_steps
    for one, eight in zip(traces[1], traces[8], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), one, eight)
    assert traces[8][-1][0].params["w"].dtype == np.float64


def test_traced_once(three_steps):
    _, _, counts = three_steps
    assert {n: len(traces) for n, traces in counts.items()} == {1: 1, 8: 1}


def test_metrics_are_means_over_devices(three_steps):
    batches, traces, _ = three_steps
    for batch, (_, metrics) in zip(batches, traces[8], strict=True):
        real = batch.mask[:, 0] > 0
        np.testing.assert_allclose(metrics["index"], batch.index[real].mean(), rtol=1e-12)


def test_step_equals_plain_gradient_descent_on_the_whole_batch(three_steps):
    batches, traces, _ = three_steps
    with jax.enable_x64(True):
        system, optimizer = make_system(), make_optimizer(CONFIG)
        state = create_state(stream_key(3, "init"), system, optimizer)
        key = jax.random.fold_in(stream_key(3, "train"), 0)

        def loss(params):
            variables = {"params": params, **state.collections}
            return system.loss(key, variables, batches[0], train=True)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, _ = optimizer.update(grads, state.opt_state, state.params)
        expected = optax.apply_updates(state.params, updates)
        got, metrics = traces[8][0]
        np.testing.assert_allclose(metrics["loss"], value, rtol=1e-10)
        np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-10)
        np.testing.assert_allclose(got.params["w"], expected["w"], rtol=1e-10)
        np.testing.assert_allclose(
            got.collections["batch_stats"]["mean"], aux.mutable["batch_stats"]["mean"], rtol=1e-10
        )
        average = 0.5 * (np.asarray(state.params["w"]) + got.params["w"])
        np.testing.assert_allclose(got.ema["params"]["w"], average, rtol=1e-10)


def test_noise_differs_between_steps_and_repeats_with_the_step():
    system, batch = make_system(noise=1.0), make_batch(0)
    frozen = {"learning_rate": 0.0}
    losses = [m["loss"] for _, m in run(system, [batch] * 3, num_devices=1, config=frozen)]
    again = [m["loss"] for _, m in run(system, [batch] * 3, num_devices=1, config=frozen)]
    assert len(set(map(float, losses))) == 3
    assert losses == again


def test_average_counts_updates_where_gradients_accumulate():
    options = EmaOptions(update_every=2, update_after_step=0, beta=0.9)
    config = {**CONFIG, "accumulate_steps": 2}
    batches = [make_batch(i) for i in range(8)]
    trace = run(make_system(), batches, num_devices=1, config=config, ema=options)
    start = create_state(stream_key(3, "init"), make_system(), make_optimizer(config), ema=True)
    average = start.ema
    for update in range(4):
        state = trace[2 * update + 1][0]
        average = update_ema(average, state.variables, update, options)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.ema, average)
        # The first half of an accumulation changes neither weights nor average.
        if update < 3:
            between = trace[2 * update + 2][0]
            np.testing.assert_array_equal(between.params["w"], state.params["w"])
            np.testing.assert_array_equal(between.ema["params"]["w"], state.ema["params"]["w"])


def test_learning_rate_is_reported_per_update():
    config = {**CONFIG, "warmup_steps": 2, "accumulate_steps": 2}
    trace = run(
        make_system(),
        [make_batch(i) for i in range(4)],
        num_devices=1,
        config=config,
        schedule=learning_rate_schedule(config),
    )
    rates = [metrics["learning_rate"] for _, metrics in trace]
    np.testing.assert_allclose(rates, [0, 0, 0.005, 0.005])


def test_state_passed_in_is_given_away_but_the_original_is_kept():
    system, optimizer = make_system(), make_optimizer(CONFIG)
    original = create_state(jax.random.key(0), system, optimizer, ema=True)
    placed = replicate(original)
    step = make_train_step(system, optimizer, seed=0, ema=EmaOptions())
    step(placed, shard_batch(make_batch(0), len(jax.devices())))
    assert placed.params["w"].is_deleted()
    assert np.all(np.isfinite(original.params["w"]))


def test_average_without_room_for_it_is_refused():
    system, optimizer = make_system(), make_optimizer(CONFIG)
    state = replicate(create_state(jax.random.key(0), system, optimizer), jax.devices()[:1])
    step = make_train_step(system, optimizer, seed=0, ema=EmaOptions(), devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="ema=True"):
        step(state, shard_batch(make_batch(0), 1))


def test_shard_batch_splits_every_leaf_in_order():
    batch = make_batch(0, size=12)
    shards = shard_batch(batch, 4)
    assert shards.pose.shape == (4, 3, *batch.pose.shape[1:])
    np.testing.assert_array_equal(shards.index[2], batch.index[6:9])
    assert shards.camera.focal.shape == (4, 3, 2)


def test_shard_batch_refuses_what_does_not_split():
    with pytest.raises(ValueError, match="12 items do not split over 8 devices"):
        shard_batch(make_batch(0, size=12), 8)
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        shard_batch({"a": np.zeros(3), "b": np.zeros(4)}, 1)


def test_streams_are_distinct():
    names = ("init", "train", "eval")
    assert len({tuple(jax.random.key_data(stream_key(0, n)).tolist()) for n in names}) == 3
    with pytest.raises(ValueError, match="stream"):
        stream_key(0, "noise")
