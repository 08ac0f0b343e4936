"""From an experiment's `ConfigDict` to typed, frozen options: unknown fields refused by name."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import jax.numpy as jnp

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")


def read_options(cls: type[Options], fields: Mapping[str, Any], *, where: str) -> Options:
    """Builds the dataclass `cls` from a mapping; absent fields keep their defaults.

    Args:
      cls: A dataclass whose fields are numbers, strings, booleans, tuples or a `Literal`.
      fields: A `ConfigDict` or any mapping.
      where: Path of the section in the config, for messages.

    Raises:
      ValueError: A field that `cls` does not have, or a word that its `Literal` does not have; the
        message lists what there is.
      TypeError: A value of another type than the default's.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    values = {}
    for name, value in fields.items():
        if name not in known:
            raise ValueError(f"{where}.{name}: unknown field; expected one of {sorted(known)}")
        values[name] = _checked(value, hints[name], known[name].default, f"{where}.{name}")
    return cls(**values)


def read_dtype(name: str, *, where: str) -> Any:
    """The compute type of a network: None for "float32", which keeps the type of the data.

    So a float64 run stays float64; "bfloat16" computes in bfloat16 whatever comes in.

    Raises:
      ValueError: Another name.
    """
    dtypes = {"float32": None, "bfloat16": jnp.bfloat16}
    if name not in dtypes:
        raise ValueError(f"{where}: expected one of {sorted(dtypes)}, got {name!r}")
    return dtypes[name]


def _checked(value: Any, hint: Any, default: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = " or ".join(map(repr, get_args(hint)))
            raise ValueError(f"{where}: expected {choices}, got {value!r}")
        return value
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not dataclasses.MISSING and type(value) is not type(default):
        raise TypeError(f"{where}: expected {type(default).__name__}, got {value!r}")
    return value
