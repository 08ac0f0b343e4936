"""Key maps in general: layouts that undo each other, what is an array, which part is read."""

import numpy as np
import pytest

from posediff_jax.interop.state_dict import (
    CONV1,
    CONV2,
    LINEAR,
    PROJECTION2,
    SAME,
    Entry,
    dump_state_dict,
    load_state_dict,
    select_weights,
)

TEMPLATE = {"params": {"layer": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}}}
KEY_MAP = [
    Entry("linear.weight", ("params", "layer", "kernel"), LINEAR),
    Entry("linear.bias", ("params", "layer", "bias")),
]
WEIGHT = np.arange(6.0).reshape(2, 3)
STATE = {"linear.weight": WEIGHT, "linear.bias": np.ones(2)}


@pytest.mark.parametrize(
    ("layout", "torch_shape", "linen_shape"),
    [
        (SAME, (2, 3, 4), (2, 3, 4)),
        (LINEAR, (5, 4), (4, 5)),
        (CONV1, (5, 4, 1), (4, 5)),
        (CONV2, (5, 4, 1, 1), (4, 5)),
        (PROJECTION2, (1, 4, 1, 1), (4,)),
    ],
)
def test_layouts_undo_each_other(layout, torch_shape, linen_shape):
    array = np.random.default_rng(0).normal(size=torch_shape)
    turned = layout.to_linen(array)
    assert turned.shape == linen_shape
    np.testing.assert_array_equal(layout.to_torch(turned), array)


def test_load_and_dump():
    variables = load_state_dict(STATE, KEY_MAP, TEMPLATE)
    np.testing.assert_array_equal(variables["params"]["layer"]["kernel"], WEIGHT.T)
    dumped = dump_state_dict(variables, KEY_MAP)
    assert list(dumped) == ["linear.weight", "linear.bias"]
    np.testing.assert_array_equal(dumped["linear.weight"], WEIGHT)


def test_types_are_kept():
    half = {k: v.astype(np.float16) for k, v in STATE.items()}
    loaded = load_state_dict(half, KEY_MAP, TEMPLATE)["params"]["layer"]
    assert {a.dtype for a in loaded.values()} == {np.dtype(np.float16)}


def test_ignored_names_are_left_out_unread():
    state = STATE | {"linear.note": "not an array"}
    loaded = load_state_dict(state, KEY_MAP, TEMPLATE, ignored=lambda key: key.endswith("note"))
    assert set(loaded["params"]["layer"]) == {"kernel", "bias"}


def test_hint_is_the_last_line_of_the_error():
    with pytest.raises(ValueError, match=r"missing key 'linear.bias'.*\n.*try another model$"):
        load_state_dict({"linear.weight": WEIGHT}, KEY_MAP, TEMPLATE, hint="try another model")


@pytest.mark.parametrize("value", ["text", None, [object()], np.array(["a"])])
def test_values_must_be_numeric_arrays(value):
    with pytest.raises(TypeError, match=r"'linear\.bias': expected a numeric array"):
        load_state_dict(STATE | {"linear.bias": value}, KEY_MAP, TEMPLATE)


class TestSelectWeights:
    def test_unknown_which(self):
        with pytest.raises(ValueError, match="which: expected 'ema' or 'online', got 'best'"):
            select_weights(STATE, which="best")

    @pytest.mark.parametrize("checkpoint", [None, [1, 2], {0: WEIGHT}])
    def test_not_a_state_dict(self, checkpoint):
        with pytest.raises(TypeError, match="checkpoint: expected a mapping from names to arrays"):
            select_weights(checkpoint)

    def test_module_is_stripped_only_where_all_names_have_it(self):
        assert list(select_weights({"module.a": 1, "module.b": 2})) == ["a", "b"]
        assert list(select_weights({"module.a": 1, "b": 2})) == ["module.a", "b"]

    def test_strays_beside_averaged_weights_are_kept_for_the_error(self):
        found = select_weights({"ema_model.a": 1, "online_model.a": 2, "initted": 1, "stray": 3})
        assert found == {"a": 1, "stray": 3}
