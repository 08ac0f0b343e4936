"""What the unpickler reads, and what it refuses to run."""

import contextlib
import os
import pathlib
import pickle
import subprocess

import numpy as np
import pytest

from posediff_jax.data import pickles

PLAIN = {
    "nested": {"S1": [np.arange(6.0).reshape(2, 3), np.float32([1])], ("a", 1): {2, 3}},
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strings": np.array(["a", "bcd"]),
    "bytes": np.array([b"x", b"yz"]),
    "big endian": np.arange(3, dtype=">f8"),
    "objects": np.array([None, {"k": [1]}], dtype=object),
    "scalars": [np.float64(0.1), np.int32(-7), np.bool_(True), 3.5, None, "text", b"raw", 1 + 2j],
    "empty": np.zeros((0, 17, 3)),
}


def assert_same(a, b):
    if isinstance(b, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert all(x == y for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    elif isinstance(b, dict):
        assert list(a) == list(b)
        for key in b:
            assert_same(a[key], b[key])
    elif isinstance(b, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert type(a) is type(b)
        assert a == b


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_survive_every_protocol(protocol):
    assert_same(pickles.loads(pickle.dumps(PLAIN, protocol=protocol)), PLAIN)


def test_arrays_written_by_old_numpy_under_python_2_are_read():
    # pickle.dumps(numpy.array([1.0, 2.0]), 2) of NumPy 1 and Python 2, taken apart into opcodes.
    old = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x10" + np.array([1.0, 2.0]).tobytes() + b"tb."
    )
    assert_same(pickles.loads(old), np.array([1.0, 2.0]))


class Runs:
    """Unpickles to the result of a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "attack",
    [
        lambda mark: Runs(pathlib.Path.touch, mark),
        lambda mark: Runs(os.mkdir, str(mark)),
        lambda mark: Runs(eval, f"__import__('os').mkdir({str(mark)!r})"),
        lambda mark: Runs(subprocess.call, ["touch", str(mark)]),
        lambda mark: Runs(np.save, str(mark), 0),
    ],
)
def test_a_pickle_that_calls_functions_is_refused_and_nothing_runs(attack, protocol, tmp_path):
    mark = tmp_path / "mark.npy"
    evil = pickle.dumps({"S1": [np.zeros(3), attack(mark)]}, protocol=protocol)
    with pytest.raises(ValueError, match=r"refused to load \w+(\.\w+)*: expected NumPy arrays"):
        pickles.loads(evil)
    assert not mark.exists()
    pickle.loads(pickle.dumps(attack(mark), protocol=protocol))  # the attack itself would work
    assert mark.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([(1, 2.5)], dtype=[("i", "<i4"), ("x", "<f8")]), "an array of dtype 'V12'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "an array of dtype 'M8'"),
        (np.ma.masked_array([1.0], [True]), "numpy.ma.core._mareconstruct"),
        (pathlib.PurePosixPath("a"), "pathlib"),
    ],
)
def test_arrays_and_objects_of_other_kinds_are_refused_by_name(value, message):
    with pytest.raises(ValueError, match=message):
        pickles.loads(pickle.dumps(value))


def test_shared_objects_stay_cheap_and_cycles_are_refused():
    doubled = [np.zeros(3)]
    for _ in range(60):
        doubled = [doubled, doubled]  # 2^60 arrays, were each one built
    assert len(pickles.loads(pickle.dumps(doubled))) == 2
    doubled.append(doubled)
    with pytest.raises(ValueError, match="contains itself"):
        pickles.loads(pickle.dumps(doubled))


def test_a_huge_memo_slot_is_refused_before_python_allocates_it():
    with pytest.raises(ValueError, match="memo slot 2000000000"):
        pickles.loads(b"\x80\x02]r" + (2_000_000_000).to_bytes(4, "little") + b".")


def test_every_truncation_and_many_alterations_are_errors_or_plain_data():
    whole = pickle.dumps(PLAIN["nested"], protocol=4)
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"\w"):
            pickles.loads(whole[:end])
    rng = np.random.default_rng(0)
    for _ in range(500):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] = rng.integers(256)
        with contextlib.suppress(ValueError):
            pickles.loads(bytes(broken))
