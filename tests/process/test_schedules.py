"""Schedules against the papers' closed forms, conversions against each other."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.process import schedules
from posediff_jax.process.schedules import (
    cosine_schedule,
    linear_schedule,
    make_schedule,
    power_schedule,
    schedule_from_betas,
)


@pytest.fixture(scope="module")
def noisy():
    """A noisy state made by the forward process, with what it was made of."""
    schedule = cosine_schedule(100)
    keys = jax.random.split(jax.random.key(0), 3)
    x0, eps = jax.random.normal(keys[0], (6, 17, 3)), jax.random.normal(keys[1], (6, 17, 3))
    t = jax.random.randint(keys[2], (6,), 0, 99)
    return schedule, schedules.q_sample(schedule, x0, t, eps), t, x0, eps


def test_cosine_has_the_published_values():
    s = cosine_schedule(100, dtype=np.float64)
    np.testing.assert_allclose(s.betas[[0, 98, 99]], [6.3128e-4, 0.74994, 0.999], rtol=1e-4)
    np.testing.assert_allclose(s.alphas_cumprod[[0, 49, 98]], [0.999369, 0.493844, 2.4286e-4], 1e-4)
    # The clip of the last beta reaches abar: 0.001 times the one before.
    np.testing.assert_allclose(s.alphas_cumprod[99], s.alphas_cumprod[98] * 0.001, rtol=1e-12)


def test_linear_is_ddpm_rescaled():
    s = linear_schedule(1000, dtype=np.float64)
    np.testing.assert_allclose(s.betas[[0, -1]], [1e-4, 0.02])
    np.testing.assert_allclose(linear_schedule(100).alphas_cumprod[-1], 2.039e-5, rtol=1e-3)


def test_posterior_is_bayes_rule():
    """q(x_{t-1} | x_t, x_0) by multiplying the two Gaussians it comes from."""
    s = linear_schedule(50, dtype=np.float64)
    for t in (1, 20, 49):
        prior_var = 1 - s.alphas_cumprod[t - 1]
        precision = 1 / prior_var + (1 - s.betas[t]) / s.betas[t]
        np.testing.assert_allclose(s.posterior_variance[t], 1 / precision)
        by_x0 = np.sqrt(s.alphas_cumprod[t - 1]) / prior_var / precision
        by_xt = np.sqrt(1 - s.betas[t]) / s.betas[t] / precision
        np.testing.assert_allclose(s.posterior_mean_coef1[t], by_x0)
        np.testing.assert_allclose(s.posterior_mean_coef2[t], by_xt)
    assert s.posterior_variance[0] == 0
    np.testing.assert_allclose(s.posterior_log_variance_clipped[0], np.log(1e-20))


def test_tables_are_rounded_once():
    """float32 tables are the float64 ones, cast last."""
    narrow, wide = cosine_schedule(100), cosine_schedule(100, dtype=np.float64)
    chex.assert_trees_all_equal(narrow, wide.astype(np.float32))
    assert narrow.betas.dtype == np.float32


def test_x0_and_eps_come_back_from_every_parameterisation(noisy):
    schedule, x_t, t, x0, eps = noisy
    v = schedules.v_from_x0_eps(schedule, t, x0, eps)
    score = schedules.score_from_eps(schedule, t, eps)
    from_v = schedules.prediction_from_v(schedule, x_t, t, v)
    close = {"rtol": 2e-3, "atol": 2e-3}  # sqrt(1 / abar) reaches 64 at t = 98
    np.testing.assert_allclose(schedules.x0_from_eps(schedule, x_t, t, eps), x0, **close)
    np.testing.assert_allclose(schedules.eps_from_x0(schedule, x_t, t, x0), eps, **close)
    np.testing.assert_allclose(from_v.x0, x0, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(from_v.eps, eps, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(schedules.eps_from_score(schedule, t, score), eps, rtol=1e-5)


def test_clip_bounds_x0_and_leaves_eps(noisy):
    schedule, x_t, t, x0, eps = noisy
    prediction = schedules.prediction_from_eps(schedule, x_t, t, eps, clip=0.5)
    np.testing.assert_allclose(prediction.x0, np.clip(x0, -0.5, 0.5), atol=2e-3)
    np.testing.assert_array_equal(prediction.eps, eps)


def test_forward_process_keeps_unit_variance():
    schedule = cosine_schedule(100)
    x0, eps = jax.random.normal(jax.random.key(1), (2, 20_000, 2))
    for t in (0, 50, 99):
        x_t = schedules.q_sample(schedule, x0, jnp.asarray(t), eps)
        np.testing.assert_allclose(jnp.var(x_t), 1.0, atol=0.03)


def test_a_pytree_diffuses_leaf_by_leaf():
    schedule = cosine_schedule(10)
    x0 = {"lengths": jnp.ones((4, 16)), "directions": jnp.ones((4, 16, 3))}
    noise = jax.tree.map(jnp.zeros_like, x0)
    t = jnp.array([0, 3, 6, 9])
    x_t = schedules.q_sample(schedule, x0, t, noise)
    for leaf in x_t.values():
        np.testing.assert_allclose(
            leaf.reshape(4, -1)[:, 0], schedule.sqrt_alphas_cumprod[np.asarray(t)]
        )


def test_float64_data_stays_float64():
    with jax.enable_x64(True):
        x = jnp.zeros((2, 3), jnp.float64)
        assert schedules.q_sample(cosine_schedule(10), x, jnp.array([0, 1]), x).dtype == jnp.float64


@pytest.mark.parametrize("num_timesteps", [1, 10, 20])
def test_linear_refuses_few_steps_by_name(num_timesteps):
    with pytest.raises(ValueError, match=rf"num_timesteps: .*T > 20, got {num_timesteps}"):
        linear_schedule(num_timesteps)


@pytest.mark.parametrize("betas", [[0.1, 1.0], [0.1, 0.0], [0.1, -0.1], [0.1, float("nan")]])
def test_beta_outside_its_range_is_named(betas):
    with pytest.raises(ValueError, match=r"betas: expected values in \(0, 1\), got .* at t = 1"):
        schedule_from_betas(betas)


def test_other_bad_schedules_are_refused():
    with pytest.raises(ValueError, match=r"betas: expected shape \(T,\)"):
        schedule_from_betas(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="num_timesteps: expected at least 1, got 0"):
        cosine_schedule(0)
    with pytest.raises(ValueError, match=r"schedule: expected one of \['cosine', 'linear'\]"):
        make_schedule("sigmoid", 100)


class TestDiffHPE:
    """Its tables are compared with the authors' by tests.parity."""

    def test_the_cap_of_the_cosine_schedule(self):
        betas = cosine_schedule(50, max_beta=0.5, dtype=np.float64).betas
        np.testing.assert_array_equal(betas[-3:], 0.5)
        assert betas[-4] < 0.5

    def test_roots_rise_linearly(self):
        schedule = power_schedule(5, beta_start=0.01, beta_end=0.25, power=2, dtype=np.float64)
        np.testing.assert_allclose(np.sqrt(schedule.betas), [0.1, 0.2, 0.3, 0.4, 0.5])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"beta_start": 0.0, "beta_end": 0.5}, r"beta_start: expected a value in \(0, 1\)"),
            ({"beta_start": 0.1, "beta_end": 1.0}, r"beta_end: .*got 1.0"),
        ],
    )
    def test_variances_out_of_range(self, options, message):
        with pytest.raises(ValueError, match=message):
            power_schedule(5, **options)
        with pytest.raises(ValueError, match=r"max_beta: expected a value in \(0, 1\), got 1"):
            cosine_schedule(5, max_beta=1.0)
