"""Speed of DiffHPE: the suite "diffhpe" of the benchmark."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark_ddhpose import window_batch
from posediff_jax.denoisers.diffhpe import joint_groups
from posediff_jax.denoisers.grouped import pooled_joints
from posediff_jax.evaluation.throughput import (
    MatmulPeak,
    diffhpe_flops,
    time_call,
    window_flops,
)
from posediff_jax.samplers.aggregate import mean_pose
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from posediff_jax.systems.diffhpe import WrapperModelOptions

# Seconds that the authors' code takes for a sequence of 27 frames, H = 5, on two cores.
AUTHORS = {"diffhpe_2d": 11.3, "diffhpe_wrapper": 17.1}


def run_diffhpe(
    *,
    width: int = 64,
    frames: int = 27,
    num_blocks: int = 16,
    windows: int = 1,
    dtype: str = "float32",
    repeats: int = 5,
    hypotheses: int = 5,
    num_timesteps: int = 50,
    samplers: tuple[tuple[str, int], ...] = (("ddpm", 0), ("ddim", 10)),
) -> list[dict[str, Any]]:
    """Times sampling in both forms on one device, the published run first, averages included.

    Args:
      width: C of the network.
      frames: F.
      num_blocks: Residual blocks.
      windows: Sequences in one call.
      dtype: Compute type of the network.
      repeats: Timed calls of each row; the best one counts.
      hypotheses: H.
      num_timesteps: T.
      samplers: Names and steps, where DDPM always takes all T.

    Returns:
      One dict per row; `times_authors` compares with the authors' code where the run is the
      published one.
    """
    joints, options = H36M_17.num_joints, WrapperModelOptions()
    pools = len(pooled_joints(joint_groups(H36M_17, None), "official"))
    step = diffhpe_flops(frames, joints, width, num_blocks=num_blocks, num_pools=pools)
    lifter = window_flops(frames, joints, options.lifter_width, depth=options.lifter_depth)
    tokens = windows * hypotheses * frames * joints
    peak = MatmulPeak(((tokens, width, width), (tokens, width, 2 * width)), dtype=jnp.dtype(dtype))
    model = {"num_frames": frames, "width": width, "num_blocks": num_blocks, "dtype": dtype}
    batch, rows = window_batch(windows, frames), []
    for system in AUTHORS:
        wrapper = system == "diffhpe_wrapper"
        # The same network and arithmetic as with a frozen lifter, which would need weights.
        more = {"lifter": "trained"} if wrapper else {}
        for name, steps in samplers:
            config = {
                "system": system,
                "skeleton": H36M_17.name,
                "model": {**model, **more},
                "process": {"num_timesteps": num_timesteps},
                "sampler": {"name": name, "num_steps": steps or 1},
            }
            built = make_system(config)
            variables = jax.jit(built.init)(jax.random.key(0))
            sample = jax.jit(partial(_mean, partial(built.sample, num_hypotheses=hypotheses)))
            run = partial(sample, jax.random.key(1), variables, batch)
            timing = time_call(run, repeats=repeats, peak=peak)
            calls = num_timesteps if name == "ddpm" else steps
            flops = windows * (hypotheses * calls * step + (lifter if wrapper else 0))
            seconds = timing.best_s / windows
            published = (name, width, frames, num_blocks, hypotheses, num_timesteps) == (
                *("ddpm", 64, 27, 16, 5, 50),
            )
            rows.append(
                {
                    "system": system,
                    "sampler": f"{name} {calls}",
                    "hypotheses": hypotheses,
                    "windows": windows,
                    "s_per_sequence": seconds,
                    "sequences_per_s": 1 / seconds,
                    "times_authors": AUTHORS[system] / seconds if published else None,
                    "compile_s": timing.compile_s - timing.median_s,
                    "achieved_gflops": flops / timing.best_s / 1e9,
                    "peak_gflops": timing.peak_flops / 1e9,
                    "share_of_peak": flops / timing.best_s / timing.peak_flops,
                }
            )
    return rows


def _mean(sample: Any, *arguments: Any) -> jax.Array:
    return mean_pose(sample(*arguments).samples)
