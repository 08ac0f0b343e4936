"""Continuous processes against closed forms, numerical integrals and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from posediff_jax.process.sdes import (
    VE,
    VP,
    SubVP,
    noise_from_score,
    perturb,
    prior_log_density,
    reverse_drift,
    reverse_step,
    score_from_noise,
)

PROCESSES = [SubVP(), VP(), VE()]
IDS = ["subvp", "vp", "ve"]


@pytest.mark.parametrize("sde", PROCESSES, ids=IDS)
def test_rates_solve_the_moment_equations(sde):
    """D signal = f signal dt and d var = (2 f var + g^2) dt, integrated by SciPy."""
    with jax.enable_x64(True):
        signal0, noise0 = (float(rate) for rate in sde.rates(0.0))

        def moments(t, y):
            f, g = float(sde.drift(t)), float(sde.diffusion(t))
            return [f * y[0], 2 * f * y[1] + g**2]

        for t in (0.05, 0.4):
            start = [signal0, noise0**2]
            end = integrate.solve_ivp(moments, (0, t), start, rtol=1e-8, atol=1e-12).y[:, -1]
            signal, noise = (float(rate) for rate in sde.rates(t))
            np.testing.assert_allclose([signal, noise**2], end, rtol=1e-5)


def test_subvp_has_the_values_of_the_released_code():
    with jax.enable_x64(True):
        signal, std = SubVP().rates(0.1)
        np.testing.assert_allclose([signal, std], [0.94672, 0.10372], atol=5e-6)
        g2 = SubVP().diffusion(jnp.array([0.1, 0.05, 0.01])) ** 2
        np.testing.assert_allclose(g2, [0.41106, 0.0635100, 0.00119063], rtol=1e-5)


@pytest.mark.parametrize("sde", [SubVP(), VP()], ids=IDS[:2])
def test_small_times_lose_nothing_in_single_precision(sde):
    t = np.array([1e-5, 1e-4, 1e-3], np.float32)
    narrow = np.array([sde.rates(t)[1], sde.diffusion(t)])
    with jax.enable_x64(True):
        wide = np.array([sde.rates(np.float64(t))[1], sde.diffusion(np.float64(t))])
    np.testing.assert_allclose(narrow, wide, rtol=1e-6)


def test_vp_preserves_the_variance():
    signal, noise = VP().rates(jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(signal**2 + noise**2, 1, rtol=1e-6)


@pytest.mark.parametrize("sde", PROCESSES, ids=IDS)
def test_discrete_steps_approach_the_continuous_process(sde):
    """N steps forward reach the moments of the marginal."""
    with jax.enable_x64(True):
        t = jnp.arange(sde.num_steps) / sde.num_steps
        F, G = (np.asarray(rate) for rate in sde.step(t))
        signal, variance = 1.0, 0.0
        for f, g in zip(F, G, strict=True):
            signal, variance = (1 + f) * signal, (1 + f) ** 2 * variance + g**2
        expected_signal, expected_noise = (float(rate) for rate in sde.rates(1.0))
        np.testing.assert_allclose(signal, expected_signal, rtol=0.05)
        np.testing.assert_allclose(np.sqrt(variance), expected_noise, rtol=0.02)


@pytest.mark.parametrize("sde", PROCESSES, ids=IDS)
def test_probability_flow_keeps_a_gaussian_gaussian(sde):
    """With factor 0.5 and the exact score, x / std(t) of centred data is constant in t."""
    data_std = 0.3
    with jax.enable_x64(True):

        def total_std(t):
            signal, noise = sde.rates(t)
            return jnp.sqrt((signal * data_std) ** 2 + noise**2)

        def velocity(t, x):
            score = -x / total_std(t) ** 2
            return np.asarray(reverse_drift(sde, x, t, score, score_factor=0.5))

        x = np.array([0.5, -1.2])
        there = integrate.solve_ivp(velocity, (0.1, 0.4), x, rtol=1e-8, atol=1e-10).y[:, -1]
        np.testing.assert_allclose(there / total_std(0.4), x / total_std(0.1), rtol=1e-5)


def test_factor_of_the_score():
    x, score, t = jnp.ones((2, 3, 3)), jnp.full((2, 3, 3), 2.0), jnp.array([0.1, 0.9])
    for reverse in (reverse_drift, reverse_step):
        none, half, full = (
            reverse(SubVP(), x, t, score, score_factor=factor) for factor in (0.0, 0.5, 1.0)
        )
        np.testing.assert_allclose(none - full, 2 * (none - half), rtol=1e-5)
        np.testing.assert_array_equal(reverse(SubVP(), x, t, score), full)


@pytest.mark.parametrize("sde", PROCESSES, ids=IDS)
def test_score_and_noise_invert_each_other(sde):
    eps, t = jax.random.normal(jax.random.key(0), (4, 17, 3)), jnp.linspace(0.1, 1, 4)
    score = score_from_noise(sde, t, eps)
    np.testing.assert_allclose(noise_from_score(sde, t, score), eps, rtol=1e-6)
    # Score of the Gaussian that one clean state becomes.
    x0 = jnp.ones_like(eps)
    signal, std = (rate[:, None, None] for rate in sde.rates(t))
    exact = -(perturb(sde, x0, t, eps) - signal * x0) / std**2
    np.testing.assert_allclose(score, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sde", PROCESSES, ids=IDS)
def test_prior_density_is_scipys(sde):
    x = jax.random.normal(jax.random.key(0), (4, 17, 3)) * sde.prior_std
    expected = stats.norm(scale=sde.prior_std).logpdf(np.asarray(x)).sum(axis=(1, 2))
    np.testing.assert_allclose(prior_log_density(sde, x), expected, rtol=1e-5)


def test_processes_are_static():
    assert hash(SubVP()) == hash(SubVP())
    assert SubVP() != VP()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VP(beta_min=0.0), "beta_min, beta_max: expected 0 < beta_min"),
        (lambda: SubVP(num_steps=1), "num_steps: expected at least 2, got 1"),
        (lambda: VE(sigma_max=0.001), "sigma_min, sigma_max: expected 0 < sigma_min"),
        (lambda: VP(horizon=1.5), r"horizon: expected a value in \(0, 1\], got 1.5"),
        (lambda: prior_log_density(VP(), jnp.ones(3)), "item_axes: expected 1 to the number"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
