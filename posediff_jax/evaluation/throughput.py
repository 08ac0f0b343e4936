"""How fast, and how near to what the machine can do: timing, analytic FLOPs, matmul peak.

The share of peak counts only the arithmetic of the paper's formula, never padding, re-computation
or element-wise work, and the peak is measured on the same machine in the same minutes.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SQUARES = (1024, 2048, 4096)


class Timing(NamedTuple):
    """Wall-clock seconds of a jitted call.

    Attributes:
      compile_s: First call, tracing and compilation included.
      best_s: Fastest later call.
      median_s: Median of the later calls.
      peak_flops: Best matmul rate measured between those calls, FLOP/s; 0 if not asked for.
    """

    compile_s: float
    best_s: float
    median_s: float
    peak_flops: float


class MatmulPeak:
    """The best matmul rate over squares and the network's own product shapes.

    Args:
      shapes: (m, k, n) of the network's products.
      dtype: Type of the operands.
    """

    def __init__(self, shapes: Iterable[tuple[int, int, int]] = (), *, dtype: Any = jnp.float32):
        key = jax.random.key(0)
        self._product = jax.jit(jnp.matmul)
        self._operands = []
        for m, k, n in (*((s, s, s) for s in SQUARES), *shapes):
            a = jax.random.normal(key, (m, k), dtype)
            b = jax.random.normal(key, (k, n), dtype)
            jax.block_until_ready(self._product(a, b))
            self._operands.append((a, b))
        self.flops = 0.0

    def measure(self) -> float:
        """Runs every product once more; returns the best rate so far in FLOP/s."""
        for a, b in self._operands:
            seconds = _seconds(self._product, a, b)
            self.flops = max(self.flops, 2 * a.shape[0] * a.shape[1] * b.shape[1] / seconds)
        return self.flops


def time_call(
    function: Callable[..., Any], *args: Any, repeats: int = 10, peak: MatmulPeak | None = None
) -> Timing:
    """Times a jitted function, compile time apart, the matmul peak interleaved.

    Args:
      function: A jitted function.
      *args: Its arguments.
      repeats: Timed calls after the first.
      peak: Measured once between each two calls where given.

    Raises:
      ValueError: `repeats` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    compile_s = _seconds(function, *args)
    times = []
    for _ in range(repeats):
        if peak is not None:
            peak.measure()
        times.append(_seconds(function, *args))
    times.sort()
    flops = 0.0 if peak is None else peak.flops
    return Timing(compile_s, times[0], times[len(times) // 2], flops)


def graph_conv_flops(num_joints: int, features_in: int, features_out: int) -> int:
    """FLOPs of one modulated graph convolution on one pose.

    Two products X W[0], X W[1], the modulation by M, and the sum over joints with S.
    """
    products = 2 * 2 * num_joints * features_in * features_out
    modulation = 2 * num_joints * features_out
    aggregation = 2 * num_joints * num_joints * features_out
    return products + modulation + aggregation


def window_flops(
    num_frames: int,
    num_joints: int,
    width: int,
    *,
    depth: int = 8,
    mlp_ratio: float = 2.0,
    children: bool = False,
) -> int:
    """FLOPs of one evaluation of MixSTE, D3DP or DDHPose on one window: the products of its blocks.

    Left out are the time path, which all windows of a step share, the projections to and from
    fewer than ten channels, and the edit of DDHPose's logits: below 0.1 percent together.

    Args:
      num_frames: F.
      num_joints: J.
      width: C.
      depth: Pairs of blocks.
      mlp_ratio: Hidden width of the MLPs over C.
      children: DDHPose's projection of child features in all pairs but the first.

    >>> window_flops(243, 17, 512, children=True) // 10**9
    309
    """
    tokens = num_frames * num_joints
    layers = 2 * int((4 + 2 * mlp_ratio) * width**2) * tokens
    attention = 2 * 2 * width * (num_joints + num_frames) * tokens
    pairs = depth * (2 * layers + attention)
    return pairs + ((depth - 1) * 2 * width**2 * tokens if children else 0)


def diffupose_flops(
    num_joints: int, width: int, *, num_blocks: int = 4, non_local: bool = True
) -> int:
    """FLOPs of one evaluation of `DiffuPoseGCN` on one pose.

    The time path is left out: all poses of a sampling step share it.

    Args:
      num_joints: J.
      width: C.
      num_blocks: Residual blocks of two layers each.
      non_local: Whether the attention block is there.

    >>> diffupose_flops(16, 384) // 10**6
    87
    """
    layers = (
        graph_conv_flops(num_joints, 5, width)
        + 2 * num_blocks * graph_conv_flops(num_joints, width, width)
        + graph_conv_flops(num_joints, width, 5)
    )
    half = width // 2
    embeddings = 4 * 2 * num_joints * width * half  # theta, phi, g, and the way back
    attention = 2 * 2 * num_joints * num_joints * half
    return layers + (embeddings + attention if non_local else 0)


def diffhpe_flops(
    num_frames: int, num_joints: int, width: int, *, num_blocks: int = 16, num_pools: int = 8
) -> int:
    """FLOPs of one evaluation of `DiffHPEDenoiser` on one window, condition and steps encoded.

    The products of its blocks and of the two output layers: of a graph layer the two of each joint
    and the sum over joints, of the attention phi, g, the sum over pools and the way back. Left out
    are the projection of the noisy pose, and theta, of which a product with one vector is left.

    Args:
      num_frames: F.
      num_joints: J.
      width: C.
      num_blocks: Residual blocks.
      num_pools: Pooled positions of the attention; 0 without it.

    >>> diffhpe_flops(27, 17, 64) // 10**6
    541
    """
    tokens = num_frames * num_joints
    mapped = 2 * 2 * tokens * width * (num_frames + width)
    gathered = 2 * 2 * num_joints * tokens * width
    half = width // 2
    attention = 3 * 2 * tokens * width * half + 2 * num_pools * tokens * half if num_pools else 0
    gates = 2 * 2 * tokens * width * 2 * width
    return num_blocks * (mapped + gathered + attention + gates) + 2 * tokens * width * (width + 3)


def score_mlp_flops(num_joints: int, width: int, *, num_blocks: int = 2) -> int:
    """FLOPs of one evaluation of `ScoreMLP` on one pose.

    The time path is left out: all poses of an iteration share it.

    Args:
      num_joints: J.
      width: H.
      num_blocks: Residual blocks of two layers each.

    >>> score_mlp_flops(17, 1024)
    8597504
    """
    return 2 * (2 * 3 * num_joints * width + 2 * num_blocks * width * width)


def _seconds(function: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start
