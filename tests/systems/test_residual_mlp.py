"""Residual MLP as a system; loss and sampling are tested with Modulated-GCN, which shares them."""

import jax
import numpy as np
import pytest

from posediff_jax.systems import make_system
from tests.systems.test_modgcn import make_batch

CONFIG = {
    "system": "residual_mlp",
    "skeleton": "h36m_17",
    "model": {"width": 16, "num_blocks": 1},
    "loss": {"mpjpe": 1.0, "mse": 0.0, "l1": 0.0},
}


def test_trains_and_lifts():
    system = make_system(CONFIG)
    variables = system.init(jax.random.key(0))
    batch = make_batch(joints=17)

    def loss(params):
        values = {**variables, "params": params}
        return system.loss(jax.random.key(1), values, batch, train=True)[0]

    before, gradient = jax.jit(jax.value_and_grad(loss))(variables["params"])
    step = jax.tree.map(lambda p, g: p - 0.05 * g, variables["params"], gradient)
    assert loss(step) < before
    samples = system.sample(jax.random.key(2), variables, batch, num_hypotheses=1).samples
    assert samples.shape == (8, 1, 2, 17, 3)
    np.testing.assert_array_equal(samples[..., 0, :], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"widht": 8}}, "model.widht: unknown field"),
        ({"model": {"width": 0}}, "model.width: expected at least 1"),
        ({"model": {"dtype": "int8"}}, "model.dtype: expected one of"),
        ({"loss": {"mse": -1.0}}, "loss.mse: expected a finite factor of at least 0"),
    ],
)
def test_a_bad_config_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_system(CONFIG | change)


def test_it_is_deterministic():
    system = make_system(CONFIG)
    batch = make_batch(joints=17)
    with pytest.raises(ValueError, match="the residual MLP is deterministic and has one answer"):
        system.sample(jax.random.key(0), {}, batch, num_hypotheses=2)
    with pytest.raises(ValueError, match="frozen: expected None"):
        make_system(CONFIG, frozen={"params": {}})
