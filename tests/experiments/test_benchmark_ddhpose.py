"""The suites "ddhpose" and "ddhpose-parts": rows agree with each other, whatever the speed."""

import numpy as np
import pytest

from experiments.benchmark_ddhpose import run_ddhpose, run_parts
from posediff_jax.evaluation.throughput import window_flops


@pytest.mark.slow
def test_rows_are_consistent():
    rows = run_ddhpose(
        width=16, frames=5, depth=2, windows=2, repeats=1, sampling=((3, 2),), max_chains=2
    )
    assert [r["run"] for r in rows] == ["forward", "training step", "sampling H=3 W=2"]
    flops = 2 * window_flops(5, 17, 16, depth=2, children=True)
    for row, passes in zip(rows, (1, 3, 2 * 3 * 2), strict=True):
        achieved = flops * passes / row["seconds"] / 1e9
        np.testing.assert_allclose(row["achieved_gflops"], achieved)
        np.testing.assert_allclose(row["share_of_peak"], achieved / row["peak_gflops"])
        np.testing.assert_allclose(row["ms_per_forward"] * passes, 1e3 * row["seconds"])


@pytest.mark.slow
def test_parts_add_up_to_the_formula_of_one_evaluation():
    rows = run_parts(width=16, frames=5, depth=2, windows=2, repeats=1)
    whole = [r for r in rows if not r["part"].startswith(" ")]
    assert [r["calls"] for r in whole] == [7 * 2, 2, 2, 2 * 2]
    total = sum(r["achieved_gflops"] * r["ms_per_forward"] * 1e6 for r in whole)
    # Each attention over frames is timed with child features, which the first block has not.
    first = 2 * 2 * 5 * 17 * 16**2
    np.testing.assert_allclose(total, 2 * window_flops(5, 17, 16, depth=2, children=True) + first)
