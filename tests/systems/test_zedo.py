"""ZeDO as a system: against its parts put together by hand, and hypotheses that stay the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.calibration import make_camera
from posediff_jax.camera import project, rays
from posediff_jax.data import procedural_motion
from posediff_jax.denoisers.score_mlp import ScoreMLP
from posediff_jax.inference import make_sampler
from posediff_jax.samplers.initial_fit import fit_initial_pose
from posediff_jax.samplers.ray_geometry import solve_translation
from posediff_jax.samplers.zero_shot import optimise_poses, score_steps
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from posediff_jax.systems import make_system
from posediff_jax.systems.zedo import make_energy, make_generator
from posediff_jax.types import PoseBatch
from tests.systems.test_diffupose import rows
from tests.systems.windows import products_in_loops

KEY = jax.random.key(1)


def relative_poses(seed, count):
    """Procedural poses seen by an upright camera."""
    clips = procedural_motion(seed, num_clips=count, frames=1)
    poses = np.concatenate([clip.poses for clip in clips]) * np.float32([1, -1, -1])
    return poses - poses[:, :1]


ANCHORS = relative_poses(7, 4)


def make_config(**sections):
    config = {
        "system": "zedo",
        "skeleton": "h36m_17",
        "model": {"width": 32, "embedding": 8, "num_blocks": 1, "groups": 4},
        "process": {},
        "loss": {},
        "sampler": {"fit_iterations": 20, "num_iterations": 10},
    }
    for name, fields in sections.items():
        config[name] = {**config[name], **fields} if isinstance(fields, dict) else fields
    return ConfigDict(config)


def make_batch(size=3, *, frames=1):
    """People 4 to 5 m away, with keypoints that fit."""
    pose = relative_poses(0, size * frames).reshape(size, frames, 17, 3)
    root = np.float32([0.2, -0.1, 4.0]) + np.linspace(0, 1, frames, dtype=np.float32)[:, None]
    camera = make_camera(np.float32([1100, 1150]), np.float32([500, 480]), np.float32([1000, 900]))
    pixels = np.asarray(project(camera, pose + root[:, None]))
    confidence = np.random.default_rng(0).uniform(0.3, 1, pixels.shape[:-1]).astype(np.float32)
    return PoseBatch(
        keypoints=pixels / 500 - 1,
        keypoints_px=pixels,
        confidence=confidence,
        mask=np.ones((size, frames), np.float32),
        index=np.arange(size, dtype=np.int32),
        subject=np.zeros(size, np.int32),
        action=np.zeros(size, np.int32),
        camera=jax.tree.map(lambda x: np.broadcast_to(x, (size, *np.shape(x))), camera),
        pose=pose,
    )


@functools.cache
def built(sections=()):
    return make_system(make_config(**{k: dict(v) for k, v in sections}), {"anchors": ANCHORS})


@functools.cache
def weights():
    """Large enough output weights that a fresh network moves poses."""
    variables = jax.jit(built().init)(jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x * 20 if "out" in str(path) else x, variables
    )


@functools.cache
def sampler(num_hypotheses, sections, return_trajectory=False):
    options = {"num_hypotheses": num_hypotheses, "return_trajectory": return_trajectory}
    return jax.jit(functools.partial(built(sections).sample, **options))


def sample(batch=None, *, num_hypotheses=2, process=(), return_trajectory=False, **options):
    sections = (
        ("process", tuple(process)),
        (
            "sampler",
            tuple(sorted(({"fit_iterations": 20, "num_iterations": 10} | options).items())),
        ),
    )
    run = sampler(num_hypotheses, sections, return_trajectory)
    return run(KEY, weights(), make_batch() if batch is None else batch)


class TestSampling:
    def test_is_the_fit_and_the_loop(self):
        """The two scans over (B, H, J, 3), written out with the released options."""
        batch = make_batch()
        camera = batch.camera
        pixels = jnp.asarray(batch.keypoints_px[:, 0])[:, None]
        model = ScoreMLP(17, width=32, embedding=8, num_blocks=1, groups=4)
        steps, variables = score_steps(num_iterations=10), weights()

        @jax.jit
        def by_hand():
            fit = fit_initial_pose(ANCHORS[:2], pixels, camera, joints=(0, 1, 4), num_iterations=20)
            return fit, optimise_poses(
                lambda x, t: model.apply(variables, x, t),
                fit.pose,
                fit.translation,
                rays(camera, pixels),
                steps=steps,
                confidence=batch.confidence,
            )

        fit, loop = by_hand()
        result = sample()
        assert result.samples.shape == (3, 2, 1, 17, 3)
        np.testing.assert_allclose(result.samples[:, :, 0], loop.pose, atol=1e-4)
        records = result.records
        np.testing.assert_allclose(records["translation"][:, :, 0], loop.translation, atol=1e-3)
        np.testing.assert_allclose(records["fit_error"][..., 0], fit.objective, rtol=1e-3)
        assert records["used"].shape == (3, 1, 17)
        assert records["used"].all()

    def test_without_a_fit_the_anchor_stands_where_it_suits_best(self):
        batch = make_batch()
        result = sample(fit_iterations=0, warmup=1.0)
        for h in range(2):
            expected = solve_translation(
                rays(batch.camera, batch.keypoints_px[:, 0]),
                ANCHORS[h],
                confidence=batch.confidence[:, 0],
            )
            np.testing.assert_allclose(result.records["translation"][:, h, 0], expected, rtol=1e-4)
        assert np.isnan(result.records["fit_error"]).all()

    @pytest.mark.parametrize(
        "options",
        [
            {},
            pytest.param({"noisy": True}, marks=pytest.mark.slow),
            pytest.param({"starts": "random"}, marks=pytest.mark.slow),
        ],
    )
    def test_neighbours_chunks_and_further_hypotheses_change_nothing(self, options):
        """From equal starts; the fit alone may part by rounding."""
        options = {"fit_iterations": 0} | options
        whole = np.asarray(sample(**options).samples)
        alone = sample(rows(make_batch(), [2, 0]), **options).samples
        np.testing.assert_allclose(alone, whole[[2, 0]], atol=1e-4)
        np.testing.assert_allclose(sample(**options, max_chains=4).samples, whole, atol=1e-4)
        more = sample(num_hypotheses=3, **options).samples
        np.testing.assert_allclose(more[:, :2], whole, atol=1e-4)

    @pytest.mark.slow
    def test_after_the_fit_errors_agree_whatever_the_chunks(self):
        """500 steps on an L1 objective part by rounding; what they reach does not."""
        whole, chunked = (
            sample(fit_iterations=500, **options).records["fit_error"]
            for options in ({}, {"max_chains": 4})
        )
        np.testing.assert_allclose(chunked, whole, atol=0.1)

    @pytest.mark.parametrize(
        "fit_iterations", [0, pytest.param(500, marks=pytest.mark.slow)], ids=["loop", "fit"]
    )
    def test_one_device_and_eight_agree(self, fit_iterations):
        """From equal starts the poses, after the fit its errors in pixels."""
        options = {"fit_iterations": fit_iterations, "num_iterations": 10}
        system = make_system(make_config(sampler=options), {"anchors": ANCHORS})
        one, eight = (
            make_sampler(system, weights(), num_hypotheses=2, devices=jax.devices()[:n])(
                KEY, make_batch()
            )
            for n in (1, 8)
        )
        if fit_iterations:
            errors = one.records["fit_error"], eight.records["fit_error"]
            np.testing.assert_allclose(*errors, atol=0.1)
        else:
            np.testing.assert_allclose(one.samples, eight.samples, atol=1e-4)

    def test_hypotheses_differ_by_their_start_alone(self):
        samples = sample().samples
        assert jnp.abs(samples[:, 0] - samples[:, 1]).max() > 1e-2
        np.testing.assert_array_equal(samples, sample().samples)

    def test_random_starts_are_drawn_for_each_item(self):
        """Without the loop's help: at the first iteration the start is all there is."""
        batch = make_batch(16)
        options = {"fit_iterations": 0, "num_iterations": 1, "warmup": 1.0}
        random = sample(batch, num_hypotheses=1, starts="random", **options).samples
        each = sample(batch, num_hypotheses=4, **options).samples
        distance = jnp.abs(random - each).max(axis=(-3, -2, -1))  # (16, 4)
        chosen = jnp.argmin(distance, axis=1)
        np.testing.assert_allclose(distance.min(axis=1), 0, atol=1e-5)
        assert len(np.unique(chosen)) > 2

    @pytest.mark.slow
    def test_generated_starts_need_no_anchors(self):
        config = make_config(sampler={"starts": "generated"}, process={"num_steps": 20})
        system = make_system(config)
        run = jax.jit(functools.partial(system.sample, num_hypotheses=2))
        samples = run(KEY, weights(), make_batch()).samples
        assert np.isfinite(samples).all()
        assert jnp.abs(samples[:, 0] - samples[:, 1]).max() > 1e-2

    def test_frames_are_items(self):
        batch = make_batch(2, frames=3)
        result = sample(batch, fit_iterations=0, return_trajectory=True)
        assert result.samples.shape == (2, 2, 3, 17, 3)
        assert result.trajectory.shape == (2, 10, 2, 3, 17, 3)
        np.testing.assert_array_equal(result.trajectory[:, -1], result.samples)
        middle = jax.tree.map(lambda x: x[:, 1:2] if np.ndim(x) > 2 else x, batch)
        middle = middle.replace(mask=batch.mask[:, 1:2])
        alone = sample(middle, fit_iterations=0).samples
        np.testing.assert_allclose(alone, result.samples[:, :, 1:2], atol=1e-4)

    def test_recentred_poses_stand_where_they_stood(self):
        drifted, centred = sample(fit_iterations=0), sample(fit_iterations=0, recenter=True)
        np.testing.assert_array_equal(centred.samples[..., 0, :], 0)
        assert jnp.abs(drifted.samples[..., 0, :]).max() > 1e-5
        world = [r.samples + r.records["translation"][..., None, :] for r in (drifted, centred)]
        np.testing.assert_allclose(*world, atol=1e-5)

    def test_confidences_are_an_option(self):
        trusted, plain = sample(fit_iterations=0), sample(fit_iterations=0, confidence=False)
        assert jnp.abs(trusted.samples - plain.samples).max() > 1e-4
        sure = make_batch().replace(confidence=np.ones((3, 1, 17), np.float32))
        np.testing.assert_allclose(sample(sure, fit_iterations=0).samples, plain.samples, atol=1e-4)

    def test_lens_distortion_can_be_undone(self):
        """Keypoints bent by the lens give the poses of straight ones."""
        batch = make_batch()
        bent = batch.camera.replace(radial=np.broadcast_to([-0.2, 0.24, 0.0], (3, 3)).astype("f"))
        world = batch.pose + np.float32([0.2, -0.1, 4.0])
        seen = batch.replace(camera=bent, keypoints_px=np.asarray(project(bent, world)))
        assert np.abs(seen.keypoints_px - batch.keypoints_px).max() > 2
        options = {"fit_iterations": 0, "undistort_iterations": 10}
        straight = sample(fit_iterations=0).samples
        np.testing.assert_allclose(sample(seen, **options).samples, straight, atol=1e-4)

    def test_what_stays_the_same_is_outside_the_loop(self):
        """A product for each of three layers, its norm, and the output; none for time or rays."""
        system = built((("sampler", (("fit_iterations", 0), ("num_iterations", 10))),))

        batch = make_batch()

        def run(variables):
            return system.sample(KEY, variables, batch, num_hypotheses=2).samples

        assert products_in_loops(jax.make_jaxpr(run)(weights()).jaxpr) == 3 + 3 + 1


class TestPriors:
    @pytest.mark.parametrize(
        "name",
        ["ddim", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vp", "ddpm"))],
    )
    def test_every_prior_lifts(self, name):
        result = sample(process=(("name", name), ("num_steps", 200)), fit_iterations=0)
        assert np.isfinite(result.samples).all()
        assert jnp.abs(result.samples - sample(fit_iterations=0).samples).max() > 1e-4

    @pytest.mark.parametrize("name", ["subvp", "ddpm"])
    def test_the_loss_of_a_network_that_says_zero(self, name):
        """Is half the squared noise, 51 / 2 on average, whatever was added."""
        system = make_system(make_config(process={"name": name}))
        silent = jax.tree_util.tree_map_with_path(
            lambda path, x: x * 0 if "out" in str(path) else x, weights()
        )
        batch = make_batch(4, frames=200)
        loss, aux = jax.jit(functools.partial(system.loss, train=True))(KEY, silent, batch)
        np.testing.assert_allclose(loss, 25.5, rtol=0.03)
        assert aux.metrics["loss"] == loss

    def test_padding_and_neighbours_do_not_matter(self):
        batch = jax.tree.map(np.copy, make_batch(4))
        batch.pose[3] = np.nan
        batch.mask[3] = 0
        loss = jax.jit(
            jax.value_and_grad(lambda v, b: built().loss(jax.random.key(2), v, b, train=False)[0])
        )
        value, gradient = loss(weights(), batch)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        np.testing.assert_allclose(loss(weights(), rows(batch, [2, 0, 1]))[0], value, rtol=1e-5)

    def test_training_augments_and_evaluation_does_not(self):
        """Rotations alone change the loss of a pose; without them both agree but for dropout."""
        config = {"flip_prob": 0.0, "rotation_prob": 0.0}
        plain = make_system(make_config(loss=config, model={"dropout": 0.0}))
        turned = make_system(
            make_config(loss=config | {"rotation_prob": 1.0}, model={"dropout": 0.0})
        )
        batch = make_batch()
        value = {
            (name, train): jax.jit(functools.partial(system.loss, train=train))(
                KEY, weights(), batch
            )[0]
            for name, system in (("plain", plain), ("turned", turned))
            for train in (True, False)
        }
        assert value["plain", True] == value["plain", False] == value["turned", False]
        assert abs(value["turned", True] - value["plain", True]) > 1e-3


class TestGeneratedAndRanked:
    @pytest.mark.parametrize("name", ["subvp", pytest.param("ddpm", marks=pytest.mark.slow)])
    def test_poses_are_drawn_each_from_its_key(self, name):
        config = make_config(process={"name": name, "num_steps": 25})
        generate = jax.jit(make_generator(config))
        keys = jax.random.split(jax.random.key(3), 4)
        poses = generate(keys, weights())
        assert poses.shape == (4, 17, 3)
        np.testing.assert_array_equal(poses[:, 0], 0)
        assert jnp.std(poses, axis=0)[1:].min() > 0.01
        np.testing.assert_allclose(generate(keys[::-1], weights())[::-1], poses, atol=1e-4)

    @pytest.mark.parametrize("name", ["subvp", "ddpm"])
    def test_the_energy_of_a_network_that_says_zero_is_the_noise(self, name):
        silent = jax.tree_util.tree_map_with_path(
            lambda path, x: x * 0 if "out" in str(path) else x, weights()
        )
        energy = jax.jit(make_energy(make_config(process={"name": name}), num_times=50))
        values = energy(KEY, silent, make_batch().pose)
        assert values.shape == (3, 1)
        np.testing.assert_allclose(values, 1, atol=0.1)
        with pytest.raises(ValueError, match="num_times: expected at least 1, got 0"):
            make_energy(make_config(), num_times=0)
        with pytest.raises(ValueError, match=r"t_range: expected two times in \(0, 1\]"):
            make_energy(make_config(), t_range=(0.0, 0.1))


class TestBadInput:
    @pytest.mark.parametrize(
        "case", ["all missing", "no hips", "far outside", "flipped K", "K = 0"]
    )
    def test_a_hopeless_frame_is_flagged_alone(self, case):
        batch = jax.tree.map(np.copy, make_batch(3, frames=2))
        if case == "all missing":
            batch.confidence[1] = 0
        elif case == "no hips":
            batch.confidence[1, :, [1, 4]] = 0
        elif case == "far outside":
            batch.keypoints_px[1] = 1e6
        else:
            batch.camera.focal[1, 0] = -1100 if case == "flipped K" else 0
        whole = sample(make_batch(3, frames=2))
        result = sample(batch)
        assert np.isnan(result.samples[1]).all()
        assert np.isnan(result.records["translation"][1]).all()
        np.testing.assert_array_equal(result.samples[::2], whole.samples[::2])
        assert result.records["used"].sum(axis=-1)[1].max() < 17

    def test_one_bad_frame_leaves_the_other_of_its_item(self):
        batch = jax.tree.map(np.copy, make_batch(3, frames=2))
        batch.keypoints_px[1, 0] = 1e6
        result, whole = sample(batch), sample(make_batch(3, frames=2))
        assert np.isnan(result.samples[1, :, 0]).all()
        np.testing.assert_array_equal(result.samples[1, :, 1], whole.samples[1, :, 1])

    @pytest.mark.parametrize("place", [1e6, -1e6, np.nan])
    def test_a_wild_joint_is_not_used(self, place):
        """Whatever its confidence: the others decide, and its place does not matter."""
        batch = jax.tree.map(np.copy, make_batch())
        batch.keypoints_px[1, 0, 13] = place
        result = sample(batch)
        assert not result.records["used"][1, 0, 13]
        assert np.isfinite(result.samples).all()
        batch.keypoints_px[1, 0, 13], batch.confidence[1, 0, 13] = 500, 0
        np.testing.assert_allclose(sample(batch).samples, result.samples, atol=1e-4)

    def test_more_hypotheses_than_anchors(self):
        message = r"num_hypotheses: expected at most the number of anchors \(4\), got 5"
        with pytest.raises(ValueError, match=message):
            built().sample(KEY, weights(), make_batch(), num_hypotheses=5)
        with pytest.raises(ValueError, match="num_hypotheses: expected at least 1"):
            built().sample(KEY, weights(), make_batch(), num_hypotheses=0)

    def test_sampling_without_anchors(self):
        with pytest.raises(ValueError, match="frozen: expected anchors to start from"):
            make_system(make_config()).sample(KEY, weights(), make_batch(), num_hypotheses=1)

    def test_keypoints_of_another_skeleton(self):
        batch = make_batch()
        with pytest.raises(ValueError, match=r"batch.keypoints_px: expected \(..., 17, 2\)"):
            built().sample(
                KEY,
                weights(),
                batch.replace(keypoints_px=batch.keypoints_px[:, :, :16]),
                num_hypotheses=1,
            )

    @pytest.mark.parametrize(
        ("frozen", "message"),
        [
            ({"poses": ANCHORS}, r"frozen: expected 'anchors' and 'joints', got \['poses'\]"),
            ({"anchors": ANCHORS[:, :16]}, r"frozen\['anchors'\]: expected \(..., 17, 3\)"),
            ({"anchors": ANCHORS[0]}, r"frozen\['anchors'\]: expected \(S, J, 3\) finite"),
            ({"anchors": ANCHORS * np.nan}, r"frozen\['anchors'\]: expected \(S, J, 3\) finite"),
            (
                {"anchors": ANCHORS, "joints": MPI_INF_3DHP_17.joints},
                r"frozen\['joints'\]: expected the order of skeleton 'h36m_17'",
            ),
        ],
    )
    def test_anchors_that_do_not_fit(self, frozen, message):
        with pytest.raises(ValueError, match=message):
            make_system(make_config(), frozen)

    def test_anchors_are_moved_to_their_root(self):
        moved = make_system(make_config(), {"anchors": ANCHORS + 3, "joints": H36M_17.joints})
        np.testing.assert_allclose(moved.sample.args[0].anchors, ANCHORS, atol=1e-6)

    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            ({"model": {"width": 30}}, r"width: expected a multiple of groups \(4\), got 30"),
            ({"model": {"depth": 3}}, "model.depth: unknown field"),
            ({"process": {"name": "ve"}}, "process.name: expected one of .* got 've'"),
            ({"process": {"beta_min": 0.0}}, "beta_min, beta_max: expected 0 < beta_min"),
            (
                {"loss": {"reduction": "sum"}},
                "loss.reduction: expected 'half_sum' or 'mean', got 'sum'",
            ),
            ({"loss": {"flip_prob": 2.0}}, "loss.flip_prob: expected a chance in"),
            ({"loss": {"time_eps": 0.0}}, "loss.time_eps: expected a time in"),
            (
                {"loss": {"weighting": "likelihood"}, "process": {"name": "ddim"}},
                "loss.weighting: 'likelihood' is defined for 'subvp' and 'vp', got .*'ddim'",
            ),
            ({"sampler": {"starts": "mean"}}, "sampler.starts: expected one of .* got 'mean'"),
            ({"sampler": {"fit_joints": ("hips",)}}, r"sampler.fit_joints: .* got \['hips'\]"),
            ({"sampler": {"fit_axes": "w"}}, "sampler.fit_axes: expected some of 'xyz'"),
            ({"sampler": {"fit_iterations": -1}}, "sampler.fit_iterations: expected at least 0"),
            ({"sampler": {"fit_bounds": (2.0, 1.0)}}, "sampler.fit_bounds: expected 0 <= low"),
            ({"sampler": {"fit_depth": 0.0}}, "sampler.fit_depth: expected more than 0"),
            ({"sampler": {"num_iterations": 0}}, "num_iterations: expected at least 1"),
            ({"sampler": {"warmup": 200.0}}, r"sampler.warmup: expected a share in \[0, 1\]"),
            ({"sampler": {"t_range": (0.1, 0.0)}}, "sampler.t_range: expected two times"),
            ({"sampler": {"max_chains": -1}}, "sampler.max_chains: expected at least 0"),
        ],
        ids=lambda v: str(v)[:40],
    )
    def test_a_bad_config_is_named(self, sections, message):
        with pytest.raises(ValueError, match=message):
            make_system(make_config(**sections))


class TestStarts:
    def batch(self, start):
        return make_batch().replace(start=start)

    def test_the_last_hypothesis_starts_from_the_guess(self):
        """As if the guess were its anchor; the others and frames without a guess do not care."""
        guess = relative_poses(11, 3)[:, None]
        guess[1] = np.nan
        found, plain = sample(self.batch(guess)), sample()
        np.testing.assert_allclose(found.samples[:, 0], plain.samples[:, 0], atol=1e-5)
        np.testing.assert_allclose(found.samples[1], plain.samples[1], atol=1e-5)
        for item in (0, 2):
            anchors = np.stack([ANCHORS[0], guess[item, 0]])
            system = make_system(make_config(), {"anchors": anchors})
            run = jax.jit(functools.partial(system.sample, num_hypotheses=2))
            expected = run(KEY, weights(), make_batch()).samples[item, 1]
            np.testing.assert_allclose(found.samples[item, 1], expected, atol=1e-4)

    def test_a_guess_of_another_shape_is_named(self):
        with pytest.raises(ValueError, match=r"batch.start: expected \(..., 17, 3\)"):
            sample(self.batch(np.zeros((3, 1, 16, 3), np.float32)))

    def test_a_start_at_the_extent_is_as_far_as_the_keypoints_say(self):
        """Anchors that are the people, four metres away, whatever distance the fit has."""
        options = {"fit_bounds": (0.99, 1.01), "num_iterations": 1, "warmup": 1.0}
        batch = make_batch()
        anchors = np.concatenate([np.asarray(batch.pose)[:, 0], ANCHORS])
        depths = []
        for extra in ({"fit_start": "extent"}, {"fit_depth": 8.0}):
            config = make_config(sampler={**options, **extra})
            system = make_system(config, {"anchors": anchors})
            run = jax.jit(functools.partial(system.sample, num_hypotheses=1))
            depths.append(run(KEY, weights(), batch).records["translation"][0, 0, 0, 2])
        np.testing.assert_allclose(depths[0], 4.0, rtol=0.08)
        np.testing.assert_allclose(depths[1], 8.0, rtol=0.02)

    @pytest.mark.parametrize("name", ["fit_start", "fit_missing"])
    def test_unknown_names_are_refused(self, name):
        with pytest.raises(ValueError, match=f"sampler.{name}: expected one of .* got 'somewhere'"):
            make_system(make_config(sampler={name: "somewhere"}), {"anchors": ANCHORS})
