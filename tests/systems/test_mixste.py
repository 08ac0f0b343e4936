"""MixSTE as a system: its loss against NumPy, one answer per window, errors."""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.geometry import flip
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system, mixste
from tests.systems.test_diffupose import make_batch, rows

FRAMES = 5
WEIGHTS = np.array([1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4])


def make_config(**sections):
    config = {
        "system": "mixste",
        "skeleton": "h36m_17",
        "model": {"num_frames": FRAMES, "width": 16, "depth": 1, "num_heads": 2},
        "loss": {},
        "sampler": {},
    }
    for section, fields in sections.items():
        config[section] = {**config[section], **fields} if isinstance(fields, dict) else fields
    return ConfigDict(config)


@functools.cache
def variables():
    fresh = jax.jit(make_system(make_config()).init)(jax.random.key(0))
    return jax.tree.map(lambda a: a + 0.01, fresh)


@functools.cache
def sampler(options=(), **more):
    system = make_system(make_config(sampler=dict(options)))
    run = functools.partial(system.sample, num_hypotheses=1, **more)
    return jax.jit(lambda v, b: run(jax.random.key(0), v, b))


def sample(batch, **options):
    return np.asarray(sampler(tuple(options.items()))(variables(), batch).samples)


@functools.cache
def gradient():
    system = make_system(make_config())

    def loss(variables, batch):
        loss, aux = system.loss(jax.random.key(1), variables, batch, train=True)
        return loss, aux.metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


class TestLoss:
    def test_terms_against_numpy(self):
        rng = np.random.default_rng(0)
        output, pose = rng.normal(size=(2, 3, FRAMES, 17, 3)).astype(np.float32)
        terms = mixste.loss_terms(output, pose, mixste.joint_weights("mixste", H36M_17))
        distance = np.linalg.norm(output - pose, axis=-1)
        np.testing.assert_allclose(terms["position"], (WEIGHTS * distance).mean(-1), rtol=1e-5)
        steps = np.diff(output, axis=1)
        expected = (WEIGHTS[:, None] * steps**2).mean((-2, -1))
        np.testing.assert_allclose(terms["smoothness"], expected, rtol=1e-5)
        error = np.linalg.norm(steps - np.diff(pose, axis=1), axis=-1).mean(-1)
        np.testing.assert_allclose(terms["velocity"], error, rtol=1e-5)

    def test_the_plain_loss_that_diffhpe_trains_it_on(self):
        rng = np.random.default_rng(0)
        output, pose = rng.normal(size=(2, 3, FRAMES, 17, 3)).astype(np.float32)
        weights = mixste.joint_weights("uniform", H36M_17)
        terms = mixste.loss_terms(output, pose, weights, position="squared")
        expected = ((output - pose) ** 2).mean((-2, -1))
        np.testing.assert_allclose(terms["position"], expected, rtol=1e-5)

    def test_a_velocity_counts_where_both_frames_do(self):
        batch = make_batch(3, frames=FRAMES)
        mask = batch.mask.copy()
        mask[1, 3:] = 0
        mask[2] = 0
        pose = np.where(mask[..., None, None] > 0, batch.pose, np.nan)
        (loss, metrics), slopes = gradient()(variables(), batch.replace(mask=mask, pose=pose))
        keypoints = np.where(mask[..., None, None] > 0, batch.keypoints, 0)
        output = mixste.MixSTE(H36M_17, FRAMES, 16, 1, 2).apply(variables(), keypoints)
        weights = mixste.joint_weights("mixste", H36M_17)
        terms = mixste.loss_terms(output, np.nan_to_num(pose), weights)
        for name in ("smoothness", "velocity"):
            counted = [terms[name][0], terms[name][1, :2]]
            np.testing.assert_allclose(metrics[name], np.concatenate(counted).mean(), rtol=1e-4)
        total = metrics["position"] + 0.5 * metrics["smoothness"] + 2 * metrics["velocity"]
        np.testing.assert_allclose(loss, total, rtol=1e-6)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))

    def test_gradients_reach_all_weights(self):
        _, slopes = gradient()(variables(), make_batch(3, frames=FRAMES))
        for path, leaf in jax.tree_util.tree_leaves_with_path(slopes):
            assert np.isfinite(leaf).all(), path
            assert np.any(leaf), path

    def test_terms_can_be_switched_off(self):
        terms = {"position": 1.0, "smoothness": 10.0, "velocity": 100.0}
        assert mixste.total_loss(terms, mixste.LossOptions()) == 206
        options = mixste.LossOptions(smoothness_weight=0.0, velocity_weight=0.0)
        assert mixste.total_loss(terms, options) == 1


class TestSampling:
    def test_one_answer_with_its_root_at_the_origin(self):
        batch = make_batch(2, frames=FRAMES)
        samples = sample(batch)
        assert samples.shape == (2, 1, FRAMES, 17, 3)
        np.testing.assert_array_equal(samples[..., 0, :], 0)
        assert np.abs(samples[..., 1:, :]).min() > 0
        np.testing.assert_allclose(sample(rows(batch, [1])), samples[1:], atol=1e-5)

    def test_the_root_may_stay_where_the_network_has_it(self):
        batch = make_batch(2, frames=FRAMES)
        free = sample(batch, zero_root=False)
        assert np.abs(free[..., 0, :]).min() > 0
        np.testing.assert_array_equal(free[..., 1:, :], sample(batch)[..., 1:, :])

    def test_mirrored_keypoints_give_the_mirrored_pose(self):
        batch = make_batch(2, frames=FRAMES)
        mirrored = batch.replace(keypoints=np.asarray(flip(batch.keypoints, H36M_17)))
        np.testing.assert_allclose(flip(sample(mirrored), H36M_17), sample(batch), atol=1e-5)
        gap = sample(mirrored, flip=False) - np.asarray(flip(sample(batch, flip=False), H36M_17))
        assert np.abs(gap).max() > 1e-3

    def test_its_trajectory_is_its_answer(self):
        batch = make_batch(1, frames=FRAMES)
        result = sampler(return_trajectory=True)(variables(), batch)
        np.testing.assert_array_equal(result.trajectory[:, 0], result.samples)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"loss": {"joint_weights": "diffupose"}}, "loss.joint_weights: expected 'mixste' or"),
        ({"skeleton": "mpi_inf_3dhp_17"}, "'mixste' is defined for .*got skeleton 'mpi_inf_3dhp"),
        ({"loss": {"position": "cubed"}}, "loss.position: expected 'distance' or 'squared', got"),
        ({"loss": {"gradient": "squared"}}, "loss.gradient: expected 'plain' or 'loss_times'"),
        ({"sampler": {"num_steps": 5}}, "sampler.num_steps: unknown field"),
    ],
)
def test_configs_that_are_refused(sections, message):
    with pytest.raises(ValueError, match=message):
        make_system(make_config(**sections))


def test_more_than_one_hypothesis():
    system = make_system(make_config())
    with pytest.raises(ValueError, match="num_hypotheses: expected 1, MixSTE is deterministic"):
        system.sample(
            jax.random.key(0), variables(), make_batch(1, frames=FRAMES), num_hypotheses=2
        )


def test_keypoints_of_another_skeleton():
    batch = make_batch(1, frames=FRAMES)
    with pytest.raises(ValueError, match=r"batch\.keypoints: expected \(\.\.\., 17, 2\)"):
        sampler()(variables(), batch.replace(keypoints=batch.keypoints[:, :, :16]))
