"""Samplers of continuous diffusion on data whose score is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.process.sdes import VE, VP, SubVP
from posediff_jax.samplers.continuous import (
    STEPS,
    ancestral_step,
    euler_maruyama_step,
    reverse_diffusion_step,
    sample_sde,
)
from posediff_jax.types import Prediction

MEAN, STD = 0.7, 0.2  # of the Gaussian that stands for the data: off centre, so signs show
CASES = [
    *((SubVP(), euler_maruyama_step), (SubVP(), reverse_diffusion_step)),
    *((VP(), euler_maruyama_step), (VP(), reverse_diffusion_step), (VP(), ancestral_step)),
    (VE(sigma_max=10.0), reverse_diffusion_step),
]


def gaussian_denoiser(sde):
    """E[z | x_t] for data from N(MEAN, STD^2)."""

    def predict(x, t):
        a, b = sde.rates(t)
        eps = b * (x - a * MEAN) / ((a * STD) ** 2 + b**2)
        return Prediction(x0=(x - b * eps) / a, eps=eps)

    return predict


def start(sde, count=10_000):
    return sde.prior_std * jax.random.normal(jax.random.key(0), (count,))


@pytest.mark.parametrize(("sde", "step"), CASES)
def test_the_reverse_sde_reaches_the_data(sde, step):
    predict = gaussian_denoiser(sde)
    x = sample_sde(jax.random.key(1), predict, start(sde), sde=sde, step=step).samples
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.01)
    np.testing.assert_allclose(x.std(), STD, atol=0.02)


@pytest.mark.parametrize("sde", [SubVP(), VP(), VE(sigma_max=10.0)])
def test_the_probability_flow_reaches_the_data_without_noise(sde):
    run = [
        sample_sde(
            jax.random.key(seed),
            gaussian_denoiser(sde),
            start(sde),
            sde=sde,
            step=reverse_diffusion_step,
            probability_flow=True,
        ).samples
        for seed in (1, 2)
    ]
    np.testing.assert_array_equal(*run)
    np.testing.assert_allclose(run[0].mean(), MEAN, atol=0.02)
    np.testing.assert_allclose(run[0].std(), STD, atol=0.02)


def test_the_mean_path_of_gfpose_is_not_the_flow():
    """With the factor 1.0 and no noise the spread of the data collapses."""
    sde = SubVP()
    x = sample_sde(
        jax.random.key(1),
        gaussian_denoiser(sde),
        start(sde),
        sde=sde,
        probability_flow=True,
        score_factor=1.0,
    ).samples
    np.testing.assert_allclose(x.mean(), MEAN, atol=0.02)
    assert x.std() < STD / 3


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_one_step_by_hand(step):
    """Against the formulas in plain numbers, at the step k = 499 of 1000."""
    sde, t, x, score, z = VP(), 0.5, 0.3, -0.8, 1.5
    beta = 0.1 / 1000 + (20 - 0.1) / 1000 * 499 / 999
    continuous = (0.1 + 0.5 * 19.9) / 1000
    expected = {
        euler_maruyama_step: (x + continuous * (x / 2 + score), np.sqrt(continuous)),
        reverse_diffusion_step: (x * (2 - np.sqrt(1 - beta)) + beta * score, np.sqrt(beta)),
        ancestral_step: ((x + beta * score) / np.sqrt(1 - beta), np.sqrt(beta)),
    }[step]
    with jax.enable_x64(True):
        noisy, mean = step(sde, *(jnp.asarray(v) for v in (x, t, score, z)))
        np.testing.assert_allclose(mean, expected[0], rtol=1e-12)
        np.testing.assert_allclose(noisy, expected[0] + expected[1] * z, rtol=1e-12)
        np.testing.assert_array_equal(step(sde, x, t, score), (mean, mean))


class TestContract:
    sde = SubVP(num_steps=8)
    predict = staticmethod(gaussian_denoiser(sde))

    def run(self, seed=0, x=None, **options):
        x = jnp.ones((4, 3)) if x is None else x
        return sample_sde(jax.random.key(seed), self.predict, x, sde=self.sde, **options)

    def test_trajectory(self):
        result = self.run(return_trajectory=True, probability_flow=True)
        assert result.trajectory.shape == (8, 4, 3)
        np.testing.assert_array_equal(result.trajectory[-1], result.samples)
        assert self.run().trajectory is None

    def test_the_last_step_adds_no_noise(self):
        noise = np.zeros((8, 4, 3), np.float32)
        noise[-1] = 5
        np.testing.assert_array_equal(
            self.run(noise=noise).samples, self.run(noise=0 * noise).samples
        )

    def test_given_noise_replaces_the_key(self):
        noise = jnp.ones((8, 4, 3))
        one, two = (self.run(seed, noise=noise).samples for seed in (0, 1))
        np.testing.assert_array_equal(one, two)
        assert jnp.abs(self.run(0).samples - self.run(1).samples).max() > 1e-3

    def test_vmap_equals_a_loop(self):
        keys, x = jax.random.split(jax.random.key(0), 3), jnp.linspace(-1, 1, 12).reshape(3, 4)

        def one(key, start):
            return sample_sde(key, self.predict, start, sde=self.sde).samples

        apart = jnp.stack([one(k, v) for k, v in zip(keys, x, strict=True)])
        np.testing.assert_allclose(jax.vmap(one)(keys, x), apart, rtol=1e-5, atol=1e-6)

    def test_gradients_flow(self):
        gradient = jax.grad(lambda x: jnp.sum(self.run(x=x).samples ** 2))(jnp.full(3, 0.1))
        assert np.isfinite(gradient).all()
        assert jnp.abs(gradient).max() > 0

    def test_half_precision_state_keeps_its_type(self):
        assert self.run(x=jnp.ones(3, jnp.bfloat16)).samples.dtype == jnp.bfloat16

    def test_bad_arguments_are_named(self):
        with pytest.raises(ValueError, match=r"noise: expected shape \(8, 4, 3\)"):
            self.run(noise=jnp.ones((7, 4, 3)))
        with pytest.raises(ValueError, match=r"eps: expected a time between 0 and 1.0"):
            self.run(eps=0.0)
        with pytest.raises(ValueError, match="sde: ancestral steps are defined for VP"):
            self.run(step=ancestral_step)
        with pytest.raises(ValueError, match="score_factor: ancestral steps have no other than 1"):
            ancestral_step(VP(), *(jnp.ones(3),) * 3, score_factor=0.5)
