"""The rows of ZeDO's benchmark are consistent with each other; nothing depends on speed."""

import numpy as np
import pytest

from experiments import benchmark_zedo
from posediff_jax.evaluation import throughput
from posediff_jax.evaluation.throughput import score_mlp_flops


@pytest.fixture(scope="module")
def rows():
    with pytest.MonkeyPatch.context() as patch:
        # The peak of a machine takes seconds to find, and nothing here depends on it.
        patch.setattr(throughput, "SQUARES", (256,))
        return benchmark_zedo.run_zedo(width=64, iterations=3, repeats=1, rows=((4, 1), (3, 2)))


def test_one_row_per_batch_and_number_of_hypotheses(rows):
    assert [(r["poses"], r["hypotheses"]) for r in rows] == [(4, 1), (3, 2)]


def test_shares_follow_from_the_time_per_iteration(rows):
    for row in rows:
        gflops = score_mlp_flops(17, 64) / row["us_per_pose_and_iteration"] / 1e3
        np.testing.assert_allclose(row["achieved_gflops"], gflops)
        np.testing.assert_allclose(row["share_of_peak"], gflops / row["peak_gflops"])
        scaled = row["us_per_pose_and_iteration"] * row["peak_gflops"] / 127
        np.testing.assert_allclose(row["us_scaled"], scaled)
        assert row["share_of_peak"] > 0


def test_flops_are_those_of_the_products():
    """Two per weight of the layers that see the pose: input, two blocks of two, output."""
    shapes = [(51, 1024), *[(1024, 1024)] * 4, (1024, 51)]
    assert score_mlp_flops(17, 1024) == 2 * sum(a * b for a, b in shapes)
