"""Speed of ZeDO's loop: the suite "zedo" of `experiments.benchmark`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.calibration import make_camera
from posediff_jax.camera import project
from posediff_jax.evaluation.throughput import MatmulPeak, score_mlp_flops, time_call
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from posediff_jax.types import PoseBatch

# Poses in a batch and hypotheses for each.
ROWS = ((64, 1), (64, 10), (640, 1), (640, 2), (6400, 1))
# The machine on which the authors' code takes 215 microseconds at (64, 10) and 127 at (640, 2).
REFERENCE_GFLOPS = 127.0


def run_zedo(
    *,
    width: int = 1024,
    iterations: int = 20,
    dtype: str = "float32",
    repeats: int = 5,
    max_chains: int = 0,
    rows: tuple[tuple[int, int], ...] = ROWS,
) -> list[dict[str, Any]]:
    """Times the system's `sample` without the initial fit, as a user calls it.

    Args:
      width: H of the network; the time embedding has half of it.
      iterations: N of the loop; a call's time is divided by it, set-up included.
      dtype: Compute type of the network.
      repeats: Timed calls; the best one counts.
      max_chains: Hypotheses in memory at a time; 0 for all.
      rows: (poses, hypotheses) pairs.

    Returns:
      One dict per row. `us_scaled` is the time on a machine whose matmul peak is
      `REFERENCE_GFLOPS`, at the same share of peak.
    """
    anchors = 0.3 * np.random.default_rng(0).normal(size=(max(h for _, h in rows), 17, 3))
    system = make_system(
        {
            "system": "zedo",
            "skeleton": H36M_17.name,
            "model": {"width": width, "embedding": width // 2, "dtype": dtype},
            "process": {},
            "loss": {},
            "sampler": {
                "fit_iterations": 0,
                "num_iterations": iterations,
                "max_chains": max_chains,
            },
        },
        {"anchors": anchors.astype(np.float32)},
    )
    variables = jax.jit(system.init)(jax.random.key(0))
    flops = score_mlp_flops(H36M_17.num_joints, width)
    results = []
    for poses, hypotheses in rows:
        chains = poses * hypotheses
        peak = MatmulPeak(((chains, width, width),), dtype=jnp.dtype(dtype))
        sample = jax.jit(partial(system.sample, num_hypotheses=hypotheses))
        args = jax.random.key(1), variables, _make_batch(poses)
        timing = time_call(sample, *args, repeats=repeats, peak=peak)
        per_iteration = timing.best_s / (chains * iterations)
        share = flops / per_iteration / timing.peak_flops
        results.append(
            {
                "poses": poses,
                "hypotheses": hypotheses,
                "us_per_pose_and_iteration": 1e6 * per_iteration,
                "us_scaled": 1e6 * flops / (share * REFERENCE_GFLOPS * 1e9),
                "compile_s": timing.compile_s - timing.median_s,
                "achieved_gflops": flops / per_iteration / 1e9,
                "peak_gflops": timing.peak_flops / 1e9,
                "share_of_peak": share,
            }
        )
    return results


def _make_batch(size: int) -> PoseBatch:
    """People of noise, 4 m away."""
    camera = make_camera(1145.0, (512.0, 515.0), (1000, 1002))
    pose = 0.3 * jax.random.normal(jax.random.key(0), (size, 1, 17, 3))
    pixels = project(camera, pose + jnp.array([0.0, 0.0, 4.0]))
    ones = jnp.ones((size, 1))
    zeros = jnp.zeros(size, jnp.int32)
    return PoseBatch(
        keypoints=pixels,
        keypoints_px=pixels,
        confidence=jnp.ones((size, 1, 17)),
        mask=ones,
        index=jnp.arange(size, dtype=jnp.int32),
        subject=zeros,
        action=zeros,
        camera=jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), camera),
    )
