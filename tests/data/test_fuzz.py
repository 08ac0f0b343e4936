"""Broken and hostile data sets: the same data or a ValueError, and nothing ever runs."""

import copy
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from posediff_jax.data.human36m import load_human36m
from posediff_jax.data.humaneva import load_humaneva
from tests import fakes

FILES = {
    "human36m": ("data_3d_h36m.npz", "data_2d_h36m_gt.npz"),
    "humaneva": ("data_3d_humaneva15.npz", "data_2d_humaneva15_gt.npz"),
}
CASES = [(kind, name) for kind, names in FILES.items() for name in names]


def load(kind, folder):
    if kind == "human36m":
        return load_human36m(folder, "test", subjects=("S9",))
    return load_humaneva(folder, subjects=("S1",))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The bytes of each file, and what they hold."""
    folder = tmp_path_factory.mktemp("fuzz")
    fakes.write_fake_human36m(folder, subjects=("S9",), actions=("Photo",), frames=2)
    fakes.write_fake_humaneva(folder, frames=2, subjects=("S1",))
    contents = {name: (folder / name).read_bytes() for _, name in CASES}
    return contents, {kind: load(kind, folder) for kind in FILES}


@pytest.fixture
def outcome(originals, tmp_path):
    """Loads a data set of which one file was replaced: "same", "other", or the error's text."""
    contents, expected = originals

    def run(kind, name, data):
        for other in FILES[kind]:
            (tmp_path / other).write_bytes(data if other == name else contents[other])
        try:
            found = load(kind, tmp_path)
        except ValueError as error:
            return str(error)
        return "same" if equal(found, expected[kind]) else "other"

    return run


def equal(a, b):
    if [s.name for s in a.sequences] != [s.name for s in b.sequences]:
        return False
    return all(
        np.array_equal(getattr(x, field), getattr(y, field))
        for x, y in zip(a.sequences, b.sequences, strict=True)
        for field in ("keypoints_px", "pose", "root")
    )


def rewrite(data, change):
    """The npz with the members changed by a function of bytes; checksums are right again."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for member in old.namelist():
            new.writestr(member, change(member, old.read(member)))
    return stream.getvalue()


def entries(data):
    with np.load(io.BytesIO(data), allow_pickle=True) as file:
        return {key: file[key].item() for key in file.files}


def packed(values):
    stream = io.BytesIO()
    np.savez(stream, **{k: np.array(v, dtype=object) for k, v in values.items()})
    return stream.getvalue()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_truncated_files_are_errors_that_name_the_file(kind, name, originals, outcome):
    whole = originals[0][name]
    for end in np.linspace(0, len(whole) - 1, 25).astype(int):
        assert name in outcome(kind, name, whole[:end])


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_files_with_altered_bytes_hold_the_same_or_are_errors(kind, name, originals, outcome):
    whole, rng = originals[0][name], np.random.default_rng(0)
    for _ in range(25):
        broken = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        found = outcome(kind, name, bytes(broken))
        assert found == "same" or name in found


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_altered_pickles_under_right_checksums_are_data_or_errors(kind, name, originals, outcome):
    """Here altered numbers cannot be told from others; all else is an error."""
    rng = np.random.default_rng(1)

    def change(member, data):
        broken = bytearray(data)
        # Mostly opcodes: the arrays make up most of the bytes and alter least.
        low, high = (len(data) * 9 // 10, len(data)) if rng.random() < 0.3 else (0, 800)
        for at in rng.integers(low, min(high, len(data)), size=2):
            broken[at] = rng.integers(256)
        return bytes(broken)

    results = [outcome(kind, name, rewrite(originals[0][name], change)) for _ in range(25)]
    errors = [r for r in results if r not in ("same", "other")]
    assert len(errors) >= 5
    assert all(".npz" in error or "sequence " in error for error in errors)


JUNK = (
    *(None, 3, "text", b"raw", [], {}, (), [1, 2], {"a": 1}, {2: 3}, float("nan")),
    *(np.zeros(0), np.zeros((2, 3)), np.arange(6).reshape(1, 2, 3), np.array(["a"])),
    *(np.full((2, 32, 3), np.nan), np.full((2, 17, 2), np.inf), np.full((2, 15, 3), 1e39)),
    np.array([None, {}], dtype=object),
)


def places(value, path=()):
    """The path of every dictionary key and list index inside a value."""
    children = value.items() if isinstance(value, dict) else ()
    children = enumerate(value) if isinstance(value, list) else children
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def with_value(value, path, new):
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_files_with_altered_structure_hold_the_same_or_are_errors(kind, name, originals, outcome):
    values, rng = entries(originals[0][name]), np.random.default_rng(2)
    paths = list(places(values))
    outcomes = []
    for _ in range(25):
        path, junk = paths[rng.integers(len(paths))], JUNK[rng.integers(len(JUNK))]
        outcomes.append(outcome(kind, name, packed(with_value(values, path, junk))))
    # What nobody reads, such as the name of the layout, may say anything.
    assert all(o == "same" or name in o for o in outcomes), outcomes
    assert sum(o != "same" for o in outcomes) >= 15


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_without_any_one_entry_the_error_names_the_file(kind, name, originals, outcome):
    values = entries(originals[0][name])
    for path in places(values):
        if path[0] == "metadata" or len(path) > 2:
            continue
        lacking = copy.deepcopy(values)
        inner = lacking
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        assert name in outcome(kind, name, packed(lacking))


class Runs:
    """Unpickles to the result of a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_code_in_a_file_never_runs_wherever_it_is(kind, name, originals, outcome, tmp_path):
    values, mark = entries(originals[0][name]), tmp_path / "mark"
    attacks = (
        Runs(os.mkdir, str(mark)),
        Runs(eval, f"__import__('os').mkdir({str(mark)!r})"),
        Runs(os.system, f"mkdir {mark}"),
    )
    for i, path in enumerate(list(places(values))[::3]):
        found = outcome(kind, name, packed(with_value(values, path, attacks[i % len(attacks)])))
        assert name in found
        assert "refused to load" in found
        assert not mark.exists()
    pickle.loads(pickle.dumps(attacks[0]))  # the attack itself would work
    assert mark.exists()
