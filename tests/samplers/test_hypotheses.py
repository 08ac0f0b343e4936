"""Fan-out, up to rounding: the same hypotheses whatever their number, chunks or neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.keys import frame_keys, item_keys
from posediff_jax.samplers.hypotheses import fan_out


def draw(key, item):
    return {"pose": item["mean"] + jax.random.normal(key, item["mean"].shape)}


ITEMS = {"mean": jnp.arange(5.0)[:, None] * jnp.ones((5, 3)) * 100}
KEYS = item_keys(jax.random.key(0), jnp.arange(5))


def run(num_hypotheses, *, items=ITEMS, keys=KEYS, max_chains=0):
    return fan_out(keys, draw, items, num_hypotheses=num_hypotheses, max_chains=max_chains)["pose"]


def test_adding_hypotheses_keeps_the_first_ones():
    np.testing.assert_allclose(run(8)[:, :3], run(3), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("max_chains", [1, 4, 7, 20, 100])
def test_chunks_change_nothing(max_chains):
    np.testing.assert_allclose(run(4, max_chains=max_chains), run(4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("max_chains", [0, 7, 20, 64])
def test_chains_may_be_run_as_one_batch(max_chains):
    def draw_all(keys, items):
        assert keys.shape == items["mean"].shape[:1]
        return jax.vmap(draw)(keys, items)

    options = {"num_hypotheses": 4, "max_chains": max_chains, "together": True}
    together = fan_out(KEYS, draw_all, ITEMS, **options)["pose"]
    np.testing.assert_allclose(together, run(4), rtol=1e-6, atol=1e-6)


def test_an_item_does_not_depend_on_its_neighbours():
    some = jnp.array([3, 1])
    items = {"mean": ITEMS["mean"][some]}
    keys = item_keys(jax.random.key(0), some)
    np.testing.assert_allclose(run(4, items=items, keys=keys), run(4)[some], rtol=1e-6, atol=1e-6)


def test_hypotheses_and_items_differ():
    noise = (run(4) - ITEMS["mean"][:, None]).reshape(20, 3)
    assert len(np.unique(np.asarray(noise).round(4), axis=0)) == 20


def test_frames_of_an_item_have_keys_of_their_own():
    keys = frame_keys(jax.random.key(0), jnp.array([7, 9]), 3)
    assert keys.shape == (2, 3)
    assert len({tuple(k) for k in np.asarray(jax.random.key_data(keys)).reshape(6, -1)}) == 6
    np.testing.assert_array_equal(
        jax.random.key_data(frame_keys(jax.random.key(0), jnp.array([9]), 2)[0]),
        jax.random.key_data(keys[1, :2]),
    )


def test_memory_is_bounded_by_the_chunk():
    """The largest array of the compiled program does not grow with the hypotheses."""

    def temporary_bytes(max_chains):
        def heavy(key, item):
            wide = jax.random.normal(key, (64, 64)) @ jnp.ones((64, 64))
            return jnp.tanh(wide).sum() + item["mean"]

        jitted = jax.jit(
            lambda keys: fan_out(keys, heavy, ITEMS, num_hypotheses=40, max_chains=max_chains)
        )
        return jitted.lower(KEYS).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < 0.25 * temporary_bytes(0)


def test_one_key_per_item_is_needed():
    with pytest.raises(ValueError, match=r"keys, items: expected one typed key per item"):
        run(2, keys=KEYS[:4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hypotheses": 0}, "num_hypotheses: expected at least 1, got 0"),
        ({"num_hypotheses": 2, "max_chains": -1}, "max_chains: expected 0 .* got -1"),
    ],
)
def test_bad_counts_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fan_out(KEYS, draw, ITEMS, **options)
