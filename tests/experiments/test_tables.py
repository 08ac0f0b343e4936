"""Tables of a paper: what is there is not done again, spreads and differences by hand."""

import pytest

from experiments import tables


def run(tmp_path, **options):
    given = {"size": "tiny", "seeds": 2, **options}
    return tables.run("ddhpose", "cmu17", "somewhere", tmp_path, **given)


def test_each_model_is_trained_once_and_each_figure_made_once(calls, tmp_path, capsys):
    found = run(tmp_path)
    # MixSTE, D3DP, DDHPose, three more of Table 4, three of Table 5, one of Table 6; two seeds.
    assert len(list(tmp_path.iterdir())) == 2 * 10
    assert calls.count_of("train") == 2 * 10
    assert calls.count_of("evaluate") == 2 * (1 + 4 + 4 + 7)
    assert [len(rows) for rows in found.values()] == [9, 4, 4, 2]
    assert found["Table 6: loss"][0]["levels"] == [[10, 20, 30, 40, 50]] * 2
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("Table 4", "41.72", "20, 10", "level 5", "none"))
    count = len(calls)
    assert run(tmp_path) == found
    assert len(calls) == count
    run(tmp_path, steps=7, only=("mixste",))
    asked = {"num_hypotheses": 1, "sampler": {}, "data": "somewhere"}
    assert [kind for kind, _ in calls[count:]] == ["train", "evaluate"] * 2
    assert [config.seed for _, config in calls[count::2]] == [0, 1]
    assert [options for _, options in calls[count + 1 :: 2]] == [asked] * 2


def test_a_difference_below_the_spread_is_none(capsys):
    base = {"H": 1, "W": 1, "paper": (None, 31.24), "levels": [[1.0]], "p_mpjpe": [30.0]}
    rows = [
        base | {"name": "first", "mpjpe": [40.0, 41.0]},
        base | {"name": "near", "mpjpe": [41.2, 41.3]},
        base | {"name": "far", "mpjpe": [42.0, 42.0]},
    ]
    tables.print_table("a table", rows)
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "40.50 ± 0.50" in lines["first"]
    assert "none" in lines["near"]
    assert "+1.50" in lines["far"]


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"paper: expected one of \['ddhpose'\], got 'mixste'"):
        tables.run("mixste", "cmu17", "", tmp_path)
    with pytest.raises(ValueError, match="seeds: expected at least 1"):
        run(tmp_path, seeds=0)
