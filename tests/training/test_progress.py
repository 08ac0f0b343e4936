"""What a run shows while it is under way."""

import io

import pytest
import rich.console

from posediff_jax.training import progress
from posediff_jax.training.progress import TrainingProgress


class Loss:
    """Counts how often it is read: a read waits for the device."""

    def __init__(self):
        self.reads = 0

    def __float__(self):
        self.reads += 1
        return 0.25


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, total, seconds_per_step, loss, *, start=0, **options):
    out = io.StringIO()
    console = rich.console.Console(file=out, width=200, **options)
    with TrainingProgress(total, start, interval=10.0, console=console) as bar:
        for step in range(start + 1, total + 1):
            clock[0] += seconds_per_step
            bar.update(step, loss)
    return out.getvalue()


def test_without_a_terminal_prints_a_line_every_ten_seconds_and_at_the_end(clock):
    loss = Loss()
    lines = run(clock, 100, 0.5, loss).splitlines()
    assert loss.reads == len(lines) == 5
    assert lines[0] == "step 20/100  2 steps/s  loss 0.25  ETA 0:00:40"
    assert lines[-1] == "step 100/100  2 steps/s  loss 0.25  ETA 0:00:00"


def test_rate_counts_only_the_steps_of_this_run(clock):
    lines = run(clock, 1040, 0.5, Loss(), start=1000).splitlines()
    assert lines[0].startswith("step 1020/1040  2 steps/s")


def test_terminal_gets_a_bar(clock):
    shown = run(clock, 10, 0.5, Loss(), force_terminal=True, color_system=None)
    assert "10/10" in shown
    assert "2 steps/s" in shown


def test_silent_when_asked(clock):
    out, loss = io.StringIO(), Loss()
    console = rich.console.Console(file=out)
    with TrainingProgress(3, 0, enabled=False, console=console) as bar:
        for step in (1, 2, 3):
            clock[0] += 60
            bar.update(step, loss)
    assert out.getvalue() == ""
    assert loss.reads == 0
