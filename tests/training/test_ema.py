"""The moving average against the rule of the package it follows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.training.ema import EmaOptions, constant_ema, ema_decay, make_ema, update_ema


def averaged_by_hand(values, options):
    """The rule of ema-pytorch as its text says it, with the flag that the package keeps."""
    average, begun, trace = values[0], False, []
    for s, value in enumerate(values):
        if s % options.update_every == 0:
            if s <= options.update_after_step:
                average = value
            else:
                if not begun:
                    average, begun = value, True
                ramp = 1 - (1 + (s - options.update_after_step) / options.inv_gamma) ** (
                    -options.power
                )
                decay = min(max(ramp, options.min_value), options.beta)
                average = average + (1 - decay) * (value - average)
        trace.append(average)
    return np.array(trace)


def averaged(values, options):
    def body(ema, item):
        counter, value = item
        ema = update_ema(ema, value, counter, options)
        return ema, ema

    counters = jnp.arange(len(values))
    return jax.jit(lambda v: jax.lax.scan(body, v[0], (counters, v))[1])(jnp.asarray(values))


@pytest.mark.parametrize(
    "options",
    [
        EmaOptions(),
        EmaOptions(update_every=7, update_after_step=30, beta=0.9),
        EmaOptions(update_every=1, update_after_step=0, inv_gamma=5.0, power=0.75, min_value=0.2),
    ],
)
def test_follows_the_rule_of_the_package(options):
    values = np.cumsum(np.random.default_rng(0).normal(size=400))
    with jax.enable_x64(True):
        trace = averaged(values, options)
        assert trace.dtype == np.float64
        np.testing.assert_allclose(trace, averaged_by_hand(values, options), rtol=1e-12)


def test_copies_until_the_first_due_update_after_the_threshold():
    values = np.random.default_rng(1).normal(size=131).astype(np.float32)
    trace = np.asarray(averaged(values, EmaOptions()))
    for s in (0, 50, 100, 110):
        assert trace[s] == values[s]
    assert trace[109] == values[100]
    assert trace[120] != values[120]


def test_decay_rises_to_its_cap():
    decay = ema_decay(jnp.array([100, 110, 2920, 2930, 10**6]), EmaOptions())
    np.testing.assert_allclose(decay[:2], [0, 1 - 11 ** (-2 / 3)], rtol=1e-6)
    assert decay[2] < 0.995
    np.testing.assert_allclose(decay[3:], 0.995, rtol=1e-6)


def test_constant_decay_is_a_geometric_mean_of_the_past():
    values = np.random.default_rng(2).normal(size=20).astype(np.float32)
    weights = 0.1 * 0.9 ** np.arange(20)[::-1]
    expected = 0.9**20 * values[0] + np.sum(weights * values)
    np.testing.assert_allclose(averaged(values, constant_ema(0.9))[-1], expected, rtol=1e-5)


def test_ramp_of_zedo_is_a_case_of_the_same_rule():
    options = EmaOptions(beta=0.99, update_every=1, update_after_step=-2, inv_gamma=9.0, power=1.0)
    n = np.arange(1, 2000)
    expected = np.minimum(0.99, (1 + n) / (10 + n))
    np.testing.assert_allclose(ema_decay(jnp.asarray(n - 1), options), expected, rtol=1e-6)


def test_leaves_that_are_not_floating_point_follow_the_online_ones():
    ema = {"count": jnp.array(0), "w": jnp.array(0.0)}
    online = {"count": jnp.array(5), "w": jnp.array(1.0)}
    new = update_ema(ema, online, 0, constant_ema(0.75))
    assert new["count"] == 5
    assert new["w"] == 0.25


def test_config_section():
    assert make_ema(None) is None
    assert make_ema({}) is None
    assert make_ema({"beta": 0.9}) == EmaOptions(beta=0.9)
    with pytest.raises(ValueError, match=r"ema.bta: unknown field.*beta"):
        make_ema({"bta": 0.9})
    with pytest.raises(ValueError, match="min_value"):
        make_ema({"beta": 0.5, "min_value": 0.6})
    with pytest.raises(ValueError, match="update_every"):
        make_ema({"update_every": 0})
