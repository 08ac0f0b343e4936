"""Modulated-GCN as a system: loss against NumPy, one answer per item, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.calibration import default_camera
from posediff_jax.denoisers.grouped import GROUPS_16
from posediff_jax.geometry import flip
from posediff_jax.skeleton import H36M_16, H36M_17
from posediff_jax.systems import modgcn
from posediff_jax.types import PoseBatch
from tests.denoisers.numpy_reference import random_variables


def make_config(skeleton="h36m_16", **sections):
    model = {"width": 8, "num_blocks": 1}
    config = {"skeleton": skeleton, "model": model, "loss": {}, "sampler": {}}
    for name, fields in sections.items():
        config[name] = {**config[name], **fields}
    return ConfigDict(config)


def make_batch(size=8, frames=2, joints=16, seed=0):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(-1, 1, (size, frames, joints, 2)).astype(np.float32)
    camera = default_camera((1000, 1000))
    return PoseBatch(
        keypoints=keypoints,
        keypoints_px=keypoints * 500 + 500,
        confidence=np.ones((size, frames, joints), np.float32),
        mask=np.ones((size, frames), np.float32),
        index=np.arange(size, dtype=np.int32),
        subject=np.zeros(size, np.int32),
        action=np.zeros(size, np.int32),
        camera=jax.tree.map(lambda x: np.broadcast_to(x, (size, *np.shape(x))), camera),
        pose=rng.normal(0, 0.3, (size, frames, joints, 3)).astype(np.float32),
    )


@functools.cache
def system(**sampler):
    return modgcn.from_config(make_config(sampler=sampler))


@functools.cache
def variables(joints=16):
    skeleton = {16: H36M_16, 17: H36M_17}[joints]
    model = modgcn.make_network({"width": 8, "num_blocks": 1}, skeleton)
    return jax.tree.map(np.float32, random_variables(model, np.zeros((1, joints, 2))))


def sample(batch, key=0, num_hypotheses=1, options=(), **more):
    run = functools.partial(system(**dict(options)).sample, num_hypotheses=num_hypotheses, **more)
    return jax.jit(run)(jax.random.key(key), variables(), batch)


class TestLoss:
    @pytest.mark.parametrize(
        "factors", [{}, {"mse": 0.0, "l1": 0.01, "mpjpe": 0.99}], ids=["gt", "benchmark"]
    )
    def test_against_numpy(self, factors):
        batch = make_batch()
        mask = batch.mask.copy()
        mask[5:], mask[1, 1] = 0, 0
        config = make_config(loss=factors)
        loss, aux = jax.jit(functools.partial(modgcn.from_config(config).loss, train=False))(
            jax.random.key(0), variables(), batch.replace(mask=mask)
        )
        model = modgcn.make_network(config.model, H36M_16)
        error = np.asarray(model.apply(variables(), batch.keypoints) - batch.pose, np.float64)
        error = error[mask > 0]
        mpjpe = np.sqrt((error**2).sum(-1)).mean()
        weights = {"mse": 0.9, "l1": 0.1, "mpjpe": 0.0} | factors
        expected = (
            weights["mse"] * (error**2).mean()
            + weights["l1"] * np.abs(error).mean()
            + weights["mpjpe"] * mpjpe
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(aux.metrics["mpjpe"], mpjpe, rtol=1e-5)

    def test_eight_devices_and_one_agree(self):
        """Mean of the devices' losses and gradients, their counts differing, is the global one."""
        batch = make_batch()
        mask = batch.mask * (np.arange(8) % 3 > 0)[:, None]
        mask[1, 1] = 0
        batch = batch.replace(mask=mask)
        key = jax.random.key(0)

        def step(params, batch, axis_name=None):
            def value(params):
                return system().loss(
                    key, variables() | {"params": params}, batch, train=True, axis_name=axis_name
                )

            (loss, aux), gradient = jax.value_and_grad(value, has_aux=True)(params)
            return loss, gradient, aux.mutable

        one = jax.jit(step)(variables()["params"], batch)
        split = jax.tree.map(lambda x: x[:, None], batch)
        mean = jax.pmap(
            lambda p, b: jax.lax.pmean(step(p, b, "device"), "device"),
            axis_name="device",
            in_axes=(None, 0),
            out_axes=None,
        )(variables()["params"], split)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(mean), strict=True):
            np.testing.assert_allclose(b, a, atol=2e-5)

    def test_dropout_depends_on_the_key_in_training_only(self):
        config = make_config(model={"dropout": 0.5})
        loss = jax.jit(modgcn.from_config(config).loss, static_argnames="train")

        def value(key, train):
            return float(loss(jax.random.key(key), variables(), make_batch(), train=train)[0])

        assert value(0, True) == value(0, True) != value(1, True)
        assert value(0, False) == value(1, False)

    def test_needs_poses(self):
        batch = make_batch().replace(pose=None)
        with pytest.raises(ValueError, match=r"batch\.pose: expected root-relative poses"):
            system().loss(jax.random.key(0), variables(), batch, train=True)


class TestSample:
    def test_shape_and_root(self):
        result = sample(make_batch(3), return_trajectory=True)
        assert result.samples.shape == (3, 1, 2, 16, 3)
        np.testing.assert_allclose(result.samples[..., 0, :], 0, atol=1e-6)
        assert result.trajectory.shape == (3, 1, 1, 2, 16, 3)
        np.testing.assert_array_equal(result.trajectory[:, -1], result.samples)

    def test_the_key_plays_no_part(self):
        np.testing.assert_array_equal(
            sample(make_batch(), key=0).samples, sample(make_batch(), key=1).samples
        )

    def test_centring_is_an_option(self):
        raw = sample(make_batch(), options=(("center", False),)).samples
        assert np.abs(raw[..., 0, :]).max() > 0.01
        np.testing.assert_allclose(raw - raw[..., :1, :], sample(make_batch()).samples, atol=1e-6)

    def test_flip_averaging_makes_the_answer_mirror_with_the_input(self):
        batch = make_batch()
        mirrored = batch.replace(keypoints=np.asarray(flip(batch.keypoints, H36M_16)))
        plain, averaged = (), (("flip", True),)
        for options, agrees in ((plain, False), (averaged, True)):
            there = sample(batch, options=options).samples
            back = flip(sample(mirrored, options=options).samples, H36M_16)
            assert np.allclose(there, back, atol=1e-5) == agrees

    @pytest.mark.parametrize("number", [0, 2, 10])
    def test_refuses_several_hypotheses(self, number):
        with pytest.raises(ValueError, match=f"num_hypotheses: expected 1.*got {number}"):
            sample(make_batch(), num_hypotheses=number)

    def test_wrong_joint_count(self):
        with pytest.raises(ValueError, match=r"batch\.keypoints: expected \(..., 16, 2\)"):
            sample(make_batch(joints=17))


class TestConfig:
    def test_variant_gives_the_fields_that_are_not_named(self):
        model = modgcn.make_network({"variant": "benchmark", "width": 32}, H36M_17)
        assert (model.width, model.non_local, model.dropout) == (32, True, 0.2)
        assert model.modulation_init == "xavier"
        grouped = modgcn.make_network(ConfigDict({"variant": "grouped"}), H36M_16)
        assert (grouped.groups, grouped.modulation_init) == (GROUPS_16, "ones")
        assert modgcn.make_network({"groups": ((0, 1),) * 8}, H36M_16).groups == ((0, 1),) * 8

    def test_init_draws_the_variables_of_the_network(self):
        fresh = jax.eval_shape(system().init, jax.random.key(0))
        assert jax.tree.map(np.shape, fresh) == jax.tree.map(np.shape, variables())

    @pytest.mark.parametrize(
        ("sections", "match"),
        [
            ({"model": {"variant": "best"}}, r"model\.variant: expected one of .*'best'"),
            ({"model": {"depth": 4}}, r"model\.depth: unknown field"),
            ({"model": {"dtype": "int8"}}, r"model\.dtype: expected one of .*'int8'"),
            ({"model": {"modulation_init": "zeros"}}, r"model\.modulation_init.*'zeros'"),
            ({"loss": {"mse": -1.0}}, "loss.mse: expected a finite factor of at least 0"),
            ({"loss": {"mse": 0.0, "l1": 0.0}}, "loss: expected factors that are not all 0"),
            ({"sampler": {"steps": 3}}, r"sampler\.steps: unknown field"),
        ],
    )
    def test_errors(self, sections, match):
        with pytest.raises(ValueError, match=match):
            modgcn.from_config(make_config(**sections))

    def test_has_no_frozen_part(self):
        with pytest.raises(ValueError, match="frozen: expected None"):
            modgcn.from_config(make_config(), frozen={"params": jnp.zeros(1)})
