"""Tables: averages of the papers, units, and what each figure needed."""

import json

import numpy as np
import pytest

from posediff_jax.evaluation.hypotheses import FrameScores
from posediff_jax.evaluation.tables import METRICS, print_summary, summarise

ACTIONS = ("Sitting", "SittingDown", "Directions")


def make_scores(**values):
    """Five frames: two of Sitting, two of SittingDown, one of Directions."""
    base = {"mpjpe": [0.1, 0.3, 0.5, 0.5, 0.9], "mpjve": [np.nan, 0.1, np.nan, 0.3, np.nan]}
    fields = {name: np.asarray((base | values).get(name, [0.5] * 5)) for name in METRICS}
    return FrameScores(
        values=dict.fromkeys(
            ("mean", "j_agg", "j_agg_true_root", "p_best", "p_best_batch"), fields
        ),
        spread=np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        crps=np.full(5, 0.05),
        energy=np.full(5, 0.07),
        rank_counts=np.array([1, 1, 2]),
        sequence=np.zeros(5, np.int64),
        frame=np.arange(5),
        subject=np.array([0, 1, 0, 1, 1]),
        action=np.array([0, 0, 1, 1, 2]),
        shared=4,
        levels={"mean": np.array([[0.1, 0.2], [0.3, 0.2], [0.1, 0.2], [0.1, 0.2], [0.1, 0.5]])},
    )


def summary(by_subject=False, **values):
    return summarise(
        make_scores(**values), actions=ACTIONS, subjects=("S9", "S11"), by_subject=by_subject
    )


def test_actions_weigh_alike_and_frames_too_by_their_name():
    figures = summary()["rules"]["mean"]["mpjpe"]
    # In the order of the papers' columns.
    assert list(figures["groups"]) == ["Directions", "Sitting", "SittingDown"]
    assert list(figures["groups"].values()) == pytest.approx([900, 200, 500])
    assert figures["mean"] == pytest.approx(1600 / 3)
    assert figures["frames"] == pytest.approx(460)


def test_shares_are_percent():
    assert summary()["rules"]["mean"]["pck"]["mean"] == pytest.approx(50)
    assert summary()["units"]["rules"]["pck"] == "percent"


def test_coherence_is_millimetres():
    found = summary(symmetry_gap=[0.01] * 5, segment_std=[0.002, np.nan, np.nan, np.nan, 0.004])
    figures = found["rules"]["mean"]
    assert found["units"]["rules"]["segment_std"] == "mm"
    assert figures["symmetry_gap"]["mean"] == pytest.approx(10)
    assert figures["segment_std"]["groups"] == pytest.approx({"Directions": 4, "Sitting": 2})


def test_levels_are_means_over_groups():
    first, second = summary()["levels"]["mean"]
    assert first["groups"] == pytest.approx({"Directions": 100, "Sitting": 200, "SittingDown": 100})
    assert second["mean"] == pytest.approx(300)
    assert second["frames"] == pytest.approx(260)


def test_groups_by_subject():
    groups = summary(by_subject=True)["rules"]["mean"]["mpjpe"]["groups"]
    assert groups == pytest.approx(
        {
            "Sitting S9": 100,
            "Sitting S11": 300,
            "SittingDown S9": 500,
            "SittingDown S11": 500,
            "Directions S11": 900,
        }
    )


def test_frames_without_a_velocity_are_left_out():
    figures = summary()["rules"]["mean"]["mpjve"]
    assert figures["groups"] == pytest.approx({"Sitting": 100, "SittingDown": 300})
    assert figures["frames"] == pytest.approx(200)
    none = summary(mpjve=[np.nan] * 5)["rules"]["mean"]["mpjve"]
    assert none == {"groups": {}, "mean": None, "frames": None}


def test_the_summary_is_json_and_says_what_was_needed():
    found = json.loads(json.dumps(summary(mpjve=[np.nan] * 5), allow_nan=False))
    assert found["needs"]["rules"] == {
        "mean": [],
        "j_agg": ["camera"],
        "j_agg_true_root": ["camera", "ground-truth root"],
        "p_best": ["ground truth"],
        "p_best_batch": ["ground truth"],
    }
    assert "ground-truth rotation, scale and position" in found["needs"]["metrics"]["p_mpjpe"]
    assert found["calibration"]["crps"] == pytest.approx(50)
    assert (found["num_hypotheses"], found["num_frames"]) == (2, 5)


def test_the_official_protocol_says_how_it_scales():
    found = summarise(
        make_scores()._replace(official=True), actions=ACTIONS, subjects=("S9", "S11")
    )
    assert found["needs"]["metrics"]["n_mpjpe"][1] == "ground-truth scale of each axis"
    assert summary()["needs"]["metrics"]["n_mpjpe"][1] == "ground-truth scale"


def test_frames_without_an_answer_are_said(capsys):
    scores = make_scores()
    broken = {**scores.values["mean"], "mpjpe": np.array([0.1, np.nan, 0.5, 0.5, 0.9])}
    scores = scores._replace(values={**scores.values, "mean": broken})
    found = summarise(scores, actions=ACTIONS, subjects=("S9", "S11"))
    assert {rule for rule, count in found["num_failed"].items() if count} == {"mean"}
    assert found["rules"]["mean"]["mpjpe"]["groups"]["Sitting"] == pytest.approx(100)
    print_summary(found, title="a method")
    text = " ".join(capsys.readouterr().out.split())
    assert "of 5 frames some have no finite answer" in text
    assert text.endswith("compare with no other's: mean: 1")


def test_the_tables_mark_oracles(capsys):
    print_summary(summary(), title="a method")
    text = capsys.readouterr().out
    assert "p_best (ORACLE: ground truth)" in text
    assert "j_agg (needs: camera)" in text
    assert "j_agg_true_root (ORACLE: camera, ground-truth root)" in text
    assert "p_best_batch: one hypothesis for 4 windows of a sequence" in text
    assert all(name in text for name in ("Dir.", "Sit", "SitD.", "a method: P-MPJPE (mm)"))
    assert "calibration of 2 hypotheses" in text
    assert "a method: coherence, mean over groups, H = 2" in text
    assert "SYMMETRY-GAP needs nothing" in text
    assert "SEGMENT-STD needs several frames" in text
    assert "a method: MPJPE (mm) by level" in text
    assert "533.3" in text
    assert "460.0" in text
