"""Two runs in one folder: the second is refused, until the first has ended, however it ended."""

import subprocess
import sys

import pytest

from posediff_jax.training.lock import only_run

HOLD = """
import sys
from posediff_jax.training.lock import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_to_a_folder(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        message = "workdir: expected a folder that no other run uses"
        with pytest.raises(ValueError, match=message), only_run(folder):
            raise AssertionError("the folder was not held")
        with only_run(tmp_path / "another"):
            pass
        other.kill()
        other.wait()
        with only_run(folder):
            pass
