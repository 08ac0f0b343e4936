"""DDPM and DDIM on data whose best denoiser is known in closed form."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.process.schedules import (
    cosine_schedule,
    linear_schedule,
    prediction_from_eps,
    q_sample,
)
from posediff_jax.samplers.discrete import ddim_times, sample_ddim, sample_ddpm

MEAN, STD = 0.7, 0.2  # of the Gaussian that stands for the data: off centre, so signs show


def gaussian_denoiser(schedule):
    """E[eps | x_t] for data from N(MEAN, STD^2): the exact answer, no network."""

    def predict(x, t):
        a, b = schedule.rates(t)
        eps = b * (x - a * MEAN) / ((a * STD) ** 2 + b**2)
        return prediction_from_eps(schedule, x, t, eps)

    return predict


@pytest.mark.parametrize("schedule", [cosine_schedule(1000), linear_schedule(1000)])
def test_ddpm_reaches_the_data(schedule):
    x = jax.random.normal(jax.random.key(0), (20_000,))
    result = sample_ddpm(jax.random.key(1), gaussian_denoiser(schedule), x, schedule=schedule)
    np.testing.assert_allclose(result.samples.mean(), MEAN, atol=0.01)
    np.testing.assert_allclose(result.samples.std(), STD, atol=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_reaches_the_data_for_every_eta(eta):
    schedule = cosine_schedule(100)
    x = jax.random.normal(jax.random.key(0), (20_000,))
    predict = gaussian_denoiser(schedule)
    result = sample_ddim(jax.random.key(1), predict, x, schedule=schedule, num_steps=100, eta=eta)
    np.testing.assert_allclose(result.samples.mean(), MEAN, atol=0.01)
    np.testing.assert_allclose(result.samples.std(), STD, atol=0.03)


def test_ddim_converges_with_the_number_of_steps():
    """Against the 1000-step run: each doubling of the steps about halves the error."""
    schedule = linear_schedule(1000, dtype=np.float64)
    with jax.enable_x64(True):
        x = jnp.linspace(-2.0, 2.0, 41)
        predict = gaussian_denoiser(schedule)
        run = {
            n: np.asarray(
                sample_ddim(jax.random.key(0), predict, x, schedule=schedule, num_steps=n).samples
            )
            for n in (5, 10, 20, 40, 1000)
        }
    errors = [np.abs(run[n] - run[1000]).max() for n in (5, 10, 20, 40)]
    assert all(later < 0.7 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0] / 4


def test_ddim_with_eta_one_and_all_steps_is_ddpm():
    """The same chain from the same noise, but for the step where abar' reaches 1."""
    schedule = cosine_schedule(20, dtype=np.float64)
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (7,))
        noise = jax.random.normal(jax.random.key(1), (20, 7))
        predict = gaussian_denoiser(schedule)
        ddpm = sample_ddpm(jax.random.key(2), predict, x, schedule=schedule, noise=noise)
        ddim = sample_ddim(
            jax.random.key(2), predict, x, schedule=schedule, num_steps=20, eta=1.0, noise=noise
        )
    np.testing.assert_allclose(ddim.samples, ddpm.samples, rtol=1e-9)


def test_rederive_matters_only_where_x0_is_clipped():
    schedule = cosine_schedule(50)
    x = jax.random.normal(jax.random.key(0), (32,))

    def run(clip, rederive):
        def predict(x_t, t):
            eps = gaussian_denoiser(schedule)(x_t, t).eps
            return prediction_from_eps(schedule, x_t, t, eps, clip=clip)

        options = {"schedule": schedule, "num_steps": 5, "rederive": rederive}
        return sample_ddim(jax.random.key(1), predict, x, **options).samples

    np.testing.assert_allclose(run(None, True), run(None, False), atol=1e-4)
    assert jnp.abs(run(0.5, True) - run(0.5, False)).max() > 1e-2


def keyed_per_chain(sample):
    keys = jax.random.split(jax.random.key(3), 4)
    x = jax.random.normal(jax.random.key(0), (4, 5))
    return sample(keys, x), jnp.stack([sample(k, row) for k, row in zip(keys, x, strict=True)])


@pytest.mark.parametrize("eta", [None, 1.0])
def test_a_key_per_chain_draws_what_each_chain_draws_alone(eta):
    schedule = cosine_schedule(6)
    predict = gaussian_denoiser(schedule)

    def sample(key, x):
        if eta is None:
            return sample_ddpm(key, predict, x, schedule=schedule).samples
        options = {"schedule": schedule, "num_steps": 3, "eta": eta}
        return sample_ddim(key, predict, x, **options).samples

    together, alone = keyed_per_chain(sample)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_the_last_steps_go_on_where_the_first_ones_stopped():
    schedule = cosine_schedule(8)
    predict = gaussian_denoiser(schedule)
    x = jax.random.normal(jax.random.key(0), (5,))
    noise = jax.random.normal(jax.random.key(1), (8, 5))
    key, given = jax.random.key(2), {"schedule": schedule, "return_trajectory": True}
    whole = sample_ddpm(key, predict, x, noise=noise, **given)
    start = whole.trajectory[4]
    rest = sample_ddpm(key, predict, start, noise=noise[5:], last_steps=3, **given)
    np.testing.assert_allclose(rest.trajectory, whole.trajectory[5:], rtol=1e-6)
    ddim = sample_ddim(
        key, predict, start, num_steps=3, eta=1.0, last_steps=3, noise=noise[5:], **given
    )
    # With all of the steps and an eta of 1 both are the same sampler.
    np.testing.assert_allclose(ddim.samples, rest.samples, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last_steps", [0, 9])
def test_last_steps_out_of_range(last_steps):
    schedule = cosine_schedule(8)
    with pytest.raises(ValueError, match=f"last_steps: expected 1 to 8 .*got {last_steps}"):
        sample_ddpm(
            jax.random.key(0),
            gaussian_denoiser(schedule),
            jnp.zeros(2),
            schedule=schedule,
            last_steps=last_steps,
        )


def test_one_step_returns_the_estimate_of_x0():
    schedule = cosine_schedule(100)
    x0, eps = jnp.full((3,), 0.3), jnp.array([-1.0, 0.0, 1.0])
    x = q_sample(schedule, x0, jnp.asarray(99), eps)

    def predict(x_t, t):
        return prediction_from_eps(schedule, x_t, t, eps)

    result = sample_ddim(jax.random.key(0), predict, x, schedule=schedule, num_steps=1)
    np.testing.assert_allclose(result.samples, x0, atol=2e-3)  # sqrt(1 / abar_99) is 2029


def test_ddim_records_what_it_is_asked_to():
    schedule, x = cosine_schedule(8), jnp.ones((2, 3))

    def predict(x, t):
        return prediction_from_eps(schedule, x, t, jnp.tanh(x), clip=1.0)

    def run(**options):
        key = jax.random.key(0)
        return sample_ddim(key, predict, x, schedule=schedule, num_steps=4, eta=1.0, **options)

    result = run(record=lambda prediction: prediction.x0, return_trajectory=True)
    assert result.records.shape == (4, 2, 3)
    np.testing.assert_allclose(result.records[-1], result.samples, atol=1e-6)
    before = result.trajectory[1]
    expected = predict(before, int(ddim_times(8, 4)[2])).x0
    np.testing.assert_allclose(result.records[2], expected, atol=1e-6)
    assert run().records is None
    last = run(record=lambda prediction: prediction.x0, last_record_like=x).records
    np.testing.assert_allclose(last, result.records[-1], rtol=1e-6)


def test_the_grid_of_timesteps():
    assert ddim_times(100, 2).tolist() == [99, 49, -1]
    assert ddim_times(100, 10).tolist() == [*range(99, 0, -10), -1]
    assert ddim_times(100, 20).tolist() == [*range(99, 0, -5), -1]
    assert ddim_times(7, 7).tolist() == [6, 5, 4, 3, 2, 1, 0, -1]


SAMPLERS = [
    lambda *args, **kw: sample_ddpm(*args, schedule=cosine_schedule(4), **kw),
    lambda *args, **kw: sample_ddim(*args, schedule=cosine_schedule(8), num_steps=4, eta=1.0, **kw),
]


@pytest.mark.parametrize("sample", SAMPLERS)
class TestContract:
    """What every discrete sampler promises."""

    def predict(self, x, t):
        return prediction_from_eps(cosine_schedule(8), x, t, jax.tree.map(jnp.tanh, x), clip=1.0)

    def test_state_may_be_any_pytree(self, sample):
        x = {"a": jnp.ones((2, 3)), "b": jnp.zeros((5,))}
        result = sample(jax.random.key(0), self.predict, x, return_trajectory=True)
        chex.assert_trees_all_equal_shapes_and_dtypes(result.samples, x)
        assert result.trajectory["a"].shape == (4, 2, 3)
        np.testing.assert_array_equal(result.trajectory["b"][-1], result.samples["b"])
        # Leaves draw their own normals.
        assert not np.allclose(result.trajectory["a"][0, 0], result.trajectory["b"][0, :3])

    def test_trajectory_is_left_out_unless_asked_for(self, sample):
        assert sample(jax.random.key(0), self.predict, jnp.ones(3)).trajectory is None

    def test_vmap_equals_a_loop(self, sample):
        keys, x = jax.random.split(jax.random.key(0), 3), jnp.linspace(-1, 1, 12).reshape(3, 4)
        together = jax.vmap(lambda k, v: sample(k, self.predict, v).samples)(keys, x)
        apart = [sample(k, self.predict, v).samples for k, v in zip(keys, x, strict=True)]
        np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-6, atol=1e-6)

    def test_other_keys_give_other_samples(self, sample):
        x = jnp.zeros((4,))
        one, two = (sample(jax.random.key(s), self.predict, x).samples for s in (0, 1))
        assert jnp.abs(one - two).max() > 1e-3

    def test_given_noise_replaces_the_key(self, sample):
        x, noise = jnp.ones((3,)), jnp.ones((4, 3))
        one, two = (sample(jax.random.key(s), self.predict, x, noise=noise).samples for s in (0, 1))
        np.testing.assert_array_equal(one, two)

    def test_noise_of_the_wrong_shape_is_refused(self, sample):
        with pytest.raises(ValueError, match=r"noise: expected shapes \(4, 3\)"):
            sample(jax.random.key(0), self.predict, jnp.ones(3), noise=jnp.ones((3, 3)))

    def test_gradients_flow_through_the_chain(self, sample):
        def loss(x):
            return jnp.sum(sample(jax.random.key(0), self.predict, x).samples ** 2)

        gradient = jax.grad(loss)(jnp.full((3,), 0.1))
        assert np.isfinite(gradient).all()
        assert jnp.abs(gradient).max() > 0

    def test_traced_once_for_all_calls(self, sample):
        traces = []

        @jax.jit
        def run(key, x):
            traces.append(1)
            return sample(key, self.predict, x).samples

        for seed in range(3):
            run(jax.random.key(seed), jnp.ones(3) * seed)
        assert len(traces) == 1

    def test_half_precision_state_keeps_its_type(self, sample):
        x = jnp.ones((3,), jnp.bfloat16)
        assert sample(jax.random.key(0), self.predict, x).samples.dtype == jnp.bfloat16


@pytest.mark.parametrize("num_steps", [0, 101, -3])
def test_step_count_out_of_range_is_named(num_steps):
    with pytest.raises(ValueError, match=rf"num_steps: expected 1 to 100 .*got {num_steps}"):
        ddim_times(100, num_steps)


def test_eta_out_of_range_is_named():
    schedule = cosine_schedule(8)
    with pytest.raises(ValueError, match=r"eta: expected a value in \[0, 1\], got 1.5"):
        sample_ddim(
            jax.random.key(0),
            gaussian_denoiser(schedule),
            jnp.ones(3),
            schedule=schedule,
            num_steps=4,
            eta=1.5,
        )
