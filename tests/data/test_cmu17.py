"""The reader, on small files of the same layout."""

import numpy as np
import pytest

from posediff_jax.data.cmu17 import load_cmu17


def write(path, **entries):
    np.savez_compressed(path, **entries)
    return path


def poses(frames, seed):
    return np.random.default_rng(seed).normal(size=(frames, 17, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path / "train.npz",
        **{"asf/07/07_01": poses(3, 0), "exp/train/soccer/soccer_2": poses(5, 1)},
    )
    write(tmp_path / "val.npz", **{"exp/test/running/running_9": poses(4, 2)})
    return tmp_path


def test_keys_tell_subject_and_action(folder):
    first, second = load_cmu17(folder)
    assert (first.name, first.subject, first.action) == ("asf/07/07_01", "07", "unlabelled")
    assert (second.subject, second.action) == ("exp", "soccer")
    assert (first.fps, first.skeleton) == (60.0, "h36m_17")
    np.testing.assert_array_equal(second.poses, poses(5, 1))
    assert second.poses.dtype == np.float32


def test_splits_are_files_and_a_file_may_be_given(folder):
    (from_split,), (from_file,) = load_cmu17(folder, "val"), load_cmu17(folder / "val.npz")
    assert from_split.name == from_file.name == "exp/test/running/running_9"


def test_unknown_splits_and_missing_files_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match="split: expected 'train' or 'val', got 'test'"):
        load_cmu17(folder, "test")
    with pytest.raises(FileNotFoundError, match=r"elsewhere"):
        load_cmu17(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "at least one clip"),
        ({"S1/walk": poses(2, 0)}, "key 'S1/walk': expected asf/<subject>"),
        ({"asf/07/x": poses(2, 0)[:, :16]}, r"key 'asf/07/x': .*\(any, 17, 3\), got \(2, 16, 3\)"),
        ({"asf/07/x": poses(0, 0)}, "clip 'asf/07/x': .*at least one frame"),
        ({"asf/07/x": poses(2, 0) * np.nan}, "key 'asf/07/x': expected finite"),
        ({"asf/07/x": np.array({"a": 1}, dtype=object)}, "key 'asf/07/x': holds Python objects"),
    ],
)
def test_files_of_another_kind_are_refused_by_key(entries, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_cmu17(write(tmp_path / "f.npz", **entries))


def test_a_truncated_file_is_a_readable_error(folder):
    path = folder / "train.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"train\.npz: not a readable npz"):
        load_cmu17(folder)
