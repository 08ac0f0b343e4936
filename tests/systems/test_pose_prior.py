"""ZeDO's priors against a Gaussian, whose noise estimate is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.samplers.zero_shot import discrete_steps, score_steps
from posediff_jax.systems.pose_prior import PROCESSES, LossOptions, make_prior

MEAN, STD = jnp.array([[0.3, -0.2, 0.1], [0.0, 0.5, -0.4]]), 0.2
PROCESS = pytest.mark.parametrize("name", PROCESSES)


def prior_of(name, **loss):
    return make_prior({"name": name, "num_steps": 300}, LossOptions(**loss))


def rates(prior, t):
    """Signal and noise rate, read off the forward process."""
    signal = prior.perturb(jnp.ones((1, 3)), t, jnp.zeros((1, 3)))[0, 0]
    return signal, prior.perturb(jnp.zeros((1, 3)), t, jnp.ones((1, 3)))[0, 0]


@PROCESS
def test_training_pairs_fit_together(name):
    prior = prior_of(name)
    keys = jax.random.split(jax.random.key(0), 2000)
    t, x_t, noise = jax.vmap(prior.draw, in_axes=(0, None))(keys, MEAN)
    expected = jax.vmap(prior.perturb, in_axes=(None, 0, 0))(MEAN, t, noise)
    np.testing.assert_allclose(x_t, expected, atol=1e-6)
    share = t / (1 if name.endswith("vp") else 299)
    np.testing.assert_allclose([share.min(), share.mean(), share.max()], [0, 0.5, 1], atol=0.02)
    np.testing.assert_allclose(noise.std(), 1, atol=0.03)


@PROCESS
def test_what_is_generated_has_the_distribution_of_the_data(name):
    """By the exact estimate of the noise, told what a network is told."""
    prior = prior_of(name)
    scale = 999 if name.endswith("vp") else 1

    def estimate_noise(x, label):
        t = label / scale
        signal, noise = rates(prior, t if scale > 1 else t.astype(int))
        return noise * (x - signal * MEAN) / ((signal * STD) ** 2 + noise**2)

    keys = jax.random.split(jax.random.key(1), 3000)
    poses = jax.jit(jax.vmap(lambda key: prior.generate(key, estimate_noise, (2, 3))))(keys)
    np.testing.assert_allclose(poses.mean(axis=0), MEAN, atol=0.02)
    np.testing.assert_allclose(poses.std(axis=0), STD, rtol=0.1)


@PROCESS
def test_times_and_loop_steps_are_shares_of_the_process(name):
    prior = prior_of(name)
    options = {"num_iterations": 7, "rescale_dt": True, "score_factor": 0.5}
    steps = prior.loop_steps(t_range=(0.2, 0.1), **options)
    if name.endswith("vp"):
        expected = score_steps(prior.sde, t_range=(0.2, 0.1), **options)
        np.testing.assert_allclose(prior.times((0.2, 0.1), 3), [0.2, 0.15, 0.1], rtol=1e-6)
    else:
        eta = float(name == "ddpm")
        expected = discrete_steps(prior.schedule, num_iterations=7, share=0.2, eta=eta)
        np.testing.assert_array_equal(prior.times((0.2, 0.1), 3), [60, 45, 30])
    jax.tree.map(np.testing.assert_array_equal, steps, expected)


def test_the_loss_has_both_reductions():
    z, eps = jax.random.normal(jax.random.key(0), (2, 5, 17, 3))
    for name in ("subvp", "ddpm"):
        t = prior_of(name).times((0.1, 0.2), 5)
        mean, half = (prior_of(name, reduction=r).loss(t, eps, z) for r in ("mean", "half_sum"))
        np.testing.assert_allclose(mean, ((z - eps) ** 2).mean(axis=(1, 2)), rtol=1e-5)
        np.testing.assert_allclose(half, mean * 51 / 2, rtol=1e-5)
