"""The quickstart in miniature: everything but the quality."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import quickstart
from posediff_jax.data import procedural_motion
from posediff_jax.training import CheckpointStore, load_variables

ROOT = Path(__file__).parents[2]


def get_config(arg="tiny"):
    """Loads the config as the flag does: by its path."""
    spec = importlib.util.spec_from_file_location(
        "quickstart_config", ROOT / "configs/quickstart.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    quickstart.run(get_config(), folder)
    return folder


def test_leaves_a_checkpoint_and_a_picture(workdir):
    assert (workdir / "hypotheses.png").read_bytes().startswith(b"\x89PNG")
    variables, info = load_variables(workdir)
    assert set(variables) == {"params", "batch_stats"}
    assert info.metadata["skeleton"] == "h36m_17"
    with pytest.raises(ValueError, match="trained on skeleton 'h36m_17'"):
        load_variables(workdir, skeleton="h36m_16")
    assert info.config["model"]["width"] == 32


def test_the_table_scores_what_it_says(workdir, capsys):
    """A finished run only samples again, from the checkpoint."""
    rows = quickstart.run(get_config(), workdir)
    assert list(rows) == ["mean pose", "DiffuPose N=1", "DiffuPose N=10"]
    assert rows["mean pose"]["spread"] == rows["DiffuPose N=1"]["spread"] == 0
    assert rows["DiffuPose N=10"]["spread"] > 1
    assert all(f["p_mpjpe"] <= f["mpjpe"] for f in rows.values())
    assert f"{rows['mean pose']['mpjpe']:.1f}" in capsys.readouterr().out


def test_another_config_does_not_reuse_the_run(workdir):
    config = get_config().unlock()
    config.seed = 7
    with pytest.raises(ValueError, match=r"workdir: .* holds a run of another config .*seed"):
        quickstart.run(config, workdir)


def test_real_motion_is_read_from_a_folder(tmp_path):
    for split, seed in (("train", 0), ("val", 1)):
        clips = procedural_motion(seed, num_clips=2, frames=40)
        arrays = {f"asf/{i:02d}/01": clip.poses for i, clip in enumerate(clips)}
        np.savez(tmp_path / f"{split}.npz", **arrays)
    train_table, val_table = quickstart.load_tables(
        get_config(), quickstart.get_skeleton("h36m_17"), str(tmp_path)
    )
    assert train_table.num_items == 2 * 40 * 2  # mirrored copies
    assert val_table.num_items == 2 * 40


@pytest.mark.slow
def test_the_command_fails_unless_the_mean_pose_is_beaten(tmp_path):
    """Ten steps of training cannot; the flags work from the command line."""
    command = [sys.executable, "-m", "experiments.quickstart"]
    flags = ["--config=configs/quickstart.py:tiny", f"--workdir={tmp_path}"]
    done = subprocess.run(command + flags, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "below the mean pose (needed: 40%)" in done.stdout
    assert CheckpointStore(tmp_path / "checkpoints").latest_step() == 10


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data: expected a folder .*nowhere"):
        quickstart.run(get_config(), tmp_path, data=str(tmp_path / "nowhere"))


def test_a_bad_config_argument_is_named():
    with pytest.raises(ValueError, match="config argument: expected '' or 'tiny', got 'huge'"):
        get_config("huge")


@pytest.mark.slow
def test_the_whole_command_beats_the_mean_pose(tmp_path):
    """What the README promises a newcomer, on the embedded motion."""
    command = [sys.executable, "-m", "experiments.quickstart", f"--workdir={tmp_path}"]
    # As users run it: not compiled as tests are, and on the devices that there are.
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
