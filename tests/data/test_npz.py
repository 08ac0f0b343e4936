"""Files that are whole, truncated, altered, or hostile."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from posediff_jax.data.npz import check_array, read_npz, write_npz


class Touches:
    """Unpickling this makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def plain(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a/b": rng.normal(size=(5, 17, 3)).astype(np.float32),
        "fortran": np.asfortranarray(rng.normal(size=(4, 3))),
        "zero-d": np.array(3),
        "empty": np.zeros((0, 2)),
    }
    np.savez_compressed(tmp_path / "plain.npz", **arrays)
    return tmp_path / "plain.npz", arrays


def positions():
    """The nesting of VideoPose3D's Human3.6M files."""
    rng = np.random.default_rng(1)
    return {
        s: {a: rng.normal(size=(6, 32, 3)) for a in ("Sitting", "Sitting 1")} for s in ("S1", "S5")
    }


@pytest.fixture
def objects(tmp_path):
    np.savez(tmp_path / "h36m.npz", positions_3d=np.array(positions(), dtype=object))
    return tmp_path / "h36m.npz"


def test_plain_arrays_come_back_in_order_and_writable(plain):
    path, arrays = plain
    read = read_npz(path)
    assert list(read) == list(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(read[key], value)
        assert read[key].dtype == value.dtype
        assert read[key].flags.writeable


def test_object_arrays_of_dicts_are_read_when_asked_for(objects):
    read = read_npz(objects, objects=True)["positions_3d"]
    np.testing.assert_equal(read, positions())


def test_object_arrays_are_refused_otherwise(objects):
    with pytest.raises(ValueError, match=r"h36m\.npz: key 'positions_3d': .* objects=True"):
        read_npz(objects)


def test_a_malicious_pickle_is_refused_by_path_and_key_and_does_not_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "evil.npz"
    np.savez(path, positions_3d=np.array({"S1": Touches(mark)}, dtype=object))
    with pytest.raises(
        ValueError, match=r"evil\.npz: key 'positions_3d': refused to load \w+\.mkdir"
    ):
        read_npz(path, objects=True)
    assert not mark.exists()
    np.load(path, allow_pickle=True)["positions_3d"]  # what a careless reader does
    assert mark.exists()


def test_an_object_array_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "odd.npz"
    np.savez(path, x=np.array(None, dtype=object))
    with zipfile.ZipFile(path) as archive:
        header = archive.read("x.npy")[
            : -len(pickle.dumps(np.array(None, dtype=object), protocol=4))
        ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header + pickle.dumps({"not": "an array"}))
    with pytest.raises(ValueError, match=r"expected a pickled array of shape \(\), got dict"):
        read_npz(path, objects=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such npz file"):
        read_npz(tmp_path / "none.npz")


def test_text_and_empty_files_are_no_npz(tmp_path):
    path = tmp_path / "text.npz"
    for content in (b"", b"<html>404 not found</html>"):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"text\.npz: not a readable npz \({len(content)} bytes"
        ):
            read_npz(path)


@pytest.mark.parametrize("name", ["plain", "objects"])
def test_every_kind_of_truncation_is_a_readable_error(name, request, tmp_path):
    path = request.getfixturevalue(name)
    whole = (path[0] if isinstance(path, tuple) else path).read_bytes()
    short = tmp_path / "short.npz"
    for end in np.linspace(0, len(whole) - 1, 40).astype(int):
        short.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"short\.npz"):
            read_npz(short, objects=True)


@pytest.mark.parametrize("name", ["plain", "objects"])
def test_altered_bytes_give_arrays_or_a_readable_error(name, request, tmp_path):
    path = request.getfixturevalue(name)
    whole = (path[0] if isinstance(path, tuple) else path).read_bytes()
    rng, altered, caught = np.random.default_rng(2), tmp_path / "altered.npz", 0
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        altered.write_bytes(data)
        try:
            read_npz(altered, objects=True)
        except ValueError as error:
            caught += "altered.npz" in str(error)
    assert caught > 100


@pytest.mark.parametrize("shape", ["(10**12,)", "(-4,)", "(3,)", "('a',)"])
def test_headers_that_lie_about_the_size_are_refused_without_allocating(shape, tmp_path):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".replace(
        "10**12", str(10**12)
    )
    header = header.ljust(117) + "\n"
    path = tmp_path / "lie.npz"
    with zipfile.ZipFile(path, "w") as archive:
        data = (
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)
        )
        archive.writestr("x.npy", data)
    with pytest.raises(ValueError, match=r"lie\.npz: key 'x'"):
        read_npz(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"S1": 0}, "expected a floating array .*, got dict"),
        (np.zeros((2, 17, 3), int), "got int64"),
        (np.zeros((2, 17)), r"expected shape \(any, 17, 3\), got \(2, 17\)"),
        (np.zeros((2, 17, 4)), r"got \(2, 17, 4\)"),
        (np.full((2, 17, 3), np.inf), r"got inf at index \(0, 0, 0\)"),
    ],
)
def test_entries_of_other_shape_or_value_are_refused_by_path_and_key(value, message):
    with pytest.raises(ValueError, match=rf"f\.npz: key 'k': .*{message}"):
        check_array(value, (None, 17, 3), path="f.npz", key="k")


def test_what_is_written_is_read_and_replaces_what_was_there(tmp_path):
    arrays = {"asf/02/02_01": np.arange(12.0).reshape(2, 2, 3), "b": np.float32([1.5])}
    path = tmp_path / "deep" / "new.npz"
    write_npz(path, {"old": np.zeros(3)})
    write_npz(path, arrays)
    assert [p.name for p in path.parent.iterdir()] == ["new.npz"]
    for read in (read_npz(path), dict(np.load(path))):
        assert list(read) == list(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(read[key], value)
            assert read[key].dtype == value.dtype


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "kept.npz"
    write_npz(path, {"a": np.ones(2)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"kept\.npz: key 'b': expected numbers, got dtype object"):
        write_npz(path, {"b": np.array([None])})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_npz(path, {"a": np.zeros(2)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept.npz"]
