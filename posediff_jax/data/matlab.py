"""Reads `.mat` files without MATLAB: version 5 to 7 by SciPy, version 7.3, which is HDF5, by h5py.

h5py is the optional extra `posediff-jax[mat]` and imported when such a file is met.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HDF5 = b"\x89HDF\r\n\x1a\n"
# MATLAB puts a page of text before the HDF5 file proper; other writers do not.
_TEXT_BYTES = 512
# No filter of HDF5 packs tighter than deflate can, so more numbers than that are a broken header's.
_TIGHTEST = 1100


def read_mat(path: str | pathlib.Path, names: Sequence[str]) -> dict[str, NDArray]:
    """Reads variables of a `.mat` file of any version, axes in MATLAB's order.

    Args:
      path: The file.
      names: Variables to read; others are left alone.

    Returns:
      By name, numbers as arrays and cells as object arrays of arrays.

    Raises:
      FileNotFoundError: There is no such file.
      ImportError: The file is of version 7.3 and h5py is not installed.
      ValueError: The file is truncated, corrupt or no `.mat` file, lacks a variable, or one holds
        anything but numbers and cells of numbers; the message gives the path and the key.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mat file")
    with open(path, "rb") as file:
        head = file.read(_TEXT_BYTES + len(_HDF5))
    is_hdf5 = _HDF5 in (head[: len(_HDF5)], head[_TEXT_BYTES:])
    found = _read_hdf5(path, names) if is_hdf5 else _read_version_5(path, names)
    for name in names:
        if name not in found:
            raise ValueError(f"{path}: expected the key {name!r}, got {sorted(found)}")
        cells = found[name].ravel() if found[name].dtype == object else [found[name]]
        if not all(isinstance(c, np.ndarray) and c.dtype.kind in "biuf" for c in cells):
            raise ValueError(f"{path}: key {name!r}: expected numbers, or cells of numbers")
    return {name: found[name] for name in names}


def _read_version_5(path: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=list(names), appendmat=False)
    # zlib.error, OSError, TypeError, MemoryError and more, depending on which byte is wrong.
    except Exception as error:
        raise _broken(path, error) from error
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


def _read_hdf5(path: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{path}: a mat file of version 7.3 needs h5py: pip install 'posediff-jax[mat]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return {name: _dataset(file, file[name], h5py) for name in names if name in file}
    except Exception as error:
        raise _broken(path, error) from error


def _dataset(file: Any, item: Any, h5py: Any) -> Any:
    value = _numbers(item, h5py)
    if h5py.check_ref_dtype(item.dtype) is not h5py.Reference:
        return value
    cells = np.empty(value.shape, object)
    for at, reference in np.ndenumerate(value):
        cells[at] = _numbers(file[reference], h5py)
    return cells


def _numbers(item: Any, h5py: Any) -> NDArray:
    """What a dataset holds; HDF5 has the axes of MATLAB the other way round."""
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{item.name}: expected an array, got a group")
    if item.nbytes > _TIGHTEST * max(item.id.get_storage_size(), 1):
        raise ValueError(f"{item.name}: shape {item.shape}, and no data for it")
    return np.asarray(item[()]).T


def _broken(path: pathlib.Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: not a readable mat file ({path.stat().st_size} bytes; truncated, or not a mat "
        f"file at all?): {type(error).__name__}: {error}"
    )
