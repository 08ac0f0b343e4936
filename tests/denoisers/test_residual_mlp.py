"""Residual MLP against NumPy."""

import jax
import numpy as np
import pytest

from posediff_jax.denoisers.residual_mlp import ResidualMLP
from posediff_jax.skeleton import H36M_17

MODEL = ResidualMLP(H36M_17, width=8, num_blocks=2)
X = np.random.default_rng(0).normal(size=(3, 2, 17, 2)).astype(np.float32)
VARIABLES = MODEL.init(jax.random.key(0), X)


def test_against_numpy():
    """With running statistics 0 and 1 BatchNorm divides by sqrt(1 + 1e-5)."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), VARIABLES["params"])
    norm = 1 / np.sqrt(1 + 1e-5)

    def dense(i, h):
        return h @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]

    def layer(i, h):
        return np.maximum(dense(i, h) * norm, 0)

    h = layer(0, X.reshape(3, 2, 34).astype(np.float64))
    for block in (1, 3):
        h = h + layer(block + 1, layer(block, h))
    expected = dense(5, h).reshape(3, 2, 17, 3)
    np.testing.assert_allclose(MODEL.apply(VARIABLES, X), expected, atol=1e-5)


def test_padding_does_not_count_in_the_statistics():
    mask = np.array([[1, 1], [1, 0], [0, 0]], np.float32)
    spoiled = np.where(mask[..., None, None] > 0, X, 1e3).astype(np.float32)
    outputs, states = zip(
        *(
            MODEL.apply(VARIABLES, x, train=True, mask=mask, mutable=["batch_stats"])
            for x in (X, spoiled)
        ),
        strict=True,
    )
    np.testing.assert_allclose(outputs[0][mask > 0], outputs[1][mask > 0], atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_published_size():
    model = ResidualMLP(H36M_17)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    # Linear layers, four of them square, and two numbers per channel of five normalisations.
    assert count == 34 * 1024 + 4 * 1024**2 + 1024 * 51 + 5 * 1024 + 51 + 5 * 2 * 1024


def test_other_joints_are_refused():
    with pytest.raises(ValueError, match=r"keypoints: expected \(..., 17, 2\)"):
        MODEL.apply(VARIABLES, X[..., :16, :])
