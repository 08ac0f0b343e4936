"""Options from a config: typos and wrong types are named."""

import dataclasses
from typing import Literal

import pytest
from ml_collections import ConfigDict

from posediff_jax.config import read_options


@dataclasses.dataclass(frozen=True)
class Options:
    width: int = 64
    rate: float = 0.5
    name: str = "a"
    betas: tuple[float, ...] = (0.9, 0.999)
    flip: bool = True
    walk: Literal["once", "twice"] = "once"


def test_fields_override_defaults():
    options = read_options(Options, ConfigDict({"width": 32, "betas": [0.5, 0.6]}), where="model")
    assert options == Options(width=32, betas=(0.5, 0.6))


def test_an_integer_may_stand_for_a_float():
    rate = read_options(Options, {"rate": 1}, where="model").rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_an_unknown_field_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"model.widht: unknown field; expected one of .*'width'"):
        read_options(Options, {"widht": 32}, where="model")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("width", 32.0, "int"), ("width", True, "int"), ("name", 3, "str"), ("flip", 1, "bool")],
)
def test_a_wrong_type_is_named(field, value, expected):
    with pytest.raises(TypeError, match=rf"model.{field}: expected {expected}, got"):
        read_options(Options, {field: value}, where="model")


def test_another_word_than_the_literals_lists_them():
    with pytest.raises(ValueError, match=r"model.walk: expected 'once' or 'twice', got 'never'"):
        read_options(Options, {"walk": "never"}, where="model")
