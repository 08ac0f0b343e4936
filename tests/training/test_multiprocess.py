"""A run of two processes on localhost, with two devices each, against one process with four."""

import signal
import socket

import jax
import numpy as np
import pytest

from posediff_jax.training import read_metrics
from posediff_jax.training.checkpoints import CheckpointStore
from tests.training.children import finish, start
from tests.training.one_of_many import EVAL_EVERY, LOG_EVERY, NUM_STEPS, batches, run

pytestmark = pytest.mark.multiprocess

NEVER = -1


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_two(workdir, number=0, steps=(NEVER, NEVER), patience=100):
    """Exit status and output of both processes; each sends itself a signal before its step."""
    port = free_port()
    children = [
        start(
            "-m",
            "tests.training.one_of_many",
            *(port, process, 2, workdir, int(number), steps[process], patience),
            JAX_NUM_CPU_DEVICES="2",
            JAX_ENABLE_X64="1",
        )
        for process in range(2)
    ]
    return finish(*children, timeout=90.0)


def states_of(workdir):
    """The leaves of the last state, as each process saw it."""
    states = []
    for process in range(2):
        with np.load(f"{workdir}.{process}.npz") as file:
            states.append([file[name] for name in file.files])
    return states


def lines_of(workdir):
    clock = ("time", "steps_per_second")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def assert_resumes(workdir, undisturbed):
    """The same command ends with the same bits and metrics."""
    assert [status for status, _ in run_two(workdir)] == [0, 0]
    for states in zip(*states_of(workdir), *states_of(undisturbed), strict=True):
        for other in states[1:]:
            np.testing.assert_array_equal(states[0], other)
    assert lines_of(workdir) == lines_of(undisturbed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two") / "run"
    results = run_two(workdir)
    assert [status for status, _ in results] == [0, 0]
    return workdir, [output for _, output in results]


def test_two_processes_equal_one(undisturbed, tmp_path):
    workdir, _ = undisturbed
    first, second = states_of(workdir)
    with jax.enable_x64(True):
        one = run(tmp_path, batches(), jax.devices()[:4])
    for a, b, expected in zip(first, second, jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, expected, rtol=1e-12)
    assert one.step == NUM_STEPS
    assert one.params["w"].dtype == np.float64
    for a, b in zip(lines_of(workdir), lines_of(tmp_path), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(
            [v for v in a.values() if v != a["split"]],
            [v for v in b.values() if v != b["split"]],
            rtol=1e-12,
        )


def test_only_the_primary_writes(undisturbed):
    workdir, (first, second) = undisturbed
    assert "wrote " in first
    assert "wrote " not in second
    store = CheckpointStore(workdir / "checkpoints")
    assert store.steps()[-1] == NUM_STEPS
    assert not list(store.directory.glob("**/*process_1*"))
    lines = [(line["split"], line["step"]) for line in lines_of(workdir)]
    assert len(lines) == len(set(lines)) == NUM_STEPS // LOG_EVERY + NUM_STEPS // EVAL_EVERY


def test_sigterm_to_one_stops_both_and_they_resume_together(undisturbed, tmp_path):
    workdir = tmp_path / "run"
    results = run_two(workdir, signal.SIGTERM, (NEVER, 4))
    assert [status for status, _ in results] == [128 + signal.SIGTERM] * 2
    # They talk to each other when a line of the log is due.
    assert CheckpointStore(workdir / "checkpoints").latest_step() == 6
    assert_resumes(workdir, undisturbed[0])


def test_death_of_one_ends_both_and_they_resume_together(undisturbed, tmp_path):
    """The other waits for it in a sum over devices, until JAX loses patience."""
    workdir = tmp_path / "run"
    (survivor, _), (killed, _) = run_two(workdir, signal.SIGKILL, (NEVER, 5), patience=15)
    assert killed == -signal.SIGKILL
    assert survivor != 0
    assert CheckpointStore(workdir / "checkpoints").steps() == [4]
    assert_resumes(workdir, undisturbed[0])
