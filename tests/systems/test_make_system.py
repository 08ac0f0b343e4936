"""From a config to a system: names at the top are checked, absent sections have defaults."""

import dataclasses

import jax
import pytest
from ml_collections import ConfigDict

from posediff_jax.systems import (
    OTHERS,
    SECTIONS,
    SYSTEMS,
    d3dp,
    ddhpose,
    diffhpe_loss,
    diffupose,
    make_system,
    mixste,
    pose_prior,
    regression,
)


def test_absent_sections_have_the_defaults_of_their_options():
    short = make_system({"system": "residual_mlp", "skeleton": "h36m_17"})
    sections = {"model": {"width": 1024, "num_blocks": 2}, "loss": {"mse": 0.9}, "sampler": {}}
    long = make_system({"system": "residual_mlp", "skeleton": "h36m_17", **sections})
    shapes = [jax.tree.map(lambda x: x.shape, jax.eval_shape(s.init, KEY)) for s in (short, long)]
    assert shapes[0] == shapes[1]


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": {}}, r"config: expected fields of .*'model'.*, got \['modle'\]"),
        ({"system": "magic"}, "system: expected one of"),
    ],
)
def test_names_that_are_not_known(change, message):
    config = {"system": "diffupose", "skeleton": "h36m_17", **change}
    for given in (config, ConfigDict(config)):
        with pytest.raises(ValueError, match=message):
            make_system(given)


FACTORS = {
    "ddhpose": ("position_weight", "length_weight", "direction_weight", "loss_unit"),
    "mixste": ("smoothness_weight", "velocity_weight"),
    "diffupose": ("condition_weight",),
    "residual_mlp": ("mse", "l1", "mpjpe"),
    "modgcn": ("mse", "l1", "mpjpe"),
    "diffhpe_2d": ("time_weight", "side_weight"),
}


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("system", "name"), [(s, n) for s, names in FACTORS.items() for n in names]
)
def test_factors_of_a_loss_are_checked_when_it_is_built(system, name, value):
    config = {"system": system, "skeleton": "h36m_17", "loss": {name: value}}
    message = rf"loss\.{name}: expected a finite factor of at least 0, got {value}"
    with pytest.raises(ValueError, match=message):
        make_system(config)


def test_every_number_of_a_loss_is_a_factor_or_has_a_range_of_its_own():
    """So that a new one is not forgotten above."""
    ranged = {"unconditional", *RANGED_OF_ZEDO}
    for module, system in (
        (ddhpose, "ddhpose"),
        (mixste, "mixste"),
        (d3dp, "d3dp"),
        (diffupose, "diffupose"),
        (regression, "residual_mlp"),
        (diffhpe_loss, "diffhpe_2d"),
        (pose_prior, "zedo"),
    ):
        numbers = {
            f.name for f in dataclasses.fields(module.LossOptions) if isinstance(f.default, float)
        }
        assert numbers - ranged == set(FACTORS.get(system, ())), system


RANGED_OF_ZEDO = (
    *("time_eps", "flip_prob", "rotation_prob", "upright_prob"),
    "proportion_spread",
)


@pytest.mark.parametrize("name", ["system", "skeleton"])
def test_names_that_are_missing(name):
    config = {"system": "diffupose", "skeleton": "h36m_17"}
    del config[name]
    with pytest.raises(ValueError, match=f"config: expected the field '{name}'"):
        make_system(config)


def test_no_name_has_two_meanings():
    names = (*SECTIONS, *OTHERS)
    assert len(set(names)) == len(names)
    assert "residual_mlp" in SYSTEMS
