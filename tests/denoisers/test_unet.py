"""The U-Net baseline: size, shapes, what its output may and may not depend on, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.denoisers.unet import PoseUNet
from posediff_jax.skeleton import H36M_16, H36M_17, HUMANEVA_15
from tests.denoisers.numpy_reference import random_variables
from tests.denoisers.test_diffupose import BY_JOINTS, example, run


@functools.cache
def tiny():
    model = PoseUNet(H36M_17, width=8, multipliers=(1, 2))
    return model, random_variables(model, *example())


def test_default_size_is_near_the_papers():
    shapes = jax.eval_shape(PoseUNet(H36M_17).init, jax.random.key(0), *example())
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert abs(count / 2.99e6 - 1) < 0.05


@pytest.mark.parametrize("skeleton", [H36M_17, H36M_16, HUMANEVA_15], ids=lambda s: s.name)
def test_called_like_the_graph_network(skeleton):
    """Same arguments, same output shape, for joint counts that do and do not halve evenly."""
    inputs = example(skeleton.num_joints, lead=(2, 3))
    options = {"train": True, "mask": np.ones((2, 3)), "axis_name": None}
    for model in (PoseUNet(skeleton, width=8), DiffuPoseGCN(skeleton, width=32, num_blocks=1)):
        init = functools.partial(model.init_with_output, **options)
        y, _ = jax.eval_shape(init, jax.random.key(0), *inputs)
        assert y.shape == (2, 3, skeleton.num_joints, 5)


def test_items_do_not_see_each_other():
    model, variables = tiny()
    cond, x_t, t = example(lead=(2, 3))
    y = run(model, variables, cond, x_t, t)
    one = run(model, variables, cond[1, 2], x_t[1, 2], t[1, 2])
    np.testing.assert_allclose(y[1, 2], one, atol=1e-12)


def test_every_joint_sees_every_input():
    """Also the far end of the joint axis, through the lowest level; and time reaches all joints."""
    model, variables = tiny()
    cond, x_t, t = example(lead=(1,))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(cond, x_t):
        return model.apply(variables, cond, x_t, jnp.asarray(t))[0, 0].sum()

    with jax.enable_x64(True):
        of_cond, of_pose = gradient(jnp.asarray(cond), jnp.asarray(x_t))
    assert np.abs(of_cond).min() > 0
    assert np.abs(of_pose).min() > 0
    later = run(model, variables, cond, x_t, (t + 50) % 100) - run(model, variables, cond, x_t, t)
    assert np.abs(later).max(axis=-1).min() > 1e-4


def test_compute_type():
    model, _ = tiny()
    low = model.clone(dtype=jnp.bfloat16)
    inputs = [jnp.asarray(x, jnp.float32) for x in example()]
    y, variables = jax.eval_shape(low.init_with_output, jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("width", "joints", "t", "match"),
    [
        (12, 17, 0, "width: expected a multiple of 8, got 12"),
        (8, 16, 0, r"cond: expected \(..., 16, 2\)"),
        (8, 17, [1, 2], r"t: expected a scalar or shape \(3,\).*got \(2,\)"),
    ],
)
def test_errors(width, joints, t, match):
    cond, x_t, _ = example()
    with pytest.raises(ValueError, match=match):
        PoseUNet(BY_JOINTS[joints], width=width).init(jax.random.key(0), cond, x_t, np.array(t))
