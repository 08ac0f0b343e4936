"""The benchmark's rows are consistent with each other; nothing here depends on speed."""

import numpy as np
import pytest

from experiments import benchmark
from posediff_jax.evaluation.throughput import diffupose_flops

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows():
    return benchmark.run_diffupose(
        width=32, chains=20, dtype="float32", repeats=1, rows=(("ddim", 2), ("ddpm", 4))
    )


def test_one_row_per_sampler_and_number_of_hypotheses(rows):
    assert [(r["sampler"], r["steps"], r["hypotheses"], r["poses"]) for r in rows] == [
        ("ddim", 2, 1, 20),
        ("ddim", 2, 10, 2),
        ("ddpm", 100, 1, 20),
        ("ddpm", 100, 10, 2),
    ]


def test_rates_follow_from_the_time_per_step(rows):
    for row in rows:
        per_pose = row["ms_per_pose_and_step"] * row["steps"] * row["hypotheses"] / 1e3
        np.testing.assert_allclose(row["poses_per_s"], 1 / per_pose)
        gflops = diffupose_flops(16, 32) / row["ms_per_pose_and_step"] / 1e6
        np.testing.assert_allclose(row["achieved_gflops"], gflops)
        np.testing.assert_allclose(row["share_of_peak"], gflops / row["peak_gflops"])
        assert 0 < row["share_of_peak"] < 1


def test_table_prints_every_column(rows, capsys):
    benchmark.print_rows(rows, "title")
    printed = capsys.readouterr().out
    assert "title" in printed
    assert "share" in printed
