"""Building cmu17 from small ASF/AMC folders whose joints SciPy has worked out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import prepare_cmu
from posediff_jax.data import load_cmu17
from tests import fakes

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def source(tmp_path):
    """Two subjects at different depths; the joints of each trial."""
    folder = tmp_path / "source"
    truth = fakes.write_fake_asf_amc(folder / "subjects", "07", {"01": 5, "02": 4})
    other = fakes.write_fake_asf_amc(folder, "143", {"05": 7})
    joints = {f"asf/07/07_{t}": x for t, x in truth.items()}
    return folder, joints | {f"asf/143/143_{t}": x for t, x in other.items()}


def test_every_second_frame_lands_in_its_split(source, tmp_path):
    folder, joints = source
    counts, broken = prepare_cmu.run(folder, tmp_path / "out", val=["07_02"])
    assert (counts, broken) == ({"train": 2, "val": 1}, [])
    for split, names in (("train", ["asf/07/07_01", "asf/143/143_05"]), ("val", ["asf/07/07_02"])):
        clips = load_cmu17(tmp_path / "out", split)
        assert [clip.name for clip in clips] == names
        for clip in clips:
            np.testing.assert_allclose(clip.poses, joints[clip.name][::2], atol=1e-6)
            assert clip.poses.dtype == np.float32
    assert sorted(os.listdir(tmp_path / "out")) == ["train.npz", "val.npz"]


def test_subjects_go_to_a_split_and_slow_trials_keep_their_frames(source, tmp_path):
    folder, joints = source
    prepare_cmu.run(folder, tmp_path / "out", val=["07"], at_60=["143", "07_01"])
    (train,) = load_cmu17(tmp_path / "out")
    assert (train.name, train.num_frames) == ("asf/143/143_05", 7)
    fast, slow = load_cmu17(tmp_path / "out", "val")
    assert (fast.num_frames, slow.num_frames) == (5, 2)
    np.testing.assert_allclose(fast.poses, joints["asf/07/07_01"], atol=1e-6)


def test_a_broken_trial_stops_or_is_left_out_by_path_and_line(source, tmp_path):
    folder, _ = source
    path = folder / "subjects/07/07_01.amc"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match=r"07_01\.amc:\d+|07_01\.amc: the end"):
        prepare_cmu.run(folder, tmp_path / "out", val=["07_02"])
    assert not (tmp_path / "out").exists()
    counts, broken = prepare_cmu.run(folder, tmp_path / "out", val=["07_02"], skip_broken=True)
    assert counts == {"train": 1, "val": 1}
    assert len(broken) == 1
    assert "07_01.amc" in broken[0]


def test_a_broken_skeleton_leaves_out_all_of_its_trials(source, tmp_path):
    folder, _ = source
    path = folder / "subjects/07/07.asf"
    path.write_text(path.read_text().replace("angle deg", "angle rad"))
    with pytest.raises(ValueError, match=r"val: with \('07_02',\) the val split is empty"):
        prepare_cmu.run(folder, tmp_path / "out", val=["07_02"], skip_broken=True)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_behind(source, tmp_path, monkeypatch):
    folder, _ = source

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        prepare_cmu.run(folder, tmp_path / "out", val=["07_02"])
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"val: expected subjects and trials of .*'143_05'.*, got \['02_10', '03_02'\]"),
        (
            {"val": ["07_02"], "at_60": ["9"]},
            r"at_60: expected subjects and trials .*, got \['9'\]",
        ),
        ({"val": ["07", "143"]}, "the train split is empty"),
        ({"val": []}, "the val split is empty"),
    ],
)
def test_options_that_fit_no_trial_are_refused(options, message, source, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare_cmu.run(source[0], tmp_path / "out", **options)


def test_other_sources_are_refused_and_results_are_not_overwritten(source, tmp_path):
    folder, _ = source
    with pytest.raises(FileNotFoundError, match=r"source: expected a folder, got '.*nowhere'"):
        prepare_cmu.run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"source: expected <subject>\.asf and"):
        prepare_cmu.run(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/val.npz").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match=r"out: .*val\.npz exists already"):
        prepare_cmu.run(folder, tmp_path / "out", val=["07_02"])
    assert (tmp_path / "out/val.npz").read_bytes() == b"precious"
    fakes.write_fake_asf_amc(folder / "again", "07", {"09": 2})
    with pytest.raises(ValueError, match=r"each subject once, got .*07\.asf and .*07\.asf"):
        prepare_cmu.run(folder, tmp_path / "other", val=["07_02"])


def test_the_command(source, tmp_path):
    flags = [f"--source={source[0]}", f"--out={tmp_path / 'out'}", "--val=07_02"]
    command = [sys.executable, "-m", "experiments.prepare_cmu", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 training and 1 validation clips" in done.stdout
    assert len(load_cmu17(tmp_path / "out")) == 2


def test_the_raw_trials_become_those_of_cmu17(tmp_path):
    if not (SHARED / "cmu_raw").is_dir() or not (SHARED / "cmu17").is_dir():
        pytest.skip("needs ../shared/data")
    prepare_cmu.run(SHARED / "cmu_raw", tmp_path, val=["02_04"])
    expected = {clip.name: clip for clip in load_cmu17(SHARED / "cmu17")}
    built = [clip for split in ("train", "val") for clip in load_cmu17(tmp_path, split)]
    assert [clip.name for clip in built] == ["asf/02/02_01", "asf/02/02_03", "asf/02/02_04"]
    for clip in built:
        np.testing.assert_allclose(clip.poses, expected[clip.name].poses, atol=1e-5)
