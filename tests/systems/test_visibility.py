"""A third input channel that says which joints are seen, for the systems over windows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.geometry import flip
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from tests.systems import test_diffhpe, test_mixste
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


def check_shapes(system, variables):
    """Nothing is compiled."""
    arguments = (jax.random.key(0), variables, BATCH)
    loss, _ = jax.eval_shape(partial(system.loss, train=True), *arguments)
    assert loss.shape == ()
    result = jax.eval_shape(partial(system.sample, num_hypotheses=1), *arguments)
    assert result.samples.shape == (2, 1, FRAMES, 17, 3)


@pytest.mark.parametrize("name", ["mixste", "d3dp", "ddhpose"])
def test_every_system_trains_and_samples_with_it(name):
    make = test_mixste.make_config if name == "mixste" else partial(make_config, name)
    system = make_system(make(model={"visibility": True}))
    variables = jax.eval_shape(system.init, jax.random.key(0))
    kernel = variables["params"]["embed"]["kernel"]
    assert kernel.shape == ({"mixste": 3, "d3dp": 6, "ddhpose": 7}[name], 16)
    check_shapes(system, variables)


SHOWN = {"num_frames": FRAMES, "visibility": True}


def zero_lifter(**model):
    """Weights of a MixSTE under DiffHPE-Wrapper, all zero: nothing is compiled."""
    sections = {"skeleton": "h36m_17", "loss": {}, "sampler": {}}
    size = {"width": 6, "depth": 1, "num_heads": 2, **model}
    system = make_system({"system": "mixste", "model": size, **sections})
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.mark.parametrize("lifter", ["", "frozen", "trained"])
def test_diffhpe_trains_and_samples_with_it(lifter):
    """The wrapper's lifter is the one that sees the channel."""
    frozen = zero_lifter(**SHOWN) if lifter == "frozen" else None
    name = "diffhpe_wrapper" if lifter else "diffhpe_2d"
    options = SHOWN | ({"lifter": lifter} if lifter else {})
    system = make_system(test_diffhpe.make_config(name, model=options), frozen)
    variables = jax.eval_shape(system.init, jax.random.key(0))
    held = variables["frozen" if lifter == "frozen" else "params"]
    layer = held["lifter"]["embed"] if lifter else held["project"]
    # Without a lifter: three of the pose and three of the keypoints.
    assert layer["kernel"].shape == ((3, 6) if lifter else (6, 8))
    check_shapes(system, variables)


def test_a_lifter_without_the_channel_is_refused():
    config = test_diffhpe.make_config("diffhpe_wrapper", model=SHOWN)
    with pytest.raises(ValueError, match="channels of keypoints 2, expected 3"):
        make_system(config, zero_lifter(num_frames=FRAMES))


def test_nothing_can_be_shown_to_a_model_of_motion_alone():
    config = test_diffhpe.make_config(model={"visibility": True, "condition": "none"})
    with pytest.raises(ValueError, match="visibility: nothing is shown with source='none'"):
        make_system(config)
