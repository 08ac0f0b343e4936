"""DDHPose's denoiser: published size, the parts that can be switched off, invariances, errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.process.bones import Bones
from posediff_jax.skeleton import COCO_17, H36M_16, H36M_17
from tests.denoisers.numpy_reference import random_variables

TINY = {"num_frames": 5, "width": 16, "depth": 2, "num_heads": 2}


def example(lead=(2,), frames=5, seed=0):
    rng = np.random.default_rng(seed)
    window = (*lead, frames, 17)
    slots = Bones(rng.normal(size=(*window, 3)), rng.normal(size=(*window, 1)))
    return rng.normal(size=(*window, 2)), slots, rng.integers(0, 1000, size=lead)


@functools.cache
def tiny(**options):
    model = DDHPoseDenoiser(H36M_17, **{**TINY, **options})
    keypoints, noisy, t = example(frames=model.num_frames)
    if not model.disentangled_input:
        noisy = noisy.directions
    return model, random_variables(model, keypoints, noisy, t)


def run(model, variables, *inputs, **options):
    with jax.enable_x64(True):
        inputs = jax.tree.map(jnp.asarray, inputs)
        return jax.tree.map(np.asarray, compiled(model, **options)(variables, *inputs))


@functools.cache
def compiled(model, **options):
    return jax.jit(functools.partial(model.apply, **options))


def test_published_size():
    model = DDHPoseDenoiser(H36M_17)
    inputs = jax.tree.map(np.float32, example((1,), 243)[:2])
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs, jnp.zeros(1, int))
    leaves = jax.tree.leaves(shapes)
    dead = 7 * (512 * 512 + 512)
    assert len(leaves) == 237 - 14
    assert sum(math.prod(leaf.shape) for leaf in leaves) == 38_516_227 - dead


def test_encode_and_denoise_are_the_call():
    model, variables = tiny()
    keypoints, slots, t = example()
    encoded = run(model, variables, keypoints, method="encode")
    rows = run(model, variables, t, method="embed_times")
    np.testing.assert_allclose(
        run(model, variables, encoded, slots, rows, method="denoise"),
        run(model, variables, keypoints, slots, t),
        atol=1e-12,
    )


def test_hypotheses_share_keypoints_and_windows_do_not_mix():
    model, variables = tiny()
    keypoints, _, t = example()
    slots = example((2, 2), seed=1)[1]
    together = run(model, variables, keypoints[:, None], slots, t[:, None])
    for h in range(2):
        one = jax.tree.map(lambda x, h=h: x[1, h], slots)
        alone = run(model, variables, keypoints[1], one, t[1])
        np.testing.assert_allclose(together[1, h], alone, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"hrst": False}, {"walk": "once"}, {"child_layout": "joint"}],
    ids=lambda o: next(iter(o)),
)
def test_parts_without_weights_change_the_output(options):
    model, variables = tiny()
    other = model.clone(**options)
    change = run(other, variables, *example()) - run(model, variables, *example())
    assert np.abs(change).max() > 1e-4


def test_parts_with_weights_can_be_left_out():
    _, whole = tiny()
    model, variables = tiny(hrtt=False, levels=False)
    assert "level_embedding" in whole["params"]
    assert "level_embedding" not in variables["params"]
    assert "child" in whole["params"]["trunk"]["temporal_1"]["attention"]
    assert "child" not in variables["params"]["trunk"]["temporal_1"]["attention"]
    assert np.isfinite(run(model, variables, *example())).all()


def test_regressed_bones_make_the_pose():
    """C = C_p + l d, for lengths and directions as they were regressed."""
    model, variables = tiny(disentangled_output=True)
    assert variables["params"]["trunk"]["head"]["kernel"].shape == (16, 4)
    bones = run(model, variables, *example(), method="regress")
    assert bones.directions.shape == (2, 5, 16, 3)
    pose = run(model, variables, *example())
    np.testing.assert_array_equal(pose[..., 0, :], 0)
    for number, (child, parent) in enumerate(H36M_17.bones):
        expected = bones.directions[..., number, :] * bones.lengths[..., number, :]
        np.testing.assert_allclose(pose[..., child, :] - pose[..., parent, :], expected, atol=1e-12)


def test_a_network_of_poses_regresses_them():
    model, variables = tiny()
    regressed = run(model, variables, *example(), method="regress")
    np.testing.assert_array_equal(run(model, variables, *example()), regressed)


def test_a_noisy_pose_in_place_of_bones():
    model, variables = tiny(disentangled_input=False)
    assert variables["params"]["embed"]["kernel"].shape == (5, 16)
    keypoints, slots, t = example()
    assert run(model, variables, keypoints, slots.directions, t).shape == (2, 5, 17, 3)
    with pytest.raises(TypeError, match=r"noisy: expected an array .*got Bones"):
        run(model, variables, keypoints, slots, t)
    with pytest.raises(TypeError, match="noisy: expected Bones, got"):
        run(*tiny(), keypoints, slots.directions, t)


def test_a_window_of_as_many_frames_as_joints():
    model = DDHPoseDenoiser(H36M_17, **{**TINY, "num_frames": 17})
    with pytest.raises(ValueError, match="num_frames: with 17 frames"):
        jax.eval_shape(model.init, jax.random.key(0), *example(frames=17))
    jax.eval_shape(model.clone(child_layout="joint").init, jax.random.key(0), *example(frames=17))


class TestErrors:
    def check(self, match, *inputs, skeleton=H36M_17):
        model = DDHPoseDenoiser(skeleton, **TINY)
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(model.init, jax.random.key(0), *inputs)

    def test_frames(self):
        self.check("keypoints: expected windows of 5 frames", *example(frames=4))

    def test_slots(self):
        keypoints, slots, t = example()
        bones = Bones(slots.directions[..., :16, :], slots.lengths[..., :16, :])
        self.check(r"directions: expected \(..., 17, 3\)", keypoints, bones, t)
        self.check(r"lengths: expected \(..., 17, 1\)", keypoints, Bones(slots[0], slots[0]), t)

    def test_skeleton(self):
        self.check("for skeleton 'h36m_16'", *example(), skeleton=H36M_16)

    def test_timesteps(self):
        keypoints, slots, _ = example()
        self.check("t: expected a scalar or one timestep", keypoints, slots, np.zeros((2, 5), int))


def test_other_trees_of_17_joints_are_other_networks():
    """Nothing but the skeleton tells COCO from Human3.6M."""
    coco = DDHPoseDenoiser(COCO_17, **TINY, levels=False)
    model, variables = tiny(levels=False)
    assert np.abs(run(coco, variables, *example()) - run(model, variables, *example())).max() > 1e-4
