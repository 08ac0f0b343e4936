"""DiffuPose as a system: loss against NumPy, hypotheses that depend on nothing but their item."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.calibration import default_camera
from posediff_jax.geometry import flip
from posediff_jax.inference import make_sampler, sample_all
from posediff_jax.keys import frame_keys
from posediff_jax.skeleton import H36M_16, H36M_17, HUMANEVA_15, get_skeleton
from posediff_jax.systems import diffupose, make_system
from posediff_jax.systems.losses import masked_mean
from posediff_jax.types import PoseBatch


def make_config(**sections):
    config = {
        "system": "diffupose",
        "skeleton": "h36m_17",
        "model": {"width": 32, "num_blocks": 1},
        "process": {"num_timesteps": 8},
        "loss": {},
        "sampler": {"num_steps": 2},
    }
    for name, fields in sections.items():
        config[name] = {**config[name], **fields} if isinstance(fields, dict) else fields
    return ConfigDict(config)


def make_batch(size=6, *, frames=1, skeleton=H36M_17, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    joints = skeleton.num_joints
    keypoints = np.asarray(jax.random.uniform(keys[0], (size, frames, joints, 2), minval=-1))
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
        pose=np.asarray(jax.random.normal(keys[1], (size, frames, joints, 3)) * 0.3),
    )


def rows(batch, chosen):
    return jax.tree.map(lambda x: x[np.asarray(chosen)], batch)


def sample(system, key, variables, batch, **options):
    """Compiled as a whole: operation by operation takes seconds."""
    return jax.jit(partial(system.sample, **options))(key, variables, batch)


@pytest.fixture(scope="module")
def system():
    return make_system(make_config())


@pytest.fixture(scope="module")
def variables(system):
    return jax.jit(system.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def hypotheses(system, variables):
    """Five hypotheses for six items on all eight fake devices."""
    sampler = make_sampler(system, variables, num_hypotheses=5)
    return sampler(jax.random.key(1), make_batch()).samples


class TestSampling:
    def test_shape(self, hypotheses):
        assert hypotheses.shape == (6, 5, 1, 17, 3)
        assert np.isfinite(hypotheses).all()

    def test_one_device_and_eight_agree(self, system, variables, hypotheses):
        one = make_sampler(system, variables, num_hypotheses=5, devices=jax.devices()[:1])
        np.testing.assert_allclose(
            one(jax.random.key(1), make_batch()).samples, hypotheses, atol=1e-5
        )

    def test_fewer_hypotheses_are_the_first_ones(self, system, variables, hypotheses):
        few = make_sampler(system, variables, num_hypotheses=2)
        np.testing.assert_allclose(
            few(jax.random.key(1), make_batch()).samples, hypotheses[:, :2], atol=1e-5
        )

    def test_chunks_and_neighbours_change_nothing(self, variables, hypotheses):
        chunked = make_system(make_config(sampler={"max_chains": 3}))
        sampler = make_sampler(chunked, variables, num_hypotheses=5, devices=jax.devices()[:1])
        some = rows(make_batch(), [4, 1])
        np.testing.assert_allclose(
            sampler(jax.random.key(1), some).samples, hypotheses[[4, 1]], atol=1e-5
        )

    def test_hypotheses_differ_from_each_other(self, hypotheses):
        gaps = np.linalg.norm(hypotheses[:, 1:] - hypotheses[:, :1], axis=-1)
        assert gaps.mean(axis=(0, 2, 3)).min() > 0.01

    def test_frames_fold_into_items(self, system, variables):
        batch = make_batch(2, frames=3)
        samples = sample(system, jax.random.key(1), variables, batch, num_hypotheses=2).samples
        assert samples.shape == (2, 2, 3, 17, 3)
        # Frame 0 has the key of a single-frame item, so it is the same pose.
        first = jax.tree.map(lambda x: x[:, :1] if np.ndim(x) > 1 and x.shape[1] == 3 else x, batch)
        alone = sample(system, jax.random.key(1), variables, first, num_hypotheses=2).samples
        np.testing.assert_allclose(samples[:, :, :1], alone, atol=1e-5)

    def test_flip_is_the_mean_of_the_plain_and_the_mirrored_chain(self, variables):
        """With a network that knows no left or right both chains of a symmetric pose agree."""
        plain = make_system(make_config(sampler={"flip": False}))
        flipped = make_system(make_config())
        batch = make_batch(2)
        mirrored = batch.replace(keypoints=np.asarray(flip(batch.keypoints, H36M_17)))
        key = jax.random.key(3)
        both = sample(flipped, key, variables, batch, num_hypotheses=2).samples
        one = sample(plain, key, variables, batch, num_hypotheses=2).samples
        other = 2 * both - one  # what the second chain must have been, un-flipped
        # The mirrored keypoints drawn with the second chain's own key.
        item = jax.vmap(jax.random.fold_in, (None, 0))(key, batch.index)
        frame = jax.vmap(jax.random.fold_in, (0, None))(item, 0)
        chain = jax.vmap(lambda k: jax.random.split(k, 2))(frame)
        second = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))(chain, 1)
        expected = run_chains(plain, variables, second, mirrored)
        np.testing.assert_allclose(flip(other, H36M_17), expected, atol=1e-4)

    def test_trajectory_ends_at_the_samples(self, system, variables):
        batch = make_batch(2, frames=3)
        result = sample(
            system, jax.random.key(1), variables, batch, num_hypotheses=4, return_trajectory=True
        )
        assert result.trajectory.shape == (2, 2, 4, 3, 17, 3)  # (B, N, H, F, J, 3)
        np.testing.assert_array_equal(result.trajectory[:, -1], result.samples)

    def test_ddim_converges_to_the_run_with_all_steps(self, variables):
        """With output weights large enough that a fresh network says something."""
        loud = jax.tree_util.tree_map_with_path(
            lambda path, x: x * 30 if "gconv_output" in str(path) else x, variables
        )
        batch, key = make_batch(2), jax.random.key(1)

        def run(num_steps):
            options = {"process": {"num_timesteps": 100}, "sampler": {"num_steps": num_steps}}
            sample = make_system(make_config(**options)).sample
            return sample(key, loud, batch, num_hypotheses=2).samples

        full = run(100)
        distance = [float(jnp.linalg.norm(run(n) - full, axis=-1).mean()) for n in (5, 20, 50)]
        assert distance[0] > distance[1] > distance[2]
        assert distance[0] > 0.01
        assert distance[2] < distance[0] / 4

    def test_ddpm_runs_all_steps(self, variables):
        ddpm = make_system(make_config(sampler={"name": "ddpm"}))
        result = sample(
            ddpm,
            jax.random.key(1),
            variables,
            make_batch(2),
            num_hypotheses=1,
            return_trajectory=True,
        )
        assert result.trajectory.shape[1] == 8

    def test_sample_all_drops_padding(self, system, variables, hypotheses):
        batch = make_batch()
        padded = batch.replace(mask=batch.mask * (np.arange(6) < 4)[:, None])
        sampler = make_sampler(system, variables, num_hypotheses=5)
        samples = sample_all(jax.random.key(1), sampler, [padded, batch])
        np.testing.assert_allclose(samples, np.concatenate([hypotheses[:4], hypotheses]), atol=1e-5)

    def test_compiled_once_for_all_batches_of_a_shape(self, system, variables):
        traces = []

        def counted(*args, **kwargs):
            traces.append(1)
            return system.sample(*args, **kwargs)

        sampler = make_sampler(system._replace(sample=counted), variables, num_hypotheses=1)
        for seed in range(3):
            sampler(jax.random.key(seed), make_batch(seed=seed))
        assert len(traces) == 1


def draw(key, pose, num_timesteps):
    """The documented draw of one frame: a key each for the timestep and the noise."""
    t_key, noise_key = jax.random.split(key)
    t = jax.random.randint(t_key, (), 0, num_timesteps)
    return t, jax.random.normal(noise_key, pose.shape)


def run_chains(system, variables, keys, batch):
    """Plain chains with given keys (B, H), by way of the sampler's own parts."""
    model, skeleton, schedule, clip, options = system.sample.args
    assert skeleton is H36M_17

    def one(key, cond):
        start, rest = jax.random.split(key)
        x_init = jax.random.normal(start, (17, 3))
        predict = diffupose.bind_predict(model, variables, cond, schedule=schedule, clip=clip)
        return diffupose.run_sampler(rest, predict, x_init, schedule, options).samples

    chains = jax.vmap(jax.vmap(one, (0, None)))(keys, jnp.asarray(batch.keypoints[:, 0]))
    return chains[:, :, None]


class TestLoss:
    def test_against_numpy(self):
        rng = np.random.default_rng(0)
        output, noise, cond = (rng.normal(size=(4, 17, c)) for c in (5, 3, 2))
        weights = diffupose.joint_weights("diffupose", H36M_17)
        with jax.enable_x64(True):
            weighted, plain = diffupose.weighted_l1(
                *map(jnp.asarray, (output, noise, cond)), weights, 0.8
            )
            weighted, plain = np.asarray(weighted), np.asarray(plain)
        error = np.abs(output - np.concatenate([noise, cond], -1)) * [1, 1, 1, 0.8, 0.8]
        np.testing.assert_allclose(plain, error.mean(axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(
            weighted, (error * weights[:, None]).mean(axis=(1, 2)), rtol=1e-12
        )

    def test_the_objective_is_that_of_the_noised_pose(self, system, variables):
        """Every draw made again from the item's key, the mean taken in NumPy."""
        batch, key = make_batch(), jax.random.key(2)
        model, _, schedule, _, condition_weight = system.loss.args
        keys = frame_keys(key, batch.index, 1)
        t, noise = jax.vmap(jax.vmap(lambda k, x: draw(k, x, 8)))(keys, batch.pose)
        signal, sigma = (np.asarray(r)[..., None, None] for r in schedule.rates(t))
        x_t = signal * batch.pose + sigma * np.asarray(noise)
        output = np.asarray(jax.jit(model.apply)(variables, batch.keypoints, jnp.asarray(x_t), t))
        target = np.concatenate([noise, batch.keypoints], axis=-1)
        weights = diffupose.joint_weights("diffupose", H36M_17)[:, None]
        expected = (np.abs(output - target) * weights * [1, 1, 1, 0.8, 0.8]).mean()
        loss, _ = jax.jit(partial(system.loss, train=False))(key, variables, batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert condition_weight == 0.8
        assert diffupose.ProcessOptions().clip == 1.0

    def test_timesteps_are_uniform_and_noise_is_not_their_key(self):
        keys = jax.random.split(jax.random.key(0), 4000)
        t, noise = jax.vmap(lambda k: draw(k, jnp.zeros(3), 8))(keys)
        counts = np.bincount(np.asarray(t), minlength=8)
        assert counts.size == 8
        assert (np.abs(counts - 500) < 100).all()
        assert abs(np.corrcoef(np.asarray(t), np.asarray(noise)[:, 0])[0, 1]) < 0.1

    def test_joint_weights_sum_to_the_published_totals(self):
        assert diffupose.joint_weights("diffupose", H36M_17).sum() == 34
        assert diffupose.joint_weights("diffupose", H36M_16).sum() == 32
        assert diffupose.joint_weights("diffupose", HUMANEVA_15).shape == (15,)
        weight = dict(
            zip(H36M_17.joints, diffupose.joint_weights("diffupose", H36M_17), strict=True)
        )
        assert weight["left_ankle"] == weight["right_wrist"] == 4
        assert weight["left_elbow"] == weight["right_knee"] == weight["neck"] == 2

    def test_padding_does_not_count(self, system, variables):
        """Neither in the loss nor in the running statistics, whatever the padded rows hold."""
        batch = make_batch()
        wild = jax.tree.map(np.copy, batch)
        wild.pose[4:] = np.nan
        wild = wild.replace(mask=batch.mask * (np.arange(6) < 4)[:, None])
        loss = jax.jit(lambda b: system.loss(jax.random.key(2), variables, b, train=False)[0])
        np.testing.assert_allclose(loss(wild), loss(rows(batch, range(4))), rtol=1e-6)

    def test_noise_belongs_to_the_item(self, system, variables):
        """Two halves of a batch have the mean loss of the whole, in any order."""
        batch = make_batch()
        loss = jax.jit(lambda b: system.loss(jax.random.key(2), variables, b, train=False)[0])
        halves = (loss(rows(batch, [5, 0, 3])) + loss(rows(batch, [1, 4, 2]))) / 2
        np.testing.assert_allclose(halves, loss(batch), rtol=1e-5)

    def test_training_updates_the_statistics_and_evaluation_does_not(self, system, variables):
        key, batch = jax.random.key(2), make_batch()
        _, trained = system.loss(key, variables, batch, train=True)
        changed = jax.tree.map(
            lambda a, b: bool(jnp.any(a != b)),
            dict(trained.mutable)["batch_stats"],
            variables["batch_stats"],
        )
        assert all(jax.tree.leaves(changed))
        _, evaluated = system.loss(key, variables, batch, train=False)
        assert not evaluated.mutable

    def test_masked_mean_over_devices_is_the_global_mean(self):
        values = jnp.arange(16.0).reshape(8, 2, 1) ** 2
        mask = (values % 5 != 0).astype(jnp.float32)

        def device(v, m):
            return jax.lax.pmean(masked_mean(v, m, axis_name="d"), "d")

        result = jax.pmap(device, axis_name="d")(values, mask)
        expected = np.asarray(values)[np.asarray(mask) > 0].mean()
        np.testing.assert_allclose(result, expected, rtol=1e-5)


class TestVariants:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "model",
        [
            {"modulated": False},
            {"adjacency": "symmetric", "mask": True},
            {"non_local": False},
            {"dropout": 0.2},
            {"dtype": "bfloat16"},
            {"network": "unet"},
        ],
        ids=str,
    )
    def test_every_option_trains_and_samples(self, model):
        config = make_config(model=model)
        if model.get("network") == "unet":
            config.model = ConfigDict(model)
        system = make_system(config)
        variables = jax.jit(system.init)(jax.random.key(0))
        batch = make_batch(2)

        def loss(params):
            value, _ = system.loss(
                jax.random.key(1), {**variables, "params": params}, batch, train=True
            )
            return value

        gradient = jax.jit(jax.grad(loss))(variables["params"])
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
        samples = jax.jit(
            lambda v: system.sample(jax.random.key(1), v, batch, num_hypotheses=1).samples
        )(variables)
        assert samples.dtype == jnp.float32
        assert np.isfinite(samples).all()

    @pytest.mark.parametrize("name", ["h36m_16", "humaneva_15"])
    def test_other_skeletons(self, name):
        system = make_system(make_config(skeleton=name))
        variables = jax.jit(system.init)(jax.random.key(0))
        batch = make_batch(2, skeleton=get_skeleton(name))
        samples = sample(system, jax.random.key(1), variables, batch, num_hypotheses=1).samples
        assert samples.shape[-2] == get_skeleton(name).num_joints


class TestBadInput:
    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            ({"system": "magic"}, "system: expected one of .*'diffupose'.* got 'magic'"),
            ({"skeleton": "smpl"}, "skeleton: expected one of"),
            ({"model": {"widht": 64}}, "model.widht: unknown field"),
            ({"model": {"network": "mlp"}}, "model.network: expected 'gcn' or 'unet', got 'mlp'"),
            (
                {"model": {"network": "unet"}},
                "model: the U-Net has one size and takes no field but",
            ),
            ({"model": {"dtype": "int8"}}, "model.dtype: expected one of"),
            ({"process": {"schedule": "linear"}}, "num_timesteps: .*T > 20, got 8"),
            ({"sampler": {"num_steps": 9}}, "sampler.num_steps: expected 1 to 8 .*got 9"),
            ({"sampler": {"name": "euler"}}, "sampler.name: expected 'ddim' or 'ddpm'"),
            ({"process": {"clip": 0.0}}, "process.clip: expected more than 0, got 0.0"),
            ({"model": {"adjacency": "x"}}, "model.adjacency: expected 'row' or 'symmetric'"),
            ({"sampler": {"eta": 2.0}}, "sampler.eta: expected a value in"),
            ({"loss": {"joint_weights": "x"}}, "loss.joint_weights: expected 'diffupose'"),
            ({"skeleton": "coco_17"}, "loss.joint_weights: 'diffupose' is defined for"),
        ],
        ids=lambda v: str(v)[:40],
    )
    def test_a_bad_config_is_named(self, sections, message):
        with pytest.raises(ValueError, match=message):
            make_system(make_config(**sections))

    def test_a_bad_width_is_named(self):
        system = make_system(make_config(model={"width": 40}))
        with pytest.raises(ValueError, match="width: expected a multiple of 16"):
            system.init(jax.random.key(0))

    def test_keypoints_of_another_skeleton_are_refused(self, system, variables):
        batch = make_batch(2, skeleton=H36M_16)
        with pytest.raises(ValueError, match=r"batch.keypoints: expected \(..., 17, 2\)"):
            system.sample(jax.random.key(0), variables, batch, num_hypotheses=1)
        with pytest.raises(ValueError, match=r"batch.pose: expected \(..., 17, 3\)"):
            system.loss(jax.random.key(0), variables, batch, train=False)

    def test_keypoints_that_are_not_finite_are_refused(self, system, variables):
        batch = jax.tree.map(np.copy, make_batch(2))
        batch.keypoints[1, 0, 3] = np.nan
        sampler = make_sampler(system, variables, num_hypotheses=1)
        with pytest.raises(ValueError, match=r"batch.keypoints: .* item 1, frame 0, joint 3"):
            sampler(jax.random.key(0), batch)
        with pytest.raises(ValueError, match="batch: expected at least one item"):
            sampler(jax.random.key(0), rows(batch, np.arange(0)))

    def test_a_mask_of_items_is_refused(self, system, variables):
        batch = make_batch(2)
        with pytest.raises(ValueError, match=r"batch.mask: expected \(2, 1\) \(B, F\), got \(2,\)"):
            system.loss(jax.random.key(0), variables, batch.replace(mask=np.ones(2)), train=False)

    def test_training_without_poses_is_refused(self, system, variables):
        batch = dataclasses.replace(make_batch(2), pose=None)
        with pytest.raises(ValueError, match=r"batch.pose: expected root-relative poses"):
            system.loss(jax.random.key(0), variables, batch, train=True)

    def test_a_frozen_part_is_refused(self):
        with pytest.raises(ValueError, match="frozen: expected None"):
            make_system(make_config(), frozen={"params": {}})
