"""Runs that only say what they were asked for, with figures that a test knows."""

import json
from unittest.mock import Mock

import pytest

from experiments import runs
from experiments.common import write_json
from experiments.occlusion_study import PATTERNS


class Calls(list):
    """What was asked for, in order; `fail_after` so many evaluations the command is killed."""

    fail_after = None

    def count_of(self, kind):
        return sum(call[0] == kind for call in self)


@pytest.fixture
def calls(monkeypatch):
    """Replaces training and evaluation; ("train", config) and ("evaluate", options)."""
    made = Calls()

    def train(config, folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config.to_dict())
        made.append(("train", config))

    def evaluate(folder, *, out, **options):
        if made.fail_after is not None and made.count_of("evaluate") >= made.fail_after:
            raise KeyboardInterrupt
        assert (folder / "trained.json").exists()
        made.append(("evaluate", options))
        config = json.loads((folder / "config.json").read_text("utf-8"))
        write_json(out, made_up(config, options))

    monkeypatch.setattr(runs.train, "run", train)
    monkeypatch.setattr(runs.evaluate, "run", evaluate)
    monkeypatch.setattr(runs, "load_test", lambda config, protocol: Mock())
    return made


def made_up(config, options):
    """50 mm, less 5 for diffusion, 1 for a lifter, 0.25 for each seed; 2 for other patterns.

    And half a millimetre more where training has the later of two patterns.
    """
    error = 50.0 + 0.25 * config["seed"] - 5.0 * ("process" in config) - 1.0 * ("frozen" in config)
    if "occlusion" in options:
        names = list(PATTERNS)
        pair = config["data"]["occlusion"]["pattern"], options["occlusion"]
        gap = names.index(pair[0]) - names.index(pair[1])
        error += 2.0 * abs(gap) + 0.5 * (gap > 0)
    figures = {"mpjpe": error, "p_mpjpe": error, "symmetry_gap": error / 5, "segment_std": 2.5}
    return {
        "rules": {"mean": {name: {"frames": value} for name, value in figures.items()}},
        "levels": {"mean": [{"frames": 10.0 * level} for level in range(1, 6)]},
        "needs": {"rules": {"mean": []}},
        "num_failed": {"mean": 0},
        "num_frames": 9,
        "shared": 4,
    }
