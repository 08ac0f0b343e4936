"""Importing and exporting score networks in every layout they come in."""

import jax
import numpy as np
import pytest

from posediff_jax.denoisers.score_mlp import ScoreMLP
from posediff_jax.interop import dump_score_mlp, load_score_mlp
from posediff_jax.interop.zedo import score_mlp_shapes

MODEL = ScoreMLP(5, width=64, embedding=8, num_blocks=2)
CONDITIONAL = ScoreMLP(5, width=64, embedding=8, num_blocks=2, conditional=True)


def layout(joints=5, width=64, embedding=8, blocks=2, *, conditional=False):
    """Names and shapes of the released state dict, from its published table."""
    linears = {"": width, "_t": embedding} | ({"_cond": width} if conditional else {})

    def layer(dense, norm, inputs):
        sizes = linears | {"": inputs}
        entries = {}
        for part, size in sizes.items():
            entries |= {f"{dense}{part}.weight": (width, size), f"{dense}{part}.bias": (width,)}
        return entries | {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}

    entries = {"sigmas": (1000,)} | layer("pre_dense", "pre_gnorm", 3 * joints)
    shared = "shared_time_embed.0"
    entries |= {f"{shared}.weight": (embedding, embedding), f"{shared}.bias": (embedding,)}
    if conditional:
        entries |= {"cond_embed.0.weight": (width, 3 * joints), "cond_embed.0.bias": (width,)}
    for i in range(1, blocks + 1):
        for j in (1, 2):
            entries |= layer(f"b{i}_dense{j}", f"b{i}_gnorm{j}", width)
    return entries | {"post_dense.weight": (3 * joints, width), "post_dense.bias": (3 * joints,)}


def fill(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def training_file(*, prefix="module."):
    online, average = fill(layout(), 1), fill(layout(), 2)
    shadow = [value for key, value in average.items() if key != "sigmas"]
    return {
        "epoch": 1500,
        "step": 10,
        "model_state_dict": {prefix + k: v for k, v in online.items()},
        "optimizer_state_dict": {},
        "ema": {"decay": 0.9999, "num_updates": 10, "shadow_params": shadow},
    }


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("model", [MODEL, CONDITIONAL])
def test_round_trip(model):
    weights = fill(layout(conditional=model.conditional))
    variables = load_score_mlp(weights, model)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, score_mlp_shapes(model))
    again = dump_score_mlp(variables, model, fill_unused=True)
    assert again.keys() == weights.keys()
    for key in weights.keys() - {"sigmas"}:
        np.testing.assert_array_equal(again[key], weights[key])
    assert again["sigmas"].shape == (1000,)
    np.testing.assert_allclose(again["sigmas"][[0, -1]], [50, 0.01])


def test_dump_is_in_the_order_of_the_parameters():
    """The order in which EMA keeps its nameless list."""
    names = [key for key in layout() if key != "sigmas"]
    assert list(dump_score_mlp(load_score_mlp(fill(layout()), MODEL), MODEL)) == names


@pytest.mark.parametrize("prefix", ["", "module."])
def test_training_file(prefix):
    """The list is for the averaged weights, the state dict for the trained ones."""
    file = training_file(prefix=prefix)
    online, average = (load_score_mlp(fill(layout(), seed), MODEL) for seed in (1, 2))
    assert_same(load_score_mlp(file, MODEL), average)
    assert_same(load_score_mlp(file, MODEL, which="online"), online)


def test_prefix_of_the_dump():
    variables = load_score_mlp(fill(layout()), MODEL)
    dumped = dump_score_mlp(variables, MODEL, prefix="module.")
    assert all(key.startswith("module.") for key in dumped)
    assert_same(load_score_mlp(dumped, MODEL), variables)


def test_a_file_without_average_is_refused():
    file = training_file()
    del file["ema"]
    with pytest.raises(ValueError, match="no 'ema' with 'shadow_params'; pass which='online'"):
        load_score_mlp(file, MODEL)


def test_a_short_list_is_refused():
    file = training_file()
    file["ema"]["shadow_params"].pop()
    with pytest.raises(ValueError, match=r"shadow_params: expected 34 arrays, .* got 33"):
        load_score_mlp(file, MODEL)


@pytest.mark.parametrize(
    ("weights", "hint"),
    [
        (layout(joints=6), "num_joints: 6 in the weights, 5 in the model"),
        (layout(width=96), "width: 96 in the weights, 64 in the model"),
        (layout(embedding=16), "embedding: 16 in the weights, 8 in the model"),
        (layout(conditional=True), "conditional: the weights have a condition path"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(weights, hint):
    with pytest.raises(ValueError, match=hint):
        load_score_mlp(fill(weights), MODEL)
