"""Transformer layers against NumPy and SciPy; stochastic depth by its statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from posediff_jax.denoisers.transformer import (
    MLP,
    Attention,
    Block,
    DropPath,
    drop_path_rates,
    layer_norm,
)
from tests.denoisers.numpy_reference import random_variables


def example(shape=(2, 3, 5, 8)):
    return np.random.default_rng(0).normal(size=shape)


def run(model, x):
    variables = random_variables(model, x)
    with jax.enable_x64(True):
        return variables["params"], np.asarray(model.apply(variables, jnp.asarray(x)))


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def attend(p, tokens, heads):
    """One sequence (N, C), head by head, from channels [q of all heads, k, v]."""
    q, k, v = np.split(dense(p["qkv"], tokens), 3, axis=-1)
    size = tokens.shape[-1] // heads
    out = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        out.append(softmax(q[:, part] @ k[:, part].T / np.sqrt(size), axis=-1) @ v[:, part])
    return dense(p["proj"], np.concatenate(out, axis=-1))


def attend_all(p, x, heads, axis):
    out = np.zeros_like(x)
    for b, f, j in np.ndindex(*x.shape[:-1]):
        if axis == "joints" and j == 0:
            out[b, f] = attend(p, x[b, f], heads)
        if axis == "frames" and f == 0:
            out[b, :, j] = attend(p, x[b, :, j], heads)
    return out


def normalise(p, x, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]
    )


def feed_forward(p, x):
    h = dense(p["fc1"], x)
    return dense(p["fc2"], h * 0.5 * (1 + erf(h / np.sqrt(2))))


@pytest.mark.parametrize("axis", ["joints", "frames"])
def test_attention_runs_along_one_axis(axis):
    x = example()
    p, y = run(Attention(2, axis), x)
    np.testing.assert_allclose(y, attend_all(p, x, 2, axis), atol=1e-12)


def test_attention_needs_heads_that_divide_the_width():
    with pytest.raises(ValueError, match="num_heads: expected a divisor of the width 8, got 3"):
        Attention(3, "joints").init(jax.random.key(0), example())


@pytest.mark.parametrize("epsilon", [1e-6, 1e-5])
def test_layer_norm_near_zero_variance(epsilon):
    """Where the two epsilons of the papers' code differ, and one-pass variances fail."""
    x = 100 + 1e-3 * example()
    p, y = run(layer_norm(epsilon=epsilon), x)
    np.testing.assert_allclose(y, normalise(p, x, epsilon), rtol=1e-9, atol=1e-9)


def test_mlp_has_twice_the_width_and_the_exact_gelu():
    x = example()
    p, y = run(MLP(), x)
    assert p["fc1"]["kernel"].shape == (8, 16)
    np.testing.assert_allclose(y, feed_forward(p, x), atol=1e-12)


@pytest.mark.parametrize("axis", ["joints", "frames"])
def test_block(axis):
    x = example()
    p, y = run(Block(2, axis), x)
    mid = x + attend_all(p["attention"], normalise(p["norm1"], x, 1e-6), 2, axis)
    expected = mid + feed_forward(p["mlp"], normalise(p["norm2"], mid, 1e-6))
    np.testing.assert_allclose(y, expected, atol=1e-12)


class TestDropPath:
    def drop(self, axis, rate=0.3, shape=(64, 9, 5, 2), **options):
        layer = DropPath(rate, axis)
        rngs = {"drop_path": jax.random.key(3)}
        return np.asarray(layer.apply({}, jnp.ones(shape), rngs=rngs, **{"train": True, **options}))

    @pytest.mark.parametrize(("axis", "rows"), [("joints", (64, 9)), ("frames", (64, 5))])
    def test_rows_are_dropped_whole_and_the_rest_is_rescaled(self, axis, rows):
        y = self.drop(axis)
        first = y[:, :, 0, 0] if axis == "joints" else y[:, 0, :, 0]
        assert first.shape == rows
        wide = first[:, :, None, None] if axis == "joints" else first[:, None, :, None]
        np.testing.assert_array_equal(y, np.broadcast_to(wide, y.shape))
        assert set(np.unique(first).tolist()) == {0.0, float(np.float32(1) / np.float32(0.7))}
        share = np.mean(first > 0)
        assert abs(share - 0.7) < 4 * np.sqrt(0.21 / first.size)
        assert np.any(first.max(axis=1) != first.min(axis=1)), "rows of one window are independent"

    def test_nothing_happens_in_evaluation(self):
        np.testing.assert_array_equal(self.drop("joints", train=False), 1)

    def test_rate(self):
        with pytest.raises(ValueError, match=r"rate: expected 0 <= rate < 1, got 1\.0"):
            self.drop("joints", rate=1.0)

    def test_the_branches_of_a_block_are_drawn_apart(self):
        """With both branches dropped a row stays as it is; with one it does not."""
        x = example((64, 3, 5, 8))
        block = Block(2, "joints", drop_path=0.5)
        variables = random_variables(block, x)
        run = jax.jit(lambda k: block.apply(variables, x, train=True, rngs={"drop_path": k}))
        untouched = np.all(np.asarray(run(jax.random.key(0))) == np.float32(x), axis=(2, 3))
        assert abs(np.mean(untouched) - 0.25) < 4 * np.sqrt(0.1875 / untouched.size)


def test_rates_rise_linearly():
    np.testing.assert_allclose(drop_path_rates(8, 0.1), np.linspace(0, 0.1, 8))
    assert drop_path_rates(1, 0.1) == (0.0,)
    with pytest.raises(ValueError, match="depth: expected at least 1, got 0"):
        drop_path_rates(0, 0.1)
