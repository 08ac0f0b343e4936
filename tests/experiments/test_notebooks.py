"""Notebooks run from top to bottom, and are committed without outputs."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import train
from tests.experiments.test_train import tiny

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(path):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def execute(path, **parameters):
    """Runs the cells in one namespace; `parameters` replace those of the first."""
    names = {}
    for cell in code_cells(path):
        exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(parameters) <= set(names)
            names.update(parameters)
    plt.close("all")
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code_cells(path))


@pytest.mark.slow
def test_hypotheses(tmp_path):
    train.run(tiny(), tmp_path)
    names = execute(
        FOLDER / "hypotheses.ipynb", CHECKPOINT=str(tmp_path), DATA="", NUM_FRAMES=6, MOST=5
    )
    assert names["numbers"] == [1, 2, 5]
    assert np.diff(names["of_best"]).max() <= 0
    assert names["of_best"][0] == pytest.approx(names["of_mean"][0], rel=1e-5)
    assert 0 <= names["calibration"] <= 0.5
    assert names["chain"].shape == (2, 17, 3)
    assert len(names["learned"]) == 1
