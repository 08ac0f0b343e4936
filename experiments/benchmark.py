"""Speed of sampling, compile time apart, with the share of the machine's matmul peak.

python -m experiments.benchmark --suite=diffupose [--width=384] [--dtype=float32] [--json=FILE]
python -m experiments.benchmark --suite=zedo [--width=1024] [--iterations=20]
python -m experiments.benchmark --suite=ddhpose [--width=512] [--windows=1] [--dtype=float32]
python -m experiments.benchmark --suite=diffhpe [--width=64] [--windows=1] [--dtype=float32]
python -m experiments.benchmark --suite=ddhpose-parts  # where the time of one evaluation goes
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from rich.table import Table

from experiments.benchmark_ddhpose import run_ddhpose, run_parts
from experiments.benchmark_diffhpe import run_diffhpe
from experiments.benchmark_zedo import run_zedo
from experiments.common import start, write_json
from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.evaluation.report import print_whole
from posediff_jax.evaluation.throughput import (
    MatmulPeak,
    diffhpe_flops,
    diffupose_flops,
    score_mlp_flops,
    time_call,
    window_flops,
)
from posediff_jax.process.schedules import cosine_schedule
from posediff_jax.samplers.aggregate import mean_pose
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.skeleton import H36M_16
from posediff_jax.systems.diffupose import SamplerName, SamplerOptions, bind_predict, run_sampler
from posediff_jax.types import Array, Variables

# Table VI of the paper: DDIM with 2 to 20 of 100 steps, and DDPM.
NUM_TIMESTEPS = 100
TABLE_VI: tuple[tuple[SamplerName, int], ...] = (
    ("ddim", 2),
    ("ddim", 5),
    ("ddim", 10),
    ("ddim", 20),
    ("ddpm", NUM_TIMESTEPS),
)


def run_diffupose(
    *, width: int, chains: int, dtype: str, repeats: int, rows: tuple = TABLE_VI
) -> list[dict[str, Any]]:
    """Times Table VI's samplers for N = 1 and 10 hypotheses per pose, averaged, without flipping.

    Args:
      width: C of the network.
      chains: Poses times hypotheses in one call.
      dtype: Compute type of the network.
      repeats: Timed calls; the best one counts.
      rows: (sampler, steps) pairs; "ddpm" always takes all steps.

    Returns:
      One dict per row; rates are final poses per second.
    """
    model = DiffuPoseGCN(H36M_16, width=width, dtype=jnp.dtype(dtype))
    joints = H36M_16.num_joints
    variables = model.init(
        jax.random.key(0),
        jnp.zeros((1, joints, 2)),
        jnp.zeros((1, joints, 3)),
        jnp.zeros((1,), jnp.int32),
    )
    flops = diffupose_flops(joints, width)
    # The products of a residual block, with the two weight matrices side by side, and of attention.
    tokens = chains * joints
    shapes = ((tokens, width, 2 * width), (tokens, width, width), (tokens, width, width // 2))
    peak = MatmulPeak(shapes, dtype=jnp.dtype(dtype))
    results = []
    for name, steps in rows:
        steps = steps if name == "ddim" else NUM_TIMESTEPS
        for hypotheses in (1, 10):
            poses = max(1, chains // hypotheses)
            cond = jax.random.uniform(jax.random.key(1), (poses, joints, 2), minval=-1.0)
            keys = jax.random.split(jax.random.key(2), poses)
            sample = jax.jit(_sampler(model, name, steps, hypotheses))
            timing = time_call(sample, variables, keys, cond, repeats=repeats, peak=peak)
            evaluations = poses * hypotheses * steps
            results.append(
                {
                    "sampler": name,
                    "steps": steps,
                    "hypotheses": hypotheses,
                    "poses": poses,
                    "poses_per_s": poses / timing.best_s,
                    "ms_per_pose_and_step": 1e3 * timing.best_s / evaluations,
                    "compile_s": timing.compile_s - timing.median_s,
                    "achieved_gflops": flops * evaluations / timing.best_s / 1e9,
                    "peak_gflops": timing.peak_flops / 1e9,
                    "share_of_peak": flops * evaluations / timing.best_s / timing.peak_flops,
                }
            )
    return results


def _sampler(
    model: DiffuPoseGCN, name: SamplerName, steps: int, hypotheses: int
) -> Callable[[Variables, Array, Array], Array]:
    schedule = cosine_schedule(NUM_TIMESTEPS)
    options = SamplerOptions(name=name, num_steps=steps)

    def sample(variables: Variables, keys: Array, cond: Array) -> Array:
        def one(key: Array, keypoints: Array) -> Array:
            predict = bind_predict(model, variables, keypoints, schedule=schedule, clip=1.0)
            start, rest = jax.random.split(key)
            x_init = jax.random.normal(start, (*keypoints.shape[:-1], 3))
            return run_sampler(rest, predict, x_init, schedule, options).samples

        return mean_pose(fan_out(keys, one, cond, num_hypotheses=hypotheses))

    return sample


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Prints the rows of a suite as a table."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    print_whole(table)


def run_suite(suite: str, given: Any) -> tuple[list[dict[str, Any]], str]:
    """The rows of a suite and their title; `given` has the flags of `define_flags`."""
    common: dict[str, Any] = {"dtype": given.dtype, "repeats": given.repeats}
    if suite == "zedo":
        width = given.width or 1024
        rows = run_zedo(width=width, iterations=given.iterations, **common)
        name, unit, flops = "ZeDO's loop", "pose", score_mlp_flops(17, width)
    elif suite in ("ddhpose", "ddhpose-parts"):
        width = given.width or 512
        run = run_ddhpose if suite == "ddhpose" else run_parts
        rows = run(width=width, windows=given.windows, **common)
        name, unit, flops = (
            "DDHPose",
            "window of 243 frames",
            window_flops(243, 17, width, children=True),
        )
    elif suite == "diffhpe":
        width = given.width or 64
        rows = run_diffhpe(width=width, windows=given.windows, **common)
        name, unit, flops = "DiffHPE", "sequence of 27 frames", diffhpe_flops(27, 17, width)
    else:
        width = given.width or 384
        rows = run_diffupose(width=width, chains=given.chains, **common)
        name, unit, flops = "DiffuPose", "pose", diffupose_flops(H36M_16.num_joints, width)
    device = jax.devices()[0].device_kind
    amount = f"{flops / 1e6:.1f} MFLOP per {unit} and step"
    return rows, f"{name}, width {width}, {given.dtype}, {device}; {amount}"


def main(argv: list[str]) -> None:
    """Runs the suite that the flags name."""
    start(argv)
    given = flags.FLAGS
    rows, title = run_suite(given.suite, given)
    print_rows(rows, title)
    if given.json:
        write_json(given.json, {"title": title, "rows": rows})


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    suites = ["diffupose", "ddhpose", "ddhpose-parts", "diffhpe", "zedo"]
    flags.DEFINE_enum("suite", "diffupose", suites, "What to time.")
    flags.DEFINE_integer("width", 0, "Width of the network; 0 for the published one.")
    flags.DEFINE_integer("chains", 256, "DiffuPose: chains in one call, poses times hypotheses.")
    flags.DEFINE_integer("windows", 1, "DDHPose, DiffHPE: windows in one call.")
    flags.DEFINE_integer("iterations", 20, "ZeDO: iterations of the timed loop.")
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Compute type.")
    flags.DEFINE_integer("repeats", 5, "Timed calls of each row.")
    flags.DEFINE_string("json", "", "Also write the rows to this file.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
