"""Reads `.npz` files without trusting them: a bad one is a readable error, never code that runs.

Writes them so that a file is whole or not there.
"""

import io
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data import pickles

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: str | pathlib.Path, *, objects: bool = False) -> dict[str, Any]:
    """Reads all arrays of an `.npz` file into memory.

    Args:
      path: The file.
      objects: Also read object arrays, with an unpickler that admits only NumPy arrays and plain
        containers; a 0-d object array, as in Human3.6M files, gives the object itself.

    Returns:
      Arrays by key, in the order of the file.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is truncated, corrupt or no npz, holds object arrays and `objects` is
        False, or holds a pickle that names anything but arrays and plain containers. The message
        gives the path and, where it applies, the key.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    # zipfile raises BadZipFile, zlib.error, EOFError, NotImplementedError and more.
    except Exception as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: not a readable npz ({size} bytes; truncated, or not an npz at all?): {error}"
        ) from error
    arrays = {}
    for member, data in members.items():
        key = member.removesuffix(".npy")
        try:
            arrays[key] = _read_array(data, objects=objects)
        except Exception as error:
            raise ValueError(f"{path}: key {key!r}: {error}") from error
    return arrays


def _read_array(data: bytes, *, objects: bool) -> Any:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"expected npy format 1.0 or 2.0, got {version}")
    shape, fortran_order, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        return _read_objects(stream, shape, objects=objects)
    # Checked before NumPy allocates what a broken header asks for.
    expected, found = int(np.prod(shape, dtype=object)) * dtype.itemsize, len(data) - stream.tell()
    if found != expected:
        raise ValueError(f"expected {expected} bytes for {dtype} {shape}, got {found}")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C").copy()


def _read_objects(stream: io.BytesIO, shape: tuple[int, ...], *, objects: bool) -> Any:
    if not objects:
        raise ValueError("holds Python objects, which are read only with objects=True")
    array = pickles.loads(stream.read())
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ValueError(f"expected a pickled array of shape {shape}, got {type(array).__name__}")
    return array.item() if array.shape == () else array


def write_npz(path: str | pathlib.Path, arrays: Mapping[str, NDArray]) -> None:
    """Writes a compressed `.npz` file that appears under its name only when it is complete.

    Args:
      path: The file; its folder is made, a file of that name is replaced.
      arrays: By key.

    Raises:
      ValueError: An array holds Python objects.
      OSError: It cannot be written; nothing is left behind.
    """
    path = pathlib.Path(path)
    for key, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{path}: key {key!r}: expected numbers, got dtype {array.dtype}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_array(
    value: Any, shape: tuple[int | None, ...], *, path: str | pathlib.Path, key: str
) -> NDArray:
    """Checks that an entry of a file is a finite floating array of a shape; None allows any size.

    Returns:
      `value`.

    Raises:
      ValueError: It is not; the message gives path and key, and where a value is not finite.
    """
    text = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    if not isinstance(value, np.ndarray) or not np.issubdtype(value.dtype, np.floating):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{path}: key {key!r}: expected a floating array {text}, got {kind}")
    fits = value.ndim == len(shape) and all(
        n in (None, m) for n, m in zip(shape, value.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{path}: key {key!r}: expected shape {text}, got {value.shape}")
    bad = np.argwhere(~np.isfinite(value))
    if bad.size:
        at = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{path}: key {key!r}: expected finite values, got {value[at]} at index {at}"
        )
    return value
