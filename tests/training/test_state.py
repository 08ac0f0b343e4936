"""The training state."""

import jax
import numpy as np
import pytest

from posediff_jax.training.optimizers import make_optimizer
from posediff_jax.training.state import create_state, eval_variables, state_from_variables
from tests.training.fakes import make_system


def test_state_holds_every_collection_once_and_averaged():
    system, optimizer = make_system(), make_optimizer({})
    state = create_state(jax.random.key(0), system, optimizer, ema=True)
    assert state.step == 0
    assert state.step.dtype == np.int32
    assert set(state.variables) == set(state.ema) == {"params", "batch_stats"}
    for online, average in zip(
        jax.tree.leaves(state.variables), jax.tree.leaves(state.ema), strict=True
    ):
        np.testing.assert_array_equal(online, average)
        assert online is not average


def test_evaluation_prefers_the_average():
    system, optimizer = make_system(), make_optimizer({})
    plain = create_state(jax.random.key(0), system, optimizer)
    assert plain.ema is None
    assert eval_variables(plain) == plain.variables
    averaged = create_state(jax.random.key(0), system, optimizer, ema=True)
    assert eval_variables(averaged) is averaged.ema


def test_key_decides_the_weights():
    system, optimizer = make_system(), make_optimizer({})
    first, again, other = (
        create_state(jax.random.key(seed), system, optimizer).params["w"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_variables_without_params_are_refused():
    with pytest.raises(ValueError, match="params"):
        state_from_variables({"weights": np.zeros(2)}, make_optimizer({}))
