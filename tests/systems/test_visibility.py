"""A third input channel that says which joints are seen, for the systems over windows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.geometry import flip
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from tests.systems import test_mixste
from tests.systems.test_diffupose import make_batch
from tests.systems.windows import FRAMES, make_config

SEEN = (np.random.default_rng(0).uniform(size=(2, FRAMES, 17)) > 0.3).astype(np.float32)
BATCH = make_batch(2, frames=FRAMES).replace(confidence=SEEN)


def with_channel(variables, row):
    """MixSTE's weights with one more row of the first layer."""
    kernel = variables["params"]["embed"]["kernel"]
    embed = {**variables["params"]["embed"], "kernel": jnp.concatenate([kernel, row])}
    return {"params": {**variables["params"], "embed": embed}}


@pytest.fixture(scope="module")
def draw():
    system = make_system(test_mixste.make_config(model={"visibility": True}))
    run = jax.jit(partial(system.sample, num_hypotheses=1))
    return lambda variables, batch: np.asarray(run(jax.random.key(0), variables, batch).samples)


def test_a_channel_without_weight_changes_nothing(draw):
    plain = test_mixste.variables()
    found = draw(with_channel(plain, jnp.zeros((1, 16))), BATCH)
    np.testing.assert_allclose(found, test_mixste.sample(BATCH), atol=1e-6)


def test_a_channel_with_weight_is_seen_and_mirrored(draw):
    # Not the same for all channels: layer norms take away what is.
    weights = with_channel(test_mixste.variables(), jnp.linspace(-1, 1, 16)[None])
    found = draw(weights, BATCH)
    others = draw(weights, BATCH.replace(confidence=np.ones_like(SEEN)))
    assert np.abs(found - others).max() > 1e-3
    # What counts is whether, not how surely, a joint is seen.
    unsure = draw(weights, BATCH.replace(confidence=0.1 * SEEN))
    np.testing.assert_array_equal(unsure, found)
    mirrored = BATCH.replace(
        keypoints=np.asarray(flip(BATCH.keypoints, H36M_17)),
        confidence=SEEN[..., list(H36M_17.flip_permutation)],
    )
    np.testing.assert_allclose(flip(draw(weights, mirrored), H36M_17), found, atol=1e-5)


@pytest.mark.parametrize("name", ["mixste", "d3dp", "ddhpose"])
def test_every_system_trains_and_samples_with_it(name):
    """Shapes only: nothing is compiled."""
    make = test_mixste.make_config if name == "mixste" else partial(make_config, name)
    system = make_system(make(model={"visibility": True}))
    variables = jax.eval_shape(system.init, jax.random.key(0))
    kernel = variables["params"]["embed"]["kernel"]
    assert kernel.shape == ({"mixste": 3, "d3dp": 6, "ddhpose": 7}[name], 16)
    arguments = (jax.random.key(0), variables, BATCH)
    loss, _ = jax.eval_shape(partial(system.loss, train=True), *arguments)
    assert loss.shape == ()
    result = jax.eval_shape(partial(system.sample, num_hypotheses=1), *arguments)
    assert result.samples.shape == (2, 1, FRAMES, 17, 3)
