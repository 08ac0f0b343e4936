"""The suite "diffhpe": rows that are consistent with each other; nothing depends on speed."""

import numpy as np
import pytest

from experiments.benchmark_diffhpe import run_diffhpe
from posediff_jax.evaluation import throughput
from posediff_jax.evaluation.throughput import diffhpe_flops, window_flops


def test_flops_are_those_of_the_published_network():
    """Against a count by hand: 27 frames, 17 joints, 64 channels, 16 blocks, 8 pools."""
    tokens = 27 * 17
    over_frames = 2 * 17 * 64 * 27 * 27 * 2 + 2 * 17 * 17 * 27 * 64
    over_channels = 2 * tokens * 64 * 64 * 2 + 2 * 17 * 17 * 27 * 64
    attention = 3 * 2 * tokens * 64 * 32 + 2 * 17 * 8 * 27 * 32
    block = over_frames + over_channels + attention + 2 * 2 * tokens * 64 * 128
    output = 2 * tokens * 64 * 64 + 2 * tokens * 64 * 3
    assert diffhpe_flops(27, 17, 64) == 16 * block + output


@pytest.mark.slow
def test_rows_are_consistent(monkeypatch):
    monkeypatch.setattr(throughput, "SQUARES", (64,))
    size = {"frames": 5, "width": 8, "num_blocks": 2}
    runs = (("ddpm", 0), ("ddim", 2))
    rows = run_diffhpe(**size, windows=2, repeats=1, hypotheses=3, num_timesteps=4, samplers=runs)
    assert [(r["system"], r["sampler"]) for r in rows] == [
        (f"diffhpe_{form}", sampler)
        for form in ("2d", "wrapper")
        for sampler in ("ddpm 4", "ddim 2")
    ]
    step = diffhpe_flops(5, 17, 8, num_blocks=2)
    for row, calls in zip(rows, (4, 2, 4, 2), strict=True):
        lifter = window_flops(5, 17, 64) if row["system"] == "diffhpe_wrapper" else 0
        seconds = 2 * row["s_per_sequence"]
        achieved = 2 * (3 * calls * step + lifter) / seconds / 1e9
        np.testing.assert_allclose(row["achieved_gflops"], achieved)
        np.testing.assert_allclose(row["share_of_peak"], achieved / row["peak_gflops"])
        np.testing.assert_allclose(row["sequences_per_s"] * seconds, 2)
        # Compared with the authors' time in the published setting only.
        assert row["times_authors"] is None
