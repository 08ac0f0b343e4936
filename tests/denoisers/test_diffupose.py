"""DiffuPose's denoiser against NumPy, its published size, gradients, options and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.diffupose import DiffuPoseGCN, TimeMLP, TimeStepBlock
from posediff_jax.skeleton import H36M_16, H36M_17, HUMANEVA_15
from tests.denoisers import numpy_reference as reference

BY_JOINTS = {17: H36M_17, 16: H36M_16, 15: HUMANEVA_15}


def example(joints=17, lead=(3,), seed=0):
    rng = np.random.default_rng(seed)
    cond, x_t = rng.normal(size=(*lead, joints, 2)), rng.normal(size=(*lead, joints, 3))
    return cond, x_t, rng.integers(0, 100, size=lead)


@functools.cache
def tiny(joints=17, **options):
    """A small network with random float64 variables."""
    model = DiffuPoseGCN(BY_JOINTS[joints], width=32, num_blocks=1, **options)
    return model, reference.random_variables(model, *example(joints))


def run(model, variables, *inputs, **options):
    with jax.enable_x64(True):
        inputs = map(jnp.asarray, inputs)
        return jax.tree.map(np.asarray, compiled(model, **options)(variables, *inputs))


@functools.cache
def compiled(model, **options):
    return jax.jit(functools.partial(model.apply, **options))


@pytest.mark.parametrize("joints", [17, 16, 15])
def test_against_numpy(joints):
    model, variables = tiny(joints)
    inputs = example(joints)
    expected = reference.diffupose(variables, model.skeleton.parents, 32, *inputs)
    np.testing.assert_allclose(run(model, variables, *inputs), expected, atol=1e-11)


def test_training_mode_against_numpy():
    model, variables = tiny()
    inputs = example()
    y, state = run(model, variables, *inputs, train=True, mutable=("batch_stats",))
    expected = reference.diffupose(variables, H36M_17.parents, 32, *inputs, train=True)
    np.testing.assert_allclose(y, expected, atol=1e-11)
    moved = jax.tree.map(
        lambda a, b: np.any(a != b), state["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


def test_the_attention_block_is_an_option():
    model, variables = tiny(non_local=False)
    assert "attention" not in variables["params"]
    expected = reference.diffupose(variables, H36M_17.parents, 32, *example())
    np.testing.assert_allclose(run(model, variables, *example()), expected, atol=1e-11)


def test_gradients_agree_with_finite_differences():
    """In training mode: the released code's own are wrong there on a CPU (see tests.parity)."""
    model, variables = tiny()
    cond, x_t, t = (jnp.asarray(x) for x in example())
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda a: rng.normal(size=a.shape), variables["params"])

    def value(params):
        y, _ = model.apply(
            {**variables, "params": params}, cond, x_t, t, train=True, mutable=["batch_stats"]
        )
        return jnp.mean(jnp.sin(y))

    with jax.enable_x64(True):
        value = jax.jit(value)
        gradient = jax.jit(jax.grad(value))(variables["params"])
        slope = sum(
            float(jnp.vdot(g, d))
            for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
        )
        step = 1e-6

        def moved(s):
            return float(
                value(jax.tree.map(lambda p, d: p + s * d, variables["params"], direction))
            )

        difference = (moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose(difference, slope, rtol=1e-5)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize(
    ("width", "joints", "published"),
    [
        *((64, 17, 103_812), (64, 16, 102_901), (64, 15, 102_010)),
        *((128, 17, 379_236), (256, 16, 1_451_221), (256, 15, 1_448_602)),
        *((384, 17, 3_226_852), (384, 16, 3_223_061), (384, 15, 3_219_290)),
    ],
)
def test_parameter_counts(width, joints, published):
    """The released code also counts a third time block, Linear(C/2 -> 2C), that it never calls."""
    model = DiffuPoseGCN(BY_JOINTS[joints], width=width)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *example(joints))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))
    assert count + width * (width + 2) == published


def test_leading_axes_are_free():
    model, variables = tiny()
    cond, x_t, t = example(lead=(2, 3))
    y = run(model, variables, cond, x_t, t)
    assert y.shape == (2, 3, 17, 5)
    one = run(model, variables, cond[1, 2], x_t[1, 2], t[1, 2])
    np.testing.assert_allclose(y[1, 2], one, atol=1e-12)


def test_a_scalar_timestep_serves_the_whole_batch():
    model, variables = tiny()
    cond, x_t, _ = example()
    np.testing.assert_allclose(
        run(model, variables, cond, x_t, np.array(42)),
        run(model, variables, cond, x_t, np.full(3, 42)),
        atol=1e-12,
    )


def test_output_depends_on_every_input():
    model, variables = tiny()
    cond, x_t, t = example()
    y = run(model, variables, cond, x_t, t)
    for changed in ((cond + 0.1, x_t, t), (cond, x_t + 0.1, t), (cond, x_t, (t + 50) % 100)):
        assert np.abs(run(model, variables, *changed) - y).max(axis=(1, 2)).min() > 1e-3


def test_vanilla_and_masked_variants_run():
    for options in ({"modulated": False}, {"mask": True}, {"adjacency": "symmetric"}):
        model, variables = tiny(**options)
        assert np.isfinite(run(model, variables, *example())).all()


def test_half_precision_is_near_float32_and_keeps_float32_parameters():
    model, variables = tiny()
    low = model.clone(dtype=jnp.bfloat16)
    inputs = [jnp.asarray(x, jnp.float32) for x in example()]
    fresh = jax.eval_shape(low.init, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    variables = jax.tree.map(np.float32, variables)
    y, exact = (compiled(m)(variables, *inputs) for m in (low, model))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=0.05 * np.abs(exact).max())


def test_time_block_is_the_silu_of_a_modulation():
    x, embedding = np.random.default_rng(0).normal(size=(2, 3, 4)), np.ones((2, 6))
    variables = reference.random_variables(TimeStepBlock(), x, embedding)
    expected = reference.time_block(variables["params"], x, embedding)
    np.testing.assert_allclose(run(TimeStepBlock(), variables, x, embedding), expected, atol=1e-12)


def test_time_mlp_has_half_the_width():
    shapes = jax.eval_shape(TimeMLP(64).init, jax.random.key(0), jnp.zeros(2))["params"]
    assert shapes["in"]["kernel"].shape == (8, 32)
    assert shapes["out"]["kernel"].shape == (32, 32)


class TestErrors:
    def check(self, match, *, joints=17, cond=None, x_t=None, t=None, **options):
        pairs = zip(example(), (cond, x_t, t), strict=True)
        inputs = [good if given is None else given for good, given in pairs]
        model = DiffuPoseGCN(BY_JOINTS[joints], **{"width": 32, "num_blocks": 1, **options})
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(model.init, jax.random.key(0), *inputs)

    def test_joint_count(self):
        self.check(r"cond: expected \(..., 16, 2\) for skeleton 'h36m_16'.*17, 2\)", joints=16)

    def test_last_axis(self):
        self.check(r"x_t: expected \(..., 17, 3\).*\(3, 17, 2\)", x_t=np.zeros((3, 17, 2)))

    def test_timesteps_must_match_the_batch(self):
        self.check(r"t: expected a scalar or shape \(3,\).*got \(4,\)", t=np.zeros(4, int))

    @pytest.mark.parametrize("width", [16, 40, 0])
    def test_width(self, width):
        self.check(f"width: expected a multiple of 16, at least 32, got {width}", width=width)
