"""Graph layers with weights of each joint: joint by joint in NumPy, initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.graph import mean_adjacency
from posediff_jax.denoisers.joint_graph import (
    CHANNELS,
    FRAMES,
    JointGraphLayer,
    PreAggregatedConv,
)
from posediff_jax.skeleton import H36M_16, H36M_17
from tests.denoisers import numpy_reference as reference
from tests.denoisers.test_graph import run
from tests.denoisers.test_layers import fills

X = np.random.default_rng(0).normal(size=(16, 3, 2, 5))


def test_a_joint_and_its_neighbours_have_equal_shares():
    A = mean_adjacency(H36M_17)
    degrees = np.count_nonzero(A, axis=1)
    assert (degrees[0], degrees[8], degrees[3], degrees[2]) == (4, 5, 2, 3)
    np.testing.assert_array_equal(A[0, [0, 1, 4, 7]], np.float32(1 / 4))
    np.testing.assert_array_equal(A[2, [1, 2, 3]], np.float32(1 / 3))
    assert not np.allclose(A, A.T)


@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("axis", [CHANNELS, FRAMES])
def test_convolution_against_numpy(axis, decoupled):
    conv = PreAggregatedConv(7, H36M_16, axis, decoupled=decoupled)
    variables = reference.random_variables(conv, X)
    W, A = variables["params"]["W"], mean_adjacency(H36M_16)
    assert W.shape == (1 + decoupled, 16, X.shape[axis], 7)
    rows = np.moveaxis(X, axis, -1)
    y = np.zeros((*rows.shape[:-1], 7)) + variables["params"]["bias"]
    for i in range(16):
        for j in range(16):
            own = decoupled and i == j
            y[i] += A[i, j] * (rows[j] @ (W[0, j] if own else W[-1, j]))
    np.testing.assert_allclose(run(conv, variables, X), np.moveaxis(y, -1, axis), atol=1e-12)


@pytest.mark.parametrize(
    ("axis", "size", "bound"), [(FRAMES, 27, 0.02943), (CHANNELS, 64, 0.012416)]
)
def test_initial_values_are_those_of_the_release(axis, size, bound):
    """Ten times smaller than those of a matrix, since PyTorch takes joints for a kernel."""
    shape = (17, size, 1, 1) if axis == FRAMES else (17, 1, 1, size)
    conv = PreAggregatedConv(size, H36M_17, axis)
    params = jax.jit(conv.init)(jax.random.key(0), jnp.zeros(shape))["params"]
    np.testing.assert_allclose(np.abs(params["W"]).max(), bound, rtol=2e-3)
    assert fills(params["W"], 1.414 * np.sqrt(6 / (19 * size**2)))
    assert np.abs(params["bias"]).max() <= size**-0.5


@pytest.mark.parametrize("axis", [CHANNELS, FRAMES])
def test_layer_normalises_along_what_it_maps(axis):
    layer = JointGraphLayer(H36M_16, axis)
    variables = reference.random_variables(layer, X)
    p, stats = variables["params"], variables["batch_stats"]
    y = run(PreAggregatedConv(X.shape[axis], H36M_16, axis), {"params": p["conv"]}, X)
    rows = reference.batch_norm(p["bn"], stats["bn"], np.moveaxis(y, axis, -1))
    expected = np.moveaxis(np.maximum(rows, 0), -1, axis)
    np.testing.assert_allclose(run(layer, variables, X), expected, atol=1e-12)


def test_dropout_is_for_training_only():
    layer = JointGraphLayer(H36M_16, CHANNELS, dropout=0.5)
    variables = jax.tree.map(np.float32, reference.random_variables(layer, X))
    x = X.astype(np.float32)
    plain, _ = layer.clone(dropout=0.0).apply(variables, x, train=True, mutable=["batch_stats"])
    rngs = {"dropout": jax.random.key(0)}
    y, _ = layer.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
    kept = np.asarray(y) != 0
    np.testing.assert_allclose(np.asarray(y)[kept], 2 * np.asarray(plain)[kept], rtol=1e-5)
    assert 0.3 < kept.sum() / (np.asarray(plain) != 0).sum() < 0.7
    np.testing.assert_array_equal(
        layer.apply(variables, x), layer.clone(dropout=0.0).apply(variables, x)
    )
