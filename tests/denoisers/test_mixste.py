"""MixSTE and D3DP's denoiser: published sizes, the split for samplers, invariances, errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.layers import Dense
from posediff_jax.denoisers.mixste import D3DPDenoiser, MixSTE, SplitDense, sinusoid_table
from posediff_jax.skeleton import H36M_16, H36M_17
from tests.denoisers.numpy_reference import random_variables

TINY = {"num_frames": 5, "width": 16, "depth": 2, "num_heads": 2}


def example(lead=(3,), frames=5, seed=0):
    rng = np.random.default_rng(seed)
    window = (*lead, frames, 17)
    t = rng.integers(0, 1000, size=lead)
    return rng.normal(size=(*window, 2)), rng.normal(size=(*window, 3)), t


@functools.cache
def tiny(cls, **options):
    model = cls(H36M_17, **{**TINY, **options})
    inputs = example() if cls is D3DPDenoiser else example()[:1]
    return model, random_variables(model, *inputs)


def run(model, variables, *inputs, **options):
    with jax.enable_x64(True):
        apply = jax.jit(functools.partial(model.apply, **options))
        return np.asarray(apply(variables, *map(jnp.asarray, inputs)))


@pytest.mark.parametrize(
    ("cls", "tensors", "count"), [(MixSTE, 204, 33_783_811), (D3DPDenoiser, 208, 34_835_459)]
)
def test_published_size(cls, tensors, count):
    window = (1, 243, 17)
    inputs = [jnp.zeros((*window, 2)), jnp.zeros((*window, 3)), jnp.zeros(1, int)]
    inputs = inputs[: 1 if cls is MixSTE else 3]
    leaves = jax.tree.leaves(jax.eval_shape(cls(H36M_17).init, jax.random.key(0), *inputs))
    assert len(leaves) == tensors
    assert sum(math.prod(leaf.shape) for leaf in leaves) == count


def test_tables_start_at_zero():
    params = jax.jit(MixSTE(H36M_17, **TINY).init)(jax.random.key(0), example()[0])["params"]
    assert not params["joint_positions"].any()
    assert not params["trunk"]["frame_positions"].any()
    assert params["trunk"]["spatial_0"]["attention"]["qkv"]["bias"].any()


def test_a_split_layer_is_one_on_the_concatenation():
    x, y, _ = example()
    variables = random_variables(SplitDense(2, 3, 7), x, y)
    both = np.concatenate([x, y], axis=-1)
    expected = run(Dense(7), variables, both)
    np.testing.assert_allclose(run(SplitDense(2, 3, 7), variables, x, y), expected, atol=1e-12)


def test_encode_and_denoise_are_the_call():
    model, variables = tiny(D3DPDenoiser)
    keypoints, x_t, t = example()
    encoded = run(model, variables, keypoints, method="encode")
    rows = run(model, variables, t, method="embed_times")
    np.testing.assert_allclose(
        run(model, variables, encoded, x_t, rows, method="denoise"),
        run(model, variables, keypoints, x_t, t),
        atol=1e-12,
    )


def test_hypotheses_share_keypoints():
    model, variables = tiny(D3DPDenoiser)
    keypoints, _, t = example()
    x_t = example((3, 2), seed=1)[1]
    together = run(model, variables, keypoints[:, None], x_t, t[:, None])
    apart = [run(model, variables, keypoints, x_t[:, h], t) for h in range(2)]
    np.testing.assert_allclose(together, np.stack(apart, axis=1), atol=1e-12)


def test_windows_do_not_see_each_other():
    model, variables = tiny(D3DPDenoiser)
    inputs = example()
    whole = run(model, variables, *inputs)
    alone = run(model, variables, *(x[1] for x in inputs))
    np.testing.assert_allclose(whole[1], alone, atol=1e-12)


def test_all_frames_and_inputs_matter():
    model, variables = tiny(D3DPDenoiser)
    keypoints, x_t, t = example()
    y = run(model, variables, keypoints, x_t, t)
    late = keypoints.copy()
    late[:, -1] += 0.5
    for changed in ((late, x_t, t), (keypoints, x_t + 0.1, t), (keypoints, x_t, (t + 50) % 1000)):
        assert np.abs(run(model, variables, *changed) - y).max(axis=(2, 3)).min() > 1e-6


def test_stochastic_depth_is_for_training_only():
    model, variables = tiny(MixSTE, drop_path=0.5)
    keypoints = example()[0]
    plain = run(model, variables, keypoints)
    np.testing.assert_array_equal(plain, run(*tiny(MixSTE), keypoints))
    dropped = run(model, variables, keypoints, train=True, rngs={"drop_path": jax.random.key(0)})
    assert np.abs(dropped - plain).max() > 1e-3


def test_half_precision_is_near_float32_and_keeps_float32_parameters():
    model, variables = tiny(D3DPDenoiser)
    low = model.clone(dtype=jnp.bfloat16)
    inputs = [jnp.asarray(x, jnp.float32) for x in example()[:2]]
    inputs.append(jnp.asarray(example()[2]))
    fresh = jax.eval_shape(low.init, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    variables = jax.tree.map(np.float32, variables)
    y, exact = (jax.jit(m.apply)(variables, *inputs) for m in (low, model))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=0.1 * np.abs(exact).max())


def test_sinusoids():
    table = sinusoid_table(1000, 8)
    t, i = 999, 2
    frequency = 10000.0 ** (-i / 3)
    assert table.dtype == np.float64
    np.testing.assert_allclose(table[t, i], math.sin(t * frequency), atol=1e-12)
    np.testing.assert_allclose(table[t, 4 + i], math.cos(t * frequency), atol=1e-12)


class TestErrors:
    def check(self, match, *inputs, cls=D3DPDenoiser, **options):
        model = cls(options.pop("skeleton", H36M_17), **{**TINY, **options})
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(model.init, jax.random.key(0), *inputs)

    def test_another_number_of_frames(self):
        match = r"keypoints: expected windows of 5 frames.*\(3, 4, 17, 2\); cut or pad the clip"
        self.check(match, *example(frames=4))
        self.check(match, example(frames=4)[0], cls=MixSTE)

    def test_a_single_frame_without_a_window(self):
        self.check("expected windows of 5 frames", np.zeros((17, 2)), cls=MixSTE)

    def test_noisy_pose(self):
        keypoints, x_t, t = example()
        self.check("x_t: expected windows of 5 frames", keypoints, x_t[:, :4], t)

    def test_skeleton(self):
        self.check("for skeleton 'h36m_16'", *example(), skeleton=H36M_16)

    def test_timesteps_per_frame(self):
        keypoints, x_t, _ = example()
        self.check(
            "t: expected a scalar or one timestep per", keypoints, x_t, np.zeros((3, 5), int)
        )

    @pytest.mark.parametrize("width", [2, 7])
    def test_sinusoid_width(self, width):
        with pytest.raises(ValueError, match=f"width: expected an even number.*got {width}"):
            sinusoid_table(10, width)
