"""Tables of a paper: what is there is not done again, spreads and differences by hand."""

import json

import pytest

from experiments import data, tables
from experiments.tables import TABLES


def run(tmp_path, **options):
    given = {"size": "tiny", "seeds": 2, **options}
    return tables.run("ddhpose", "cmu17", "somewhere", tmp_path, **given)


def test_each_model_is_trained_once_and_each_figure_made_once(calls, tmp_path, capsys):
    found = run(tmp_path)
    # MixSTE, D3DP, DDHPose, three more of Table 4, three of Table 5, one of Table 6; two seeds.
    assert len([f for f in tmp_path.iterdir() if f.is_dir()]) == 2 * 10
    assert calls.count_of("train") == 2 * 10
    assert calls.count_of("evaluate") == 2 * (1 + 4 + 4 + 7)
    assert {options["windows"] for kind, options in calls if kind == "evaluate"} == {"shift"}
    assert [len(rows) for rows in found.values()] == [9, 4, 4, 2]
    assert found["Table 6: loss"][0]["levels"] == [[10, 20, 30, 40, 50]] * 2
    # DDHPose is compared with D3DP at the same (H, W), all else with the first line.
    systems = found["Tables 1, 2 and 7: systems"]
    assert [row["than"] for row in systems] == [0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert [row["than"] for row in found["Table 5: modules"]] == [0, 0, 0, 0]
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Table 4", "41.72", "20, 10", "level 5", "none"))
    # What is shown beside the tables; nobody trained, so there are no curves.
    assert all(text in printed for text in ("H = 5, W = 50", "P-Agg (mean)", "Figure 1, right"))
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["levels.png"]
    count = len(calls)
    assert run(tmp_path) == found
    assert len(calls) == count
    run(tmp_path, steps=7, only=("mixste",))
    asked = {"num_hypotheses": 1, "sampler": {}, "every": 1, "data": "somewhere"}
    asked["windows"] = "shift"
    assert [kind for kind, _ in calls[count:]] == ["train", "evaluate"] * 2
    assert [config.seed for _, config in calls[count::2]] == [0, 1]
    assert [options for _, options in calls[count + 1 :: 2]] == [asked] * 2


def test_many_hypotheses_may_be_scored_on_fewer_windows(calls, tmp_path, capsys):
    def asked(first):
        found = [options for kind, options in calls[first:] if kind == "evaluate"]
        return [(o["num_hypotheses"], o["sampler"]["num_steps"], o["every"]) for o in found]

    run(tmp_path, seeds=1, only=("d3dp",), every=4)
    # Beside them one hypothesis on the same windows, which they are compared with.
    assert asked(0) == [(1, 1, 1), (5, 1, 1), (20, 10, 4), (1, 1, 4), (5, 50, 4)]
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("20, 10 *4", "from 1, 1", "one seed: "))
    # All windows are other figures, of the same run.
    count = len(calls)
    run(tmp_path, seeds=1, only=("d3dp",))
    assert calls.count_of("train") == 1
    assert asked(count) == [(20, 10, 1), (5, 50, 1)]


def test_without_the_line_that_it_is_compared_with_a_line_has_no_difference(calls, tmp_path):
    alone = run(tmp_path, only=("ddhpose",))["Tables 1, 2 and 7: systems"]
    assert [(row["H"], row["than"]) for row in alone] == [(H, None) for H in (1, 5, 20, 5)]


def test_frames_without_an_answer_stop_a_table(calls, tmp_path):
    run(tmp_path, only=("mixste",))
    path = next(tmp_path.glob("*/H1_W1_shift.json"))
    summary = json.loads(path.read_text("utf-8")) | {"num_failed": {"mean": 0, "first": 2}}
    path.write_text(json.dumps(summary), "utf-8")
    with pytest.raises(ValueError, match=r"shift.json: expected a finite answer .* for 2 of 9"):
        run(tmp_path, only=("mixste",))


def test_a_difference_below_the_spread_is_none(capsys):
    base = {"H": 1, "W": 1, "every": 1, "than": 0, "paper": (None, 31.24), "levels": [[1.0]]}
    rows = [
        base | {"name": "first", "mpjpe": [40.0, 41.0], "p_mpjpe": [30.0, 30.1]},
        base | {"name": "near", "mpjpe": [41.2, 41.3], "p_mpjpe": [29.0, 29.0]},
        base | {"name": "far", "mpjpe": [42.0, 42.0], "p_mpjpe": [29.0, 32.0]},
        base | {"name": "other", "mpjpe": [42.0, 42.0], "p_mpjpe": [29.0, 32.0], "every": 4},
    ]
    tables.print_table("a table", rows)
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "40.50 ± 0.50" in lines["first"]
    assert "none" not in lines["first"]
    # Of each metric by its own spread.
    cells = {name: [c.strip() for c in line.split("│")] for name, line in lines.items()}
    assert [c for c in cells["near"] if c in ("none", "-1.05")] == ["none", "-1.05"]
    assert [c for c in cells["far"] if c in ("none", "+1.50")] == ["+1.50", "none"]
    # Of other windows than the first row's.
    assert not {"none", "+1.50"} & set(cells["other"])


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"paper: expected one of \['ddhpose'\], got 'mixste'"):
        tables.run("mixste", "cmu17", "", tmp_path)
    for name in ("seeds", "every"):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1"):
            run(tmp_path, **{name: 0})
    with pytest.raises(ValueError, match=r"only: expected some of \[.*\], got \['mixst'\]"):
        run(tmp_path, only=("mixste", "mixst"))


@pytest.mark.slow
def test_on_runs_that_are_trained_and_scored(tmp_path, monkeypatch, capsys):
    """All else here makes up what an evaluation writes. In `tiny` there are no 50 steps to take."""
    for table in (data._TRAINING, data._TEST):
        monkeypatch.setitem(table, "cmu17", table["procedural"])
    rows = {title: tuple(r for r in rows if r.sampled[1] < 50) for title, rows in TABLES.items()}
    monkeypatch.setitem(tables.PAPERS, "ddhpose", rows)
    found = run(tmp_path, seeds=1, only=("mixste", "d3dp"), every=2)
    systems = found["Tables 1, 2 and 7: systems"]
    assert [(row["name"], row["H"], row["W"]) for row in systems] == [
        ("MixSTE", 1, 1),
        *(("D3DP", H, W) for H, W in ((1, 1), (5, 1), (20, 10))),
    ]
    for row in systems:
        assert all(error > 0 for error in (*row["mpjpe"], *row["p_mpjpe"], *row["levels"][0]))
    printed = capsys.readouterr().out
    for text in ("Rules over hypotheses, H = 20, W = 10", "P-Agg (mean)", "Figure 1, right"):
        assert text in printed
    count = len([*tmp_path.rglob("*")])
    assert run(tmp_path, seeds=1, only=("mixste", "d3dp"), every=2) == found
    assert len([*tmp_path.rglob("*")]) == count
