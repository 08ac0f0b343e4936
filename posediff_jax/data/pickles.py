"""Reads pickles of NumPy arrays and plain containers, and lets them run nothing.

Human3.6M and its relatives travel as object arrays, that is as pickles, and a pickle can call any
function by its name and fill any object with any state. Here names lead to the few methods below,
and arrays and dtypes are built from checked parts after the pickle has been read, so that a broken
or hostile file cannot reach NumPy's internals.
"""

import collections
import io
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEXT_ENCODINGS = ("latin1", "latin-1", "ascii", "utf-8", "utf8")


def loads(data: bytes) -> Any:
    """Reads a pickle of dicts, lists, tuples, sets, strings, numbers, and NumPy arrays and scalars.

    Arrays may hold booleans, integers, floats, complex numbers, strings, or objects of this list.

    Args:
      data: The pickle. Strings of Python 2 are read as Latin-1.

    Returns:
      The object.

    Raises:
      ValueError: The pickle is broken, or names anything else; the message says what.
    """
    try:
        _check_memo(data)
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        return _build(loaded, {})
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from None
    # A broken stream can raise nearly anything out of the opcodes it happens to contain.
    except Exception as error:
        raise ValueError(f"broken pickle: {type(error).__name__}: {error}") from error


def _refuse(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(
        f"refused to load {what}: expected NumPy arrays and plain containers only"
    )


def _check_memo(data: bytes) -> None:
    """Refuses memo slots beyond the length of the pickle: Python would allocate all before them."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            slot = int(argument or 0)
            if not 0 <= slot <= len(data):
                raise ValueError(f"memo slot {slot} in a pickle of {len(data)} bytes")


class _Dtype:
    """What a pickle says about a dtype."""

    def __init__(self, spec: Any, *flags: Any):
        self.spec, self.order = spec, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def build(self) -> np.dtype:
        # Refused here: records, sub-arrays, dates.
        if not re.fullmatch(r"[biufcSUO]\d*", self.spec) or self.order not in "<>=|":
            raise _refuse(f"an array of dtype {self.spec!r}")
        return np.dtype(object if self.spec[0] == "O" else self.order + self.spec)


class _Array:
    """What a pickle says about an array; the memo then lets object arrays hold one another."""

    def __init__(self, *nominal: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self, memo: dict[int, Any]) -> NDArray:
        _, shape, stub, fortran_order, data = self.state
        order, dtype = "F" if fortran_order else "C", stub.build()
        if not dtype.hasobject:
            return _from_bytes(data, dtype, shape, order)
        if len(data) != math.prod(shape):
            raise ValueError(f"{len(data)} objects for an array of shape {shape}")
        flat = np.empty(len(data), dtype=object)
        for i, item in enumerate(data):
            flat[i] = _build(item, memo)
        return _shaped(flat, shape, order)


class _Unpickler(pickle.Unpickler):
    """Bound methods, made anew for each pickle, cannot be altered by it."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core").replace("__builtin__", "builtins")
        match module, name:
            case "numpy", "ndarray":
                return "ndarray"  # an argument of _reconstruct, never called
            case "numpy", "dtype":
                return self._dtype
            case "numpy._core.multiarray", "_reconstruct":
                return self._reconstruct
            case "numpy._core.multiarray", "scalar":
                return self._scalar
            case "numpy._core.numeric", "_frombuffer":
                return self._from_buffer
            case "_codecs", "encode":
                return self._encode
            case "builtins", "bytes":
                return self._no_bytes
            case "collections", "OrderedDict":
                return collections.OrderedDict
            case "builtins", "set" | "frozenset" | "complex":
                return {"set": set, "frozenset": frozenset, "complex": complex}[name]
        raise _refuse(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _refuse(f"the external object {pid!r}")

    def _dtype(self, *arguments: Any) -> _Dtype:
        return _Dtype(*arguments)

    def _reconstruct(self, *nominal: Any) -> _Array:
        return _Array(*nominal)

    def _scalar(self, stub: _Dtype, data: Any = b"") -> Any:
        dtype = stub.build()
        if dtype.hasobject:
            raise _refuse("a scalar of dtype object")
        return _from_bytes(data, dtype, (), "C")[()]

    def _from_buffer(self, data: Any, stub: _Dtype, shape: Any, order: str) -> NDArray:
        return _from_bytes(data, stub.build(), shape, order)

    def _no_bytes(self) -> bytes:
        """Python 3 calls `bytes()` for what is empty where the protocol has no bytes."""
        return b""

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding not in _TEXT_ENCODINGS:
            raise _refuse(f"text of encoding {encoding!r}")
        return text.encode(encoding)


def _from_bytes(data: Any, dtype: np.dtype, shape: Any, order: str) -> NDArray:
    raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
    if dtype.itemsize * math.prod(shape) != len(raw):
        raise ValueError(f"{len(raw)} bytes for {dtype} {shape}")
    flat = np.frombuffer(raw, dtype) if raw else np.empty(math.prod(shape), dtype)
    return _shaped(flat, shape, order).copy(order="K")


def _shaped(flat: NDArray, shape: Any, order: str) -> NDArray:
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _build(loaded: Any, memo: dict[int, Any]) -> Any:
    """Replaces stubs by what they stand for; an object that is shared is built once."""
    if not isinstance(loaded, _Dtype | _Array | dict | list | tuple | set | frozenset):
        return loaded
    if id(loaded) in memo:
        if memo[id(loaded)] is None:
            raise _refuse("an object that contains itself")
        return memo[id(loaded)]
    memo[id(loaded)] = None
    result: Any
    if isinstance(loaded, _Dtype):
        result = loaded.build()
    elif isinstance(loaded, _Array):
        result = loaded.build(memo)
    elif isinstance(loaded, dict):
        result = type(loaded)((key, _build(value, memo)) for key, value in loaded.items())
    else:
        result = type(loaded)(_build(item, memo) for item in loaded)
    memo[id(loaded)] = result
    return result
