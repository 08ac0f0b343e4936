"""PyTorch state dicts and linen variables: a key map, and the two ways along it.

A state dict is a mapping from name to NumPy array (`{k: v.numpy() for k, v in sd.items()}`). A key
map lists, for one network, which entry belongs to which variable and how its axes are turned.
Values keep their type and their bits in both directions.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posediff_jax.types import Variables

Which = Literal["ema", "online"]
StateDict = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the axes of one entry turn; `to_torch` undoes `to_linen`.

    Attributes:
      to_linen: From the PyTorch array.
      to_torch: From the linen array.
    """

    to_linen: Callable[[NDArray], NDArray]
    to_torch: Callable[[NDArray], NDArray]


SAME = Layout(lambda a: a, lambda a: a)
# Linear (out, in); 1x1 convolutions over one axis (out, in, 1) and two (out, in, 1, 1).
LINEAR = Layout(lambda a: a.T, lambda a: a.T)
CONV1 = Layout(lambda a: a[..., 0].T, lambda a: a.T[..., None])
CONV2 = Layout(lambda a: a[..., 0, 0].T, lambda a: a.T[..., None, None])
# A 1x1 convolution to one channel without bias is a vector: (1, in, 1, 1) and (in,).
PROJECTION2 = Layout(lambda a: a[0, :, 0, 0], lambda a: a[None, :, None, None])


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a key map.

    Attributes:
      key: Name in the state dict.
      path: Where it lives in the variables, collection first.
      layout: How its axes turn.
    """

    key: str
    path: tuple[str, ...]
    layout: Layout = SAME


def batch_norm_entries(key: str, path: tuple[str, ...]) -> list[Entry]:
    """The entries of a `BatchNorm` at `path` (without the collection)."""
    return [
        Entry(f"{key}.weight", ("params", *path, "scale")),
        Entry(f"{key}.bias", ("params", *path, "bias")),
        Entry(f"{key}.running_mean", ("batch_stats", *path, "mean")),
        Entry(f"{key}.running_var", ("batch_stats", *path, "var")),
    ]


def linear_entries(key: str, path: tuple[str, ...], layout: Layout = LINEAR) -> list[Entry]:
    """The entries of a `Dense` at `path` (without the collection), a linear layer or 1x1 conv."""
    return [
        Entry(f"{key}.weight", ("params", *path, "kernel"), layout),
        Entry(f"{key}.bias", ("params", *path, "bias")),
    ]


def load_state_dict(
    state_dict: Mapping[str, Any],
    key_map: Sequence[Entry],
    template: Variables,
    *,
    ignored: Callable[[str], bool] = lambda key: False,
    hint: str = "",
) -> dict[str, Any]:
    """Builds variables from a state dict, checked by key and shape.

    Args:
      state_dict: Name to array.
      key_map: One entry per variable.
      template: Variables of the network, or their shapes (`jax.eval_shape` of its `init`).
      ignored: Tells which further names may be there; they are left out.
      hint: Last line of the error message, where the caller knows the likely cause.

    Returns:
      Nested dict with the structure of `template` and NumPy leaves of the state dict's types.

    Raises:
      ValueError: Missing or unknown names, or wrong shapes; one error lists them all.
      TypeError: A value is not a numeric array.
    """
    arrays = {k: _as_array(k, v) for k, v in state_dict.items() if not ignored(k)}
    known = {entry.key for entry in key_map}
    problems = [f"unknown key {k!r}, shape {a.shape}" for k, a in arrays.items() if k not in known]
    variables: dict[str, Any] = {}
    for entry in key_map:
        expected = _torch_shape(entry, template)
        array = arrays.get(entry.key)
        if array is None:
            problems.append(f"missing key {entry.key!r}, expected shape {expected}")
        elif array.shape != expected:
            problems.append(f"{entry.key!r}: expected shape {expected}, got {array.shape}")
        else:
            _put(variables, entry.path, np.array(entry.layout.to_linen(array), order="C"))
    if problems:
        lines = [f"state_dict: {len(problems)} entries do not fit the model", *problems]
        raise ValueError("\n  ".join([*lines, hint] if hint else lines))
    return variables


def dump_state_dict(variables: Variables, key_map: Sequence[Entry]) -> StateDict:
    """Writes variables, or anything shaped like them such as gradients, under PyTorch's names.

    Args:
      variables: Linen variables. A collection that is absent is left out, so
        `{"params": gradients}` works; one that is present must be complete.
      key_map: One entry per variable.

    Raises:
      ValueError: A variable of the key map is missing.
    """
    state_dict: StateDict = {}
    for entry in key_map:
        if entry.path[0] in variables:
            value = np.asarray(_get(variables, entry.path))
            state_dict[entry.key] = np.array(entry.layout.to_torch(value), order="C")
    return state_dict


def select_weights(checkpoint: Mapping[str, Any], *, which: Which = "ema") -> dict[str, Any]:
    """Finds one network's weights in what a PyTorch checkpoint file holds.

    Knows a training file (`model`, `ema`, ...), a file with a `state_dict`, the state dict of an
    EMA wrapper (`ema_model.*`, `online_model.*`) and plain state dicts; `module.`, which
    DataParallel writes, is stripped.

    Args:
      checkpoint: Content of the file, or a part of it.
      which: "ema" for the averaged weights, as the authors evaluate; "online" for the trained
        ones. A dict that holds one copy only, and does not say of which kind, is taken as it is.

    Raises:
      TypeError: `checkpoint` is not a mapping with string keys.
      ValueError: `which` is unknown, or the checkpoint holds weights of the other kind only.
    """
    if which not in ("ema", "online"):
        raise ValueError(f"which: expected 'ema' or 'online', got {which!r}")
    _check_mapping("checkpoint", checkpoint)
    for name in ("ema", "model") if which == "ema" else ("model", "ema"):
        if isinstance(checkpoint.get(name), Mapping):
            return select_weights(_claimed(checkpoint, name, which), which=which)
    if isinstance(checkpoint.get("state_dict"), Mapping):
        return select_weights(checkpoint["state_dict"], which=which)
    keys = dict(checkpoint)
    if any(k.startswith(("ema_model.", "online_model.")) for k in keys):
        keys = _unwrap_ema(keys, which)
    return _strip(keys, "module.") if _all_under(keys, "module.") else keys


def _claimed(checkpoint: Mapping[str, Any], name: str, which: Which) -> Mapping[str, Any]:
    """The part `name` of a training file; refuses trained weights where averaged ones are asked."""
    if which == "ema" and name == "model":
        raise ValueError(
            "which: the checkpoint has 'model' (trained weights) but no 'ema'; pass which='online'"
        )
    return checkpoint[name]


def _unwrap_ema(keys: dict[str, Any], which: Which) -> dict[str, Any]:
    prefix = f"{which}_model."
    if not any(k.startswith(prefix) for k in keys):
        raise ValueError(f"which: {which!r} needs keys under {prefix!r}, the checkpoint has none")
    counters = ("initted", "step")
    rest = {
        k: v
        for k, v in keys.items()
        if not k.startswith(("ema_model.", "online_model.")) and k not in counters
    }
    return _strip({k: v for k, v in keys.items() if k.startswith(prefix)}, prefix) | rest


def _all_under(keys: Iterable[str], prefix: str) -> bool:
    keys = list(keys)
    return bool(keys) and all(k.startswith(prefix) for k in keys)


def _strip(keys: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in keys.items()}


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise TypeError(f"{name}: expected a mapping from names to arrays, got {type(value)}")


def _as_array(key: str, value: object) -> NDArray:
    array = np.asarray(value)
    # Kind V holds ml_dtypes' bfloat16.
    if array.dtype.kind not in "biufV":
        raise TypeError(f"state_dict: {key!r}: expected a numeric array, got {type(value)}")
    return array


def _torch_shape(entry: Entry, template: Variables) -> tuple[int, ...]:
    shape = _get(template, entry.path).shape
    return entry.layout.to_torch(np.broadcast_to(np.int8(0), shape)).shape


def _get(tree: Any, path: tuple[str, ...]) -> Any:
    for i, name in enumerate(path):
        if not isinstance(tree, Mapping) or name not in tree:
            raise ValueError(f"variables: missing {'/'.join(path[: i + 1])!r}")
        tree = tree[name]
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], value: NDArray) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
