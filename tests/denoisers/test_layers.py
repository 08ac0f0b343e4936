"""Shared layers: PyTorch's initial values, normalisation against NumPy, the sinusoid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.layers import BatchNorm, Dense, sinusoid, uniform_init
from tests.denoisers import numpy_reference as reference


def fills(values, bound):
    """Uniform draws stay within the bound, come near it, and have its standard deviation."""
    values = np.asarray(values)
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.95 * bound
    np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.1)
    return True


class TestDense:
    def test_starts_like_pytorch(self):
        params = Dense(300).init(jax.random.key(0), jnp.zeros((1, 25)))["params"]
        assert fills(params["kernel"], 1 / 5)
        assert fills(params["bias"], 1 / 5)

    def test_is_affine(self):
        x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
        variables = Dense(5).init(jax.random.key(1), x)
        params = jax.tree.map(np.asarray, variables["params"])
        expected = x @ params["kernel"] + params["bias"]
        np.testing.assert_allclose(Dense(5).apply(variables, x), expected, rtol=1e-5, atol=1e-6)

    def test_compute_type_is_an_option_and_parameters_stay_float32(self):
        layer = Dense(5, dtype=jnp.bfloat16)
        variables = layer.init(jax.random.key(1), jnp.zeros((1, 4)))
        assert variables["params"]["kernel"].dtype == jnp.float32
        assert layer.apply(variables, jnp.zeros((1, 4))).dtype == jnp.bfloat16


def test_uniform_init_fills_its_range():
    assert fills(uniform_init(0.3)(jax.random.key(0), (50, 50)), 0.3)


class TestSinusoid:
    def test_against_the_formula(self):
        t = np.array([[0, 1], [7, 99]])
        with jax.enable_x64(True):
            ours = np.asarray(sinusoid(jnp.asarray(t), 12))
        np.testing.assert_allclose(ours, reference.sinusoid(t, 12), atol=1e-13)

    def test_sines_come_first(self):
        np.testing.assert_array_equal(sinusoid(jnp.array(0), 6), [0, 0, 0, 1, 1, 1])

    @pytest.mark.parametrize("width", [2, 5])
    def test_refuses_a_width_that_has_no_frequencies(self, width):
        with pytest.raises(ValueError, match=f"width.*at least 4, got {width}"):
            sinusoid(jnp.array([1]), width)


def normalise(x, mask=None, **options):
    """Output and new running statistics in training mode."""
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x)
    return layer.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"], **options)


class TestBatchNorm:
    x = np.random.default_rng(3).normal(2.0, 3.0, size=(8, 3, 5, 4)).astype(np.float32)

    def test_training_uses_the_statistics_of_the_batch(self):
        y, _ = normalise(self.x)
        ones = {"scale": np.ones(4), "bias": np.zeros(4)}
        expected = reference.batch_norm(ones, None, self.x.astype(np.float64), train=True)
        np.testing.assert_allclose(y, expected, atol=1e-5)

    def test_running_variance_is_unbiased(self):
        _, state = normalise(self.x)
        rows = self.x.reshape(-1, 4).astype(np.float64)
        stats = state["batch_stats"]
        np.testing.assert_allclose(stats["mean"], 0.1 * rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)

    def test_evaluation_uses_the_running_statistics(self):
        p = {"scale": jnp.arange(1.0, 5.0), "bias": jnp.arange(4.0)}
        stats = {"mean": jnp.array([1.0, 2, 3, 4]), "var": jnp.array([4.0, 3, 2, 1])}
        y = BatchNorm().apply({"params": p, "batch_stats": stats}, self.x)
        np.testing.assert_allclose(y, reference.batch_norm(p, stats, self.x), rtol=1e-4, atol=1e-5)

    def test_initialising_in_training_mode_leaves_the_statistics_alone(self):
        stats = BatchNorm().init(jax.random.key(0), self.x, train=True)["batch_stats"]
        np.testing.assert_array_equal(stats["mean"], np.zeros(4))
        np.testing.assert_array_equal(stats["var"], np.ones(4))

    @pytest.mark.parametrize("mask_shape", [(8,), (8, 3)])
    def test_padded_items_do_not_count(self, mask_shape):
        mask = np.ones(mask_shape, np.float32)
        mask[5:] = 0
        padded = self.x.copy()
        padded[5:] = 1e4
        y, state = normalise(padded, mask)
        expected, expected_state = normalise(self.x[:5])
        np.testing.assert_allclose(y[:5], expected, atol=1e-4)
        for name in ("mean", "var"):
            np.testing.assert_allclose(
                state["batch_stats"][name], expected_state["batch_stats"][name], rtol=1e-4
            )

    def test_eight_devices_share_the_statistics_of_one(self):
        mask = (np.arange(8) != 2).astype(np.float32)
        one, one_state = normalise(self.x, mask)

        def on_device(x, mask):
            return normalise(x, mask, axis_name="device")

        split, state = jax.pmap(on_device, axis_name="device")(self.x[:, None], mask[:, None])
        np.testing.assert_allclose(split[:, 0], one, atol=1e-5)
        for name in ("mean", "var"):
            per_device = np.asarray(state["batch_stats"][name])
            np.testing.assert_allclose(per_device[0], one_state["batch_stats"][name], rtol=1e-5)
            np.testing.assert_array_equal(per_device, np.tile(per_device[:1], (8, 1)))

    def test_gradient_flows_through_the_statistics(self):
        """Adding a constant to the batch, or scaling it, changes nothing: so says the gradient."""
        layer = BatchNorm(epsilon=0.0)
        with jax.enable_x64(True):
            x = jnp.asarray(self.x, jnp.float64)
            variables = layer.init(jax.random.key(0), x)

            def value(x):
                y, _ = layer.apply(variables, x, train=True, mutable=["batch_stats"])
                return jnp.sum(y**3)

            gradient = np.asarray(jax.grad(value)(x))
        np.testing.assert_allclose(gradient.sum((0, 1, 2)), np.zeros(4), atol=1e-9)
        np.testing.assert_allclose((gradient * self.x).sum((0, 1, 2)), np.zeros(4), atol=1e-9)
        assert np.abs(gradient).max() > 0.01

    def test_low_precision_input_has_float32_statistics(self):
        x = jnp.asarray(self.x, jnp.bfloat16)
        y, state = normalise(x)
        assert y.dtype == jnp.bfloat16
        exact, exact_state = normalise(np.asarray(x, np.float32))
        np.testing.assert_allclose(
            state["batch_stats"]["var"], exact_state["batch_stats"]["var"], rtol=1e-6
        )
        np.testing.assert_allclose(np.asarray(y, np.float32), exact, rtol=0.01, atol=0.01)

    @pytest.mark.parametrize("masked", [False, True])
    def test_another_axis_may_be_normalised(self, masked):
        """As if that axis were the last; padding counts out for each of its entries apart."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(4, 3, 5, 2)).astype(np.float32)
        mask = np.ones((1, 3, 5), np.float32)
        if masked:
            mask[0, 1, 3:] = mask[0, :, 0] = 0
        norm = BatchNorm(axis=1)
        variables = norm.init(jax.random.key(0), x)
        assert variables["params"]["scale"].shape == (3,)
        options = {"train": True, "mask": mask, "mutable": ["batch_stats"]}
        y, moved = norm.apply(variables, x, **options)
        for frame in range(3):
            kept = x[:, frame, mask[0, frame] > 0]
            expected = (x[:, frame] - kept.mean()) / np.sqrt(kept.var() + 1e-5)
            np.testing.assert_allclose(y[:, frame], expected, atol=1e-5)
            stats = moved["batch_stats"]
            np.testing.assert_allclose(stats["mean"][frame], 0.1 * kept.mean(), atol=1e-6)
            unbiased = 0.9 + 0.1 * kept.var(ddof=1)
            np.testing.assert_allclose(stats["var"][frame], unbiased, rtol=1e-5)
        still = norm.apply(moved | {"params": variables["params"]}, x)
        mean, var = (stats[n][None, :, None, None] for n in ("mean", "var"))
        np.testing.assert_allclose(still, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)

    def test_a_frame_that_is_all_padding_keeps_its_statistics(self):
        x = np.random.default_rng(0).normal(size=(4, 3, 5, 2)).astype(np.float32)
        mask = np.ones((4, 3, 1), np.float32)
        mask[:, 2] = 0
        norm = BatchNorm(axis=1)
        variables = norm.init(jax.random.key(0), x)
        _, moved = norm.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])
        assert moved["batch_stats"]["mean"][2] == 0
        assert moved["batch_stats"]["var"][2] == 1
        assert moved["batch_stats"]["mean"][0] != 0
