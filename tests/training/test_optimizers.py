"""Optimisers against NumPy versions of PyTorch's rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from posediff_jax.training.optimizers import (
    clip_by_global_norm,
    learning_rate_schedule,
    make_optimizer,
)

SHAPE = (3, 2)


def gradients(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE))


def run(config, grads, start, **lengths):
    """Parameters after each update, in float64."""
    with jax.enable_x64(True):
        optimizer = make_optimizer(config, **lengths)
        params = jnp.asarray(start)
        state = optimizer.init(params)
        update = jax.jit(optimizer.update)
        trace = []
        for grad in grads:
            updates, state = update(jnp.asarray(grad), state, params)
            params = optax.apply_updates(params, updates)
            trace.append(np.asarray(params))
        return np.stack(trace)


def adam_by_hand(
    grads, start, *, rate, betas=(0.9, 0.999), eps=1e-8, coupled=0.0, decoupled=0.0, clip=None
):
    """PyTorch's Adam and AdamW as their documentation states them; `rate` maps t = 0, 1, ..."""
    params, mean, square, trace = start.copy(), 0.0, 0.0, []
    for t, grad in enumerate(grads):
        if clip is not None:
            grad = grad * min(1.0, clip / (np.sqrt(np.sum(grad**2)) + 1e-6))
        params = params * (1 - rate(t) * decoupled)
        grad = grad + coupled * trace[-1] if trace else grad + coupled * start
        mean = betas[0] * mean + (1 - betas[0]) * grad
        square = betas[1] * square + (1 - betas[1]) * grad**2
        unbiased = mean / (1 - betas[0] ** (t + 1))
        root = np.sqrt(square / (1 - betas[1] ** (t + 1)))
        params = params - rate(t) * unbiased / (root + eps)
        trace.append(params)
    return np.stack(trace)


@pytest.mark.parametrize(
    ("config", "by_hand"),
    [
        ({}, {}),
        ({"betas": (0.8, 0.9), "eps": 1e-3}, {"betas": (0.8, 0.9), "eps": 1e-3}),
        ({"weight_decay": 0.1}, {"coupled": 0.1}),
        ({"name": "adamw", "weight_decay": 0.1}, {"decoupled": 0.1}),
        ({"clip_norm": 0.5}, {"clip": 0.5}),
    ],
)
def test_adam_equals_numpy(config, by_hand):
    grads, start = gradients(6), gradients(1, seed=1)[0]
    trace = run({"learning_rate": 0.01, **config}, grads, start)
    expected = adam_by_hand(grads, start, rate=lambda t: 0.01, **by_hand)
    np.testing.assert_allclose(trace, expected, rtol=1e-12)


def test_schedule_drives_the_optimizer():
    grads, start = gradients(7), gradients(1, seed=1)[0]
    config = {"learning_rate": 0.01, "schedule": "exponential", "decay_rate": 0.5}
    trace = run(config, grads, start, steps_per_epoch=3)
    expected = adam_by_hand(grads, start, rate=lambda t: 0.01 * 0.5 ** (t // 3))
    np.testing.assert_allclose(trace, expected, rtol=1e-12)


def test_accumulation_averages_gradients():
    grads, start = gradients(8), gradients(1, seed=1)[0]
    config = {"learning_rate": 0.01, "clip_norm": 0.5}
    trace = run({**config, "accumulate_steps": 2}, grads, start)
    pairs = grads.reshape(4, 2, *SHAPE).mean(axis=1)
    np.testing.assert_allclose(trace[1::2], run(config, pairs, start), rtol=1e-12)
    np.testing.assert_array_equal(trace[2::2], trace[1:-1:2])


def test_cosine_falls_to_zero_at_the_end_of_the_run():
    rate = learning_rate_schedule(
        {"learning_rate": 2.0, "schedule": "cosine", "warmup_steps": 10}, num_steps=110
    )
    np.testing.assert_allclose(
        [rate(t) for t in (0, 5, 10, 60, 110, 200)], [0, 1, 2, 1, 0, 0], atol=1e-6
    )


def test_exponential_is_a_staircase_over_epochs_counted_in_batches():
    config = {"learning_rate": 1.0, "schedule": "exponential", "decay_rate": 0.9}
    rate = learning_rate_schedule({**config, "accumulate_steps": 2}, steps_per_epoch=5)
    # Update u begins with batch 2u; epochs begin with batches 0, 5, 10.
    np.testing.assert_allclose([rate(u) for u in range(6)], [1, 1, 1, 0.9, 0.9, 0.81], rtol=1e-6)


def test_warm_up_begins_at_zero():
    rate = learning_rate_schedule({"learning_rate": 1.0, "warmup_steps": 4})
    np.testing.assert_allclose([rate(t) for t in range(6)], [0, 0.25, 0.5, 0.75, 1, 1])


def test_clipping_keeps_small_gradients_and_direction():
    clip = clip_by_global_norm(1.0)
    small = {"a": jnp.array([0.3]), "b": jnp.array([0.4])}
    large = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    np.testing.assert_allclose(clip.update(small, clip.init(small))[0]["b"], 0.4)
    np.testing.assert_allclose(clip.update(large, clip.init(large))[0]["a"], 0.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "sgd"}, r"optimizer.name: expected one of \('adam', 'adamw'\), got 'sgd'"),
        ({"schedule": "step"}, r"optimizer.schedule: expected one of .*cosine.*'step'"),
        ({"lr": 0.1}, r"optimizer.lr: unknown field.*learning_rate"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas"),
        ({"clip_norm": -1.0}, "optimizer.clip_norm"),
        ({"accumulate_steps": 0}, "optimizer.accumulate_steps"),
        ({"decay_rate": 0.0}, "optimizer.decay_rate"),
        ({"schedule": "exponential"}, "steps_per_epoch"),
        ({"schedule": "cosine", "warmup_steps": 10}, "num_steps"),
    ],
)
def test_refuses(config, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(config)
