"""The command: arguments reach the work, and what is wrong is said in a line."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import posediff_jax
from posediff_jax import cli
from tests.lifting import ANCHORS, frames, write_files

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    files = write_files(folder)
    np.savez(folder / "k.npz", keypoints=frames(ANCHORS[0])[0], layout="h36m_17")
    return [
        *(str(folder / "k.npz"), "--hypotheses=2", "--no-pictures"),
        *(f"--checkpoint={files['checkpoint']}", f"--anchors={files['anchors']}"),
    ]


def test_a_run(arguments, tmp_path, capsys):
    out = tmp_path / "out"
    code = cli.main([*arguments, "--image-size=1000x900", f"--out={out}", "--height=1.8"])
    assert code == 0
    person = posediff_jax.read_lifted(out / "person_0.npz")
    assert person.poses.shape == (2, 4, 17, 3)
    assert "1.8 m" in person.scale_from
    assert "focal length guessed: 1000 px" in capsys.readouterr().out


def test_errors_are_a_line_and_a_status(arguments, tmp_path, capsys):
    assert cli.main([*arguments, f"--out={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("posediff-lift: ")
    assert "--image-size=WxH" in said
    missing = ["no.json", *arguments[1:], "--image-size=9x9", f"--out={tmp_path}"]
    assert cli.main(missing) == 1
    assert "no.json: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["1000", "1000*900", "-3x5", "axb"])
def test_sizes_are_checked(arguments, tmp_path, size, capsys):
    with pytest.raises(SystemExit):
        cli.main([*arguments, f"--image-size={size}", f"--out={tmp_path}"])
    assert "expected WxH, such as 1920x1080" in capsys.readouterr().err


def test_the_wheel_has_the_command_and_the_assets():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"posediff-lift": "posediff_jax.cli:main"}
    assert "assets/*.npz" in project["tool"]["setuptools"]["package-data"]["posediff_jax"]


def test_help_says_how():
    done = subprocess.run(
        [sys.executable, "-m", "posediff_jax.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--image-size WxH" in done.stdout
