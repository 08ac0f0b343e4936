"""Analytic FLOPs against the compiler's count; timing keeps compilation apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.evaluation.throughput import (
    MatmulPeak,
    diffupose_flops,
    time_call,
    window_flops,
)
from posediff_jax.process.bones import Bones
from posediff_jax.skeleton import H36M_16, H36M_17


@pytest.mark.parametrize(
    ("skeleton", "options"),
    [
        (H36M_17, {"width": 64}),
        (H36M_16, {"width": 96, "num_blocks": 2}),
        (H36M_17, {"width": 64, "non_local": False}),
    ],
    ids=str,
)
def test_flops_agree_with_the_compiler(skeleton, options):
    """Within 8 percent: the compiler also counts normalisation, activations and the softmax."""
    model = DiffuPoseGCN(skeleton, **options)
    batch, joints = 32, skeleton.num_joints
    inputs = (jnp.zeros((batch, joints, 2)), jnp.zeros((batch, joints, 3)), jnp.int32(0))
    variables = model.init(jax.random.key(0), *inputs)
    compiled = jax.jit(model.apply).lower(variables, *inputs).compile()
    counted = compiled.cost_analysis()["flops"] / batch
    ours = diffupose_flops(joints, **options)
    assert ours <= counted
    np.testing.assert_allclose(ours, counted, rtol=0.08)


@pytest.mark.parametrize("children", [False, True])
def test_flops_of_a_window_agree_with_the_compiler(children):
    """Within 12 percent: the compiler also counts normalisation, activations and the softmax."""
    size = {"num_frames": 27, "width": 128, "depth": 2}
    slots = Bones(jnp.zeros((1, 27, 17, 3)), jnp.zeros((1, 27, 17, 1)))
    inputs = (jnp.zeros((1, 27, 17, 2)), slots, jnp.zeros(1, jnp.int32))
    model = DDHPoseDenoiser(H36M_17, **size, hrst=False, hrtt=children)
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    counted = jax.jit(model.apply).lower(variables, *inputs).cost_analysis()["flops"]
    ours = window_flops(27, 17, 128, depth=2, children=children)
    assert ours <= counted
    np.testing.assert_allclose(ours, counted, rtol=0.12)


def test_compilation_is_not_in_the_timed_calls():
    calls = []

    def slow_first_time(x):
        calls.append(x)
        return x

    timing = time_call(slow_first_time, jnp.ones(3), repeats=4)
    assert len(calls) == 5
    assert timing.best_s <= timing.median_s
    assert timing.peak_flops == 0


def test_peak_is_measured_between_the_calls():
    peak = MatmulPeak([(8, 8, 8)])
    timing = time_call(jax.jit(jnp.sum), jnp.ones(3), repeats=2, peak=peak)
    assert timing.peak_flops == peak.flops > 0


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats: expected at least 1, got 0"):
        time_call(jnp.sum, jnp.ones(3), repeats=0)
