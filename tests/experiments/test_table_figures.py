"""What is shown beside a paper's tables, from files written by hand."""

import json

import numpy as np
import pytest

from experiments import table_figures
from experiments.table_figures import Scored
from posediff_jax.training.metrics_log import MetricsLog

ERRORS = {"mixste": 50.0, "d3dp": 46.0, "ddhpose": 45.0}
VARIANTS = {"": 0.0, "pose_input": 2.0, "pose_input,bone_output": 6.0}
# H = 1 has all rules too.
NEEDS = {
    "mean": [],
    "j_agg": ["camera"],
    "j_agg_true_root": ["camera", "ground-truth root"],
    "j_best": ["ground truth"],
    "p_best_batch": ["ground truth"],
}


def write_run(folder, error, sampled, rules):
    """A seed's folder: figures at each (H, W), and a log of 12 updates with two evaluations."""
    folder.mkdir()
    for H, W in sampled:
        figures = {
            rule: {"mpjpe": {"frames": error - n}, "p_mpjpe": {"frames": error / 2 - n}}
            for n, rule in enumerate(rules)
        }
        levels = {"mean": [{"frames": error + level} for level in range(5)]}
        needs = {"rules": {rule: NEEDS[rule] for rule in rules}}
        text = json.dumps({"rules": figures, "levels": levels, "needs": needs, "shared": 4})
        (folder / f"H{H}_W{W}.json").write_text(text, "utf-8")
    with MetricsLog(folder / "metrics.jsonl", keep_until=0) as log:
        for step in range(1, 13):
            log.write(step, "train", {"position": (error + 12 - step) / 1000, "loss": 9.0})
            if step % 6 == 0:
                log.write(step, "eval", {"mpjpe": error})


@pytest.fixture
def runs(tmp_path):
    """Two seeds of each model half a millimetre apart, but those of D3DP six."""
    found, scored = {}, {}
    for system, error in ERRORS.items():
        for variant, more in VARIANTS.items() if system == "ddhpose" else [("", 0.0)]:
            key = (system, variant)
            several = [] if variant or system == "mixste" else [(20, 10), (5, 50)]
            found[key] = [tmp_path / f"{system}-{variant}-{seed}" for seed in (0, 1)]
            for seed, folder in enumerate(found[key]):
                apart = seed * (6.0 if system == "d3dp" else 0.5)
                # D3DP was scored before there was J-Agg at a given root.
                rules = [r for r in NEEDS if system != "d3dp" or r != "j_agg_true_root"]
                write_run(folder, error + more + apart, [(1, 1), *several], rules)
            paper = {"ddhpose": (39.0, 31.2), "d3dp": (39.5, 31.6)}
            for H, W in [(1, 1), *several]:
                published = paper[system] if (H, W) == (20, 10) else (None, None)
                scored[key, (H, W)] = Scored(f"H{H}_W{W}.json", published)
    return found, scored


def lines_of(printed, title):
    """The cells of the rows of one printed table by the first cell."""
    text = printed[printed.index(title) :]
    rows = [line.strip("│ \n").split("│") for line in text.splitlines()]
    found = {}
    for row in rows[1:]:
        if len(row) == 1 and found:
            break
        if len(row) > 1:
            found[row[0].strip()] = [cell.strip() for cell in row[1:]]
    return found


def test_all_is_shown(runs, tmp_path, capsys):
    table_figures.show(*runs, tmp_path)
    printed = capsys.readouterr().out
    rules = lines_of(printed, "Rules over hypotheses, H = 20, W = 10")
    assert rules["P-Agg (mean)"] == [
        *("49.00 ± 3.00", "24.50 ± 1.50", "45.25 ± 0.25", "22.62 ± 0.12"),
        "none",
    ]
    truth = "J-Agg at the true root (TRUTH: camera, ground-truth root)"
    assert rules[truth] == ["-", "-", "43.25 ± 0.25", "20.62 ± 0.12", "-"]
    assert {"J-Agg, root fitted to the mean (needs: camera)", "J-Best (ORACLE: ground truth)"} < {
        *rules
    }
    assert "D3DP 39.5 / 31.6, DDHPose 39.0 / 31.2" in " ".join(printed.split())
    assert "one hypothesis for 4 windows of a sequence" in " ".join(printed.split())
    assert "H = 5, W = 50" in printed
    assert "H = 1, W = 1" not in printed
    systems = lines_of(printed, "Figure 1, right")
    assert systems["DDHPose"][0] == "45.25 ± 0.25"
    assert systems["D3DP"][0] == "49.00 ± 3.00, none"
    assert systems["MixSTE"][4:] == ["54.25 ± 0.25, +5.00", "50.25 ± 0.25, +5.00"]
    outputs = lines_of(printed, "Figure 4, right")
    assert outputs["bones"][0] == "51.25 ± 0.25, +4.00"
    losses = lines_of(printed, "Figure 4, left")
    # After 1, 2, 4, 8 and 12 updates.
    assert losses["bones as input"][0] == "56.25 ± 0.25"
    assert losses["poses as input"][-1] == "47.25 ± 0.25, +2.00"
    assert len(losses["poses as input"]) == 5
    assert (
        lines_of(printed, "error of held-out frames")["poses as input"]
        == ["47.25 ± 0.25, +2.00"] * 2
    )
    assert {f.name for f in tmp_path.iterdir() if f.is_file()} == {"levels.png", "curves.png"}


def test_what_was_not_trained_is_left_out(runs, tmp_path, capsys):
    found, scored = runs
    key = ("mixste", "")
    table_figures.show({key: found[key]}, {(key, (1, 1)): scored[key, (1, 1)]}, tmp_path)
    printed = capsys.readouterr().out
    assert lines_of(printed, "Figure 1, right")["MixSTE"][0] == "50.25 ± 0.25"
    assert not any(text in printed for text in ("DDHPose", "Figure 4", "Rules"))
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["levels.png"]


def test_curves_are_those_of_the_updates_that_all_logged(runs):
    found, _ = runs
    first = found["ddhpose", ""][0]
    with MetricsLog(first / "metrics.jsonl", keep_until=5) as log:
        log.write(7, "train", {"position": 0.01})
        log.write(8, "train", {"position": float("nan")})
    steps, curves = table_figures.read_curves(
        found, table_figures.CURVES, "train", "position", 1000.0
    )
    assert steps == [1, 2, 3, 4, 5, 7]
    np.testing.assert_allclose(curves["bones as input"][:, -1], [10.0, 50.5])


def test_without_matplotlib_the_tables_are_printed(runs, tmp_path, capsys, monkeypatch):
    def missing(*args, **options):
        raise ImportError("pictures need matplotlib")

    monkeypatch.setattr(table_figures, "plot_lines", missing)
    table_figures.show(*runs, tmp_path)
    printed = capsys.readouterr().out
    assert "no pictures: pictures need matplotlib" in printed
    assert "Figure 1, right" in printed
