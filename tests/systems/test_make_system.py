"""From a config to a system: names at the top are checked, absent sections have defaults."""

import jax
import pytest
from ml_collections import ConfigDict

from posediff_jax.systems import OTHERS, SECTIONS, SYSTEMS, make_system


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
