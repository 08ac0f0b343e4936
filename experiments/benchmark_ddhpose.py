"""Speed of DDHPose, D3DP and MixSTE: the suites "ddhpose" and "ddhpose-parts" of the benchmark."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.calibration import default_camera
from posediff_jax.config import read_dtype
from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.denoisers.layers import Dense
from posediff_jax.denoisers.transformer import MLP, Attention, gelu, layer_norm
from posediff_jax.evaluation.throughput import MatmulPeak, time_call, window_flops
from posediff_jax.parallel import replicate, shard_batch
from posediff_jax.process.bones import Bones, bone_tree
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from posediff_jax.training import create_state, make_optimizer, make_train_step
from posediff_jax.types import PoseBatch

# Hypotheses and steps of the timed sampling runs; each step takes two evaluations, for flipping.
SAMPLING = ((1, 1), (4, 2))


def run_ddhpose(
    *,
    width: int = 512,
    frames: int = 243,
    depth: int = 8,
    windows: int = 1,
    dtype: str = "float32",
    repeats: int = 5,
    sampling: tuple[tuple[int, int], ...] = SAMPLING,
    max_chains: int = 1,
) -> list[dict[str, Any]]:
    """Times the forward pass, the training step and sampling on one device.

    Args:
      width: C of the network.
      frames: F.
      depth: Pairs of blocks.
      windows: Windows in one call.
      dtype: Compute type of the network.
      repeats: Timed calls of each row; the best one counts.
      sampling: Hypotheses and steps of each run.
      max_chains: Hypotheses in memory at a time.

    Returns:
      One dict per row. A training step counts as three forward passes, stochastic depth included.
    """
    config = {
        "system": "ddhpose",
        "skeleton": H36M_17.name,
        "model": {"num_frames": frames, "width": width, "depth": depth, "dtype": dtype},
        "process": {},
        "loss": {},
        "sampler": {"max_chains": max_chains},
    }
    flops = windows * window_flops(frames, H36M_17.num_joints, width, depth=depth, children=True)
    tokens = windows * frames * H36M_17.num_joints
    shapes = [(tokens, a * width, b * width) for a, b in ((1, 3), (1, 1), (1, 2), (2, 1))]
    peak = MatmulPeak(shapes, dtype=jnp.dtype(dtype))
    batch = window_batch(windows, frames)
    variables = jax.jit(make_system(config).init)(jax.random.key(0))
    jobs: list[tuple[str, int, Callable[[], Any]]] = [
        ("forward", 1, _forward(config, variables, batch)),
        ("training step", 3, _training(config, batch)),
    ]
    for hypotheses, steps in sampling:
        chosen = {**config, "sampler": {"num_steps": steps, "max_chains": max_chains}}
        run = _sampling(chosen, variables, batch, hypotheses)
        jobs.append((f"sampling H={hypotheses} W={steps}", 2 * hypotheses * steps, run))
    return [_row(name, passes, flops, run, repeats, peak) for name, passes, run in jobs]


def run_parts(
    *,
    width: int = 512,
    frames: int = 243,
    depth: int = 8,
    windows: int = 1,
    dtype: str = "float32",
    repeats: int = 5,
) -> list[dict[str, Any]]:
    """Where the time of one evaluation goes: each part alone, compiled by itself.

    Arguments as for `run_ddhpose`. An indented row is the share of its linear layers, or of its
    nonlinearity, in the row above.
    """
    joints, tree = H36M_17.num_joints, bone_tree(H36M_17)
    tokens = windows * frames * joints
    shape = (windows, frames, joints, width)
    compute = read_dtype(dtype, where="dtype")
    heads: dict[str, Any] = {"num_heads": 8, "dtype": compute}
    linear = 2 * tokens * width**2
    dots = 4 * tokens * width
    one, three, two = (Dense(n * width, dtype=compute) for n in (1, 3, 2))
    same = (shape,)
    # Name, calls of one evaluation, FLOPs of a call, module or function, shapes of its arguments.
    parts: list[tuple[str, int, int, Any, tuple[tuple[int, ...], ...]]] = [
        ("layer norm", 7 * depth, 0, layer_norm(dtype=compute), same),
        (
            "attention over joints",
            depth,
            4 * linear + dots * joints,
            Attention(axis="joints", tree=tree, **heads),
            same,
        ),
        (
            "attention over frames",
            depth,
            5 * linear + dots * frames,
            Attention(axis="frames", **heads),
            (shape, shape),
        ),
        ("  q, k, v of either", 2 * depth, 3 * linear, three, same),
        ("  child or output of either", 3 * depth - 1, linear, one, same),
        ("MLP", 2 * depth, 4 * linear, MLP(2.0, dtype=compute), same),
        ("  up", 2 * depth, 2 * linear, two, same),
        ("  GELU", 2 * depth, 0, gelu, ((*shape[:-1], 2 * width),)),
        ("  down", 2 * depth, 2 * linear, one, ((*shape[:-1], 2 * width),)),
    ]
    peak = MatmulPeak([(tokens, width, n * width) for n in (1, 2, 3)], dtype=jnp.dtype(dtype))
    rows = []
    for name, calls, flops, part, shapes in parts:
        inputs = [jnp.ones(s, dtype) for s in shapes]
        run: Any = jax.jit(part)
        if isinstance(part, nn.Module):
            run = partial(jax.jit(part.apply), part.init(jax.random.key(0), *inputs))
        timing = time_call(run, *inputs, repeats=repeats, peak=peak)
        rows.append(
            {
                "part": name,
                "calls": calls,
                "ms_per_forward": 1e3 * calls * timing.best_s,
                "achieved_gflops": flops / timing.best_s / 1e9,
                "peak_gflops": timing.peak_flops / 1e9,
            }
        )
    return rows


def _row(
    name: str,
    passes: int,
    flops: int,
    run: Callable[[], Any],
    repeats: int,
    peak: MatmulPeak,
) -> dict[str, Any]:
    timing = time_call(run, repeats=repeats, peak=peak)
    achieved = flops * passes / timing.best_s
    return {
        "run": name,
        "seconds": timing.best_s,
        "ms_per_forward": 1e3 * timing.best_s / passes,
        "compile_s": timing.compile_s - timing.median_s,
        "achieved_gflops": achieved / 1e9,
        "peak_gflops": timing.peak_flops / 1e9,
        "share_of_peak": achieved / timing.peak_flops,
    }


def _forward(config: dict[str, Any], variables: Any, batch: PoseBatch) -> Callable[[], Any]:
    size = {**config["model"], "dtype": None}
    if config["model"]["dtype"] == "bfloat16":
        size["dtype"] = jnp.bfloat16
    model = DDHPoseDenoiser(H36M_17, **size)
    pose = jnp.asarray(batch.pose)
    noisy = Bones(pose, pose[..., :1])
    t = jnp.full(len(pose), 500)
    return partial(jax.jit(model.apply), variables, jnp.asarray(batch.keypoints), noisy, t)


def _training(config: dict[str, Any], batch: PoseBatch) -> Callable[[], Any]:
    system, devices = make_system(config), jax.local_devices()[:1]
    optimizer = make_optimizer({"name": "adamw", "learning_rate": 1e-4, "weight_decay": 0.1})
    step = make_train_step(system, optimizer, seed=0, devices=devices)
    # The step takes its state for itself, so each call goes on from the one before.
    held = [replicate(create_state(jax.random.key(0), system, optimizer), devices)]
    shard = shard_batch(batch, 1)

    def run() -> Any:
        held[0], metrics = step(held[0], shard)
        return metrics

    return run


def _sampling(
    config: dict[str, Any], variables: Any, batch: PoseBatch, hypotheses: int
) -> Callable[[], Any]:
    sample = partial(make_system(config).sample, num_hypotheses=hypotheses)
    return partial(jax.jit(sample), jax.random.key(1), variables, batch)


def window_batch(windows: int, frames: int) -> PoseBatch:
    """Windows of random poses; only their shapes matter here."""
    rng = np.random.default_rng(0)
    shape = (windows, frames, H36M_17.num_joints)
    keypoints: Any = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    camera = default_camera((1000, 1000))
    # PoseBatch is typed by what its leaves become on a device.
    ones: Any = np.ones(shape, np.float32)
    pose: Any = rng.normal(0, 0.3, (*shape, 3)).astype(np.float32)
    numbers: Any = np.arange(windows, dtype=np.int32)
    return PoseBatch(
        keypoints=keypoints,
        keypoints_px=500 * keypoints + 500,
        confidence=ones,
        mask=ones[..., 0],
        index=numbers,
        subject=0 * numbers,
        action=0 * numbers,
        camera=jax.tree.map(lambda x: np.broadcast_to(x, (windows, *np.shape(x))), camera),
        pose=pose,
    )
