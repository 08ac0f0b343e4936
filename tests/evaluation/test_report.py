"""Scores of hypotheses against NumPy, and the table that prints them."""

import numpy as np
import pytest
from rich.table import Table

from posediff_jax.evaluation.report import print_scores, print_whole, score_hypotheses


def test_scores_are_millimetres_of_the_mean_pose():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 1, 17, 3)).astype(np.float32)
    hypotheses = truth[:, None] + rng.normal(size=(4, 3, 1, 17, 3)).astype(np.float32) * 0.05
    scores = score_hypotheses(hypotheses, truth)
    mean = hypotheses.mean(axis=1)
    np.testing.assert_allclose(
        scores["mpjpe"], 1000 * np.linalg.norm(mean - truth, axis=-1).mean(), rtol=1e-5
    )
    distance = np.linalg.norm(hypotheses - mean[:, None], axis=-1)
    np.testing.assert_allclose(
        scores["spread"], 1000 * np.sqrt((distance**2).mean(axis=1)).mean(), rtol=1e-5
    )
    assert 0 < scores["p_mpjpe"] < scores["mpjpe"]


def test_a_rotated_pose_has_no_aligned_error():
    truth = np.random.default_rng(0).normal(size=(2, 1, 17, 3)).astype(np.float32)
    turned = truth @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
    scores = score_hypotheses(turned[:, None], truth)
    assert scores["mpjpe"] > 500
    assert scores["p_mpjpe"] < 1e-2


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"truth: expected \(4, 1, 17, 3\) .* got \(4, 17, 3\)"):
        score_hypotheses(np.zeros((4, 2, 1, 17, 3)), np.zeros((4, 17, 3)))


def test_the_table_says_what_each_figure_needs(capsys):
    rows = {"ours": {"mpjpe": 12.345, "p_mpjpe": 6.7, "spread": 0.0}}
    print_scores(rows, title="Scores", columns=("mpjpe", "p_mpjpe", "spread"))
    printed = capsys.readouterr().out
    assert "12.3" in printed
    assert "P-MPJPE" in printed
    assert "ground truth" in printed


def test_no_figure_of_a_wide_table_is_cut_short(capsys):
    table = Table(title="wide")
    for column in range(40):
        table.add_column(f"column {column}", no_wrap=True)
    table.add_row(*(f"{1000 + column}.5" for column in range(40)))
    print_whole(table)
    out = capsys.readouterr().out
    assert all(f" {1000 + column}.5 " in out for column in range(40))
