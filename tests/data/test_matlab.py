"""Mat files of both kinds: the same arrays, or errors that name file and key."""

import sys

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from posediff_jax.data.matlab import read_mat

# Not square, so that swapped axes show.
MATRIX = np.arange(6.0).reshape(2, 3)
CELLS = [np.arange(4.0).reshape(1, 4), np.arange(6.0).reshape(3, 2)]


def write_version_5(path):
    cells = np.empty((2, 1), object)
    cells[:, 0] = CELLS
    savemat(path, {"matrix": MATRIX, "cells": cells, "text": "words"})


def write_hdf5(path, userblock=512):
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["matrix"] = MATRIX.T
        references = np.empty((1, 2), h5py.ref_dtype)
        for i, cell in enumerate(CELLS):
            references[0, i] = file.create_dataset(f"#refs#/{i}", data=cell.T).ref
        file.create_dataset("cells", data=references)
        file["text"] = "words"


WRITERS = {
    "5": write_version_5,
    "7.3": write_hdf5,
    "hdf5": lambda path: write_hdf5(path, userblock=0),
}


def outcome(path):
    try:
        read_mat(path, ("matrix", "cells"))
    except ValueError as error:
        return str(error)
    return "read"


@pytest.fixture(params=WRITERS)
def path(request, tmp_path):
    WRITERS[request.param](tmp_path / "a.mat")
    return tmp_path / "a.mat"


def test_axes_are_those_of_matlab(path):
    found = read_mat(path, ("matrix", "cells"))
    np.testing.assert_array_equal(found["matrix"], MATRIX)
    assert found["cells"].shape == (2, 1)
    for cell, expected in zip(found["cells"].ravel(), CELLS, strict=True):
        np.testing.assert_array_equal(cell, expected)


def test_what_is_not_there_or_no_number_is_named(path):
    with pytest.raises(ValueError, match=r"a\.mat: expected the key 'other'"):
        read_mat(path, ("matrix", "other"))
    with pytest.raises(ValueError, match=r"a\.mat: key 'text': expected numbers"):
        read_mat(path, ("text",))


def test_truncated_and_altered_files_are_errors_that_name_the_file(path):
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    broken = [whole[:end] for end in np.linspace(0, len(whole) - 1, 12).astype(int)]
    for _ in range(25):
        data = bytearray(whole)
        for at in rng.integers(len(whole), size=4):
            data[at] = rng.integers(256)
        broken.append(bytes(data))
    messages = []
    for data in broken:
        path.write_bytes(data)
        messages.append(outcome(path))
    # Numbers without a checksum may change unseen; all else is an error.
    errors = [message for message in messages if message != "read"]
    assert len(errors) >= 8
    assert all(str(path) in message for message in errors)


def test_a_shape_without_data_is_refused_before_memory_is_taken(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("matrix", (10**6, 10**6), "f8", chunks=(100, 100))
    with pytest.raises(ValueError, match=r"shape \(1000000, 1000000\), and no data for it"):
        read_mat(tmp_path / "a.mat", ("matrix",))


def test_without_h5py_version_5_is_read_and_the_extra_is_named(tmp_path, monkeypatch):
    write_hdf5(tmp_path / "new.mat")
    write_version_5(tmp_path / "old.mat")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"new\.mat: .* pip install 'posediff-jax\[mat\]'"):
        read_mat(tmp_path / "new.mat", ("matrix",))
    np.testing.assert_array_equal(read_mat(tmp_path / "old.mat", ("matrix",))["matrix"], MATRIX)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.mat: no such mat file"):
        read_mat(tmp_path / "a.mat", ())
