"""DiffHPE as systems: hypotheses, loss, guidance, the frozen lifter; numbers by tests.parity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.geometry import segment_lengths
from posediff_jax.process.schedules import cosine_schedule, q_sample
from posediff_jax.skeleton import H36M_17, segments
from posediff_jax.systems import diffhpe_loss, make_system
from posediff_jax.systems.diffhpe_parts import (
    FROZEN,
    Guidance,
    NoiseShape,
    join_lifter,
)
from posediff_jax.systems.diffhpe_sampling import SamplerOptions, run_times
from tests.systems.test_diffupose import make_batch, rows
from tests.systems.windows import products_in_loops

FRAMES, T = 3, 4
MODEL = {"num_frames": FRAMES, "width": 8, "num_blocks": 1, "step_width": 8, "dropout": 0.0}
LIFTER = {"lifter_width": 6, "lifter_depth": 1, "lifter_heads": 2}
FORMS = ("diffhpe_2d", "diffhpe_wrapper")
BOTH = pytest.mark.parametrize("name", FORMS)


def make_config(name="diffhpe_2d", **sections):
    config = {
        "system": name,
        "skeleton": "h36m_17",
        "model": {**MODEL, **(LIFTER if name == "diffhpe_wrapper" else {})},
        "process": {"num_timesteps": T},
        "loss": {},
        "sampler": {},
    }
    for section, fields in sections.items():
        config[section] = {**config[section], **fields} if isinstance(fields, dict) else fields
    return ConfigDict(config)


@functools.cache
def lifter(**changes):
    """Variables of a MixSTE with its head, as a run of `mixste` leaves them."""
    size = {"num_frames": FRAMES, "width": 6, "depth": 1, "num_heads": 2} | changes
    config = {"system": "mixste", "skeleton": "h36m_17", "model": size, "loss": {}, "sampler": {}}
    fresh = jax.jit(make_system(config).init)(jax.random.key(9))
    return jax.tree.map(lambda a: a + 0.02, fresh)


def build(name="diffhpe_2d", **sections):
    config = make_config(name, **sections)
    frozen = name == "diffhpe_wrapper" and config.model.get("lifter", "frozen") == "frozen"
    return make_system(config, lifter() if frozen else None)


@functools.cache
def variables(name="diffhpe_2d"):
    """Moved off the zeros of the output layer and of the attention's normalisation."""
    fresh = dict(jax.jit(build(name).init)(jax.random.key(0)))
    moved = jax.tree.map(lambda a: a + 0.05, fresh["params"])
    return {**fresh, "params": moved}


def sample(name="diffhpe_2d", batch=None, num_hypotheses=2, sections=(), **options):
    system = build(name, **dict(sections))
    batch = make_batch(3, frames=FRAMES) if batch is None else batch

    def run(variables, batch, options):
        return system.sample(
            jax.random.key(1),
            variables,
            batch,
            num_hypotheses=num_hypotheses,
            return_trajectory=True,
            **options,
        )

    return jax.jit(run)(variables(name), batch, options)


@functools.cache
def plain(name):
    return sample(name)


class TestSampling:
    @BOTH
    def test_shapes(self, name):
        result = plain(name)
        assert result.samples.shape == (3, 2, FRAMES, 17, 3)
        assert result.trajectory.shape == (3, T, 2, FRAMES, 17, 3)
        np.testing.assert_array_equal(result.trajectory[:, -1], result.samples)
        assert np.isfinite(result.samples).all()
        assert np.ptp(result.samples, axis=1).max() > 1e-3
        # The root is diffused and predicted like any other joint.
        assert np.abs(result.samples[..., 0, :]).min() > 0

    def test_hypotheses_depend_on_nothing_but_their_item(self):
        batch, whole = make_batch(3, frames=FRAMES), plain("diffhpe_2d").samples
        some = sample(batch=rows(batch, [2, 0])).samples
        np.testing.assert_allclose(some, whole[np.array([2, 0])], atol=2e-5)
        chunks = sample(num_hypotheses=3, sections=(("sampler", {"max_chains": 2}),)).samples
        np.testing.assert_allclose(chunks[:, :2], whole, atol=2e-5)

    def test_ddim_with_all_steps_and_noise_is_ddpm(self):
        options = {"name": "ddim", "num_steps": T, "eta": 1.0}
        ours = sample(sections=(("sampler", options),))
        assert ours.trajectory.shape[1] == T
        np.testing.assert_allclose(ours.samples, plain("diffhpe_2d").samples, atol=1e-4)

    def test_strided_steps(self):
        options = SamplerOptions(name="ddim", num_steps=2)
        np.testing.assert_array_equal(run_times(cosine_schedule(10), options), [9, 4])
        few = SamplerOptions(name="ddim", num_steps=2, last_steps=6)
        np.testing.assert_array_equal(run_times(cosine_schedule(10), few), [5, 2])
        last = SamplerOptions(last_steps=3)
        np.testing.assert_array_equal(run_times(cosine_schedule(10), last), [2, 1, 0])

    def test_a_given_pose_is_refined_by_the_last_steps(self):
        pose = make_batch(3, frames=FRAMES, seed=5).pose
        sections = (("sampler", {"last_steps": 1}),)
        one = sample(sections=sections, starting_pose=pose)
        # The last step adds no noise: all hypotheses agree, near where they began.
        np.testing.assert_allclose(one.samples[:, 0], one.samples[:, 1], atol=1e-6)
        schedule = cosine_schedule(T, max_beta=0.5)
        shift = np.abs(np.asarray(one.samples[:, 0]) - pose / schedule.sqrt_alphas_cumprod[0])
        assert 0 < shift.max() < 10 * schedule.sqrt_recipm1_alphas_cumprod[0]

    def test_roots_may_be_moved_to_the_origin(self):
        free = np.asarray(plain("diffhpe_2d").samples)
        centred = sample(sections=(("sampler", {"recenter": True}),)).samples
        np.testing.assert_allclose(centred, free - free[..., :1, :], atol=1e-6)

    @pytest.mark.parametrize("name", FORMS)
    def test_features_are_computed_outside_the_loop(self, name):
        """In the loop are the products of a block, of the ends, and of the pose's embedding."""
        system, batch = build(name), make_batch(1, frames=FRAMES)

        def run(variables):
            return system.sample(jax.random.key(0), variables, batch, num_hypotheses=2).samples

        count = products_in_loops(jax.make_jaxpr(run)(variables(name)).jaxpr)
        graph = 2 * 3
        attention = 3 + 1 + 4  # theta folded, phi, g, out, and the joint of vectors
        ends = 3
        assert count <= graph + attention + 2 + ends + (name == "diffhpe_wrapper")


class TestLoss:
    @BOTH
    def test_gradients_are_finite_and_reach_all_weights(self, name):
        system = build(name)

        def value(params, rest, batch):
            return system.loss(jax.random.key(2), {"params": params, **rest}, batch, train=True)

        rest = dict(variables(name))
        params = rest.pop("params")
        batch = make_batch(3, frames=FRAMES)
        slope = jax.jit(jax.value_and_grad(value, has_aux=True))
        (loss, aux), gradient = slope(params, rest, batch)
        assert set(aux.mutable) == {"batch_stats"}
        assert aux.metrics["noise"] == loss
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.isfinite(leaf).all(), path
            # A shift of all logits before ReLU may reach none of them.
            assert np.any(leaf) or "attention" in str(path), path
        # Padding may hold anything, and does not count.
        mask = batch.mask.copy()
        mask[1] = 0
        nonsense = batch.replace(
            mask=mask, pose=np.where(mask[..., None, None] > 0, batch.pose, np.nan)
        )
        (padded, _), gradient = slope(params, rest, nonsense)
        assert np.isfinite(padded)
        assert padded != loss
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

    def test_regularisers_against_numpy(self):
        rng = np.random.default_rng(0)
        shape = (2, FRAMES + 1, 17, 3)
        x0, eps, output = rng.normal(size=(3, *shape))
        t, schedule = np.array([0, 2]), cosine_schedule(T, dtype=np.float64)
        mask = np.ones(shape[:2])
        mask[1, 3] = 0
        options = diffhpe_loss.LossOptions(time_weight=0.2, side_weight=0.3)
        with jax.enable_x64(True):
            x_t = q_sample(schedule, jnp.asarray(x0), t, eps)
            terms = diffhpe_loss.loss_terms(
                schedule, jnp.asarray(output), eps, x_t, t, mask, H36M_17, options
            )
            terms = {k: np.asarray(v) for k, v in terms.items()}
            total = diffhpe_loss.total_loss(terms, options)
        a, b = np.sqrt(schedule.alphas_cumprod[t]), np.sqrt(1 - schedule.alphas_cumprod[t])
        spread = (slice(None), None, None, None)
        pose = (np.asarray(x_t) - b[spread] * output) / a[spread]
        lengths = np.stack(
            [
                np.linalg.norm(pose[..., c, :] - pose[..., p, :], axis=-1)
                for c, p in segments(H36M_17, bones="official")
            ],
            axis=-1,
        )
        np.testing.assert_allclose(lengths, segment_lengths(pose, H36M_17), rtol=1e-5)
        time = [lengths[0].var(axis=0, ddof=1).mean(), lengths[1, :3].var(axis=0, ddof=1).mean()]
        np.testing.assert_allclose(terms["time"], np.repeat(time, FRAMES + 1).reshape(2, -1))
        left, right = (3, 4, 5, 10, 11, 12), (0, 1, 2, 13, 14, 15)
        side = ((lengths[..., left] - lengths[..., right]) ** 2).mean(-1)
        np.testing.assert_allclose(terms["side"], side)
        noise = ((output - eps) ** 2).mean((-2, -1))
        np.testing.assert_allclose(terms["noise"], noise)
        np.testing.assert_allclose(total, 0.5 * noise + 0.2 * terms["time"] + 0.3 * side)


class TestGuidance:
    def test_keypoints_are_dropped_at_their_rate(self):
        guidance = Guidance("keypoints", share=0.25)
        kept = np.asarray(guidance.kept_keypoints(jax.random.key(0), (100, 17)))
        assert kept.shape == (100, 17, 1)
        assert abs(kept.mean() - 0.75) < 0.03
        np.testing.assert_array_equal(Guidance().kept_keypoints(jax.random.key(0), (2, 3)), 0)

    def test_what_a_network_is_told(self):
        """Windows by themselves or the batch as a whole; the condition or the keypoints."""
        keypoints = jnp.ones((400, 2, 17, 2))
        keys = jax.random.split(jax.random.key(1), 400)

        def drop(key, guidance, **options):
            options = diffhpe_loss.LossOptions(unconditional=0.3, **options)
            return diffhpe_loss._drop(key, keys, keypoints, guidance, options)

        told, kept = drop(jax.random.key(0), Guidance())
        np.testing.assert_array_equal(told, 1)
        assert abs(float(kept.mean()) - 0.7) < 0.06
        told, kept = drop(jax.random.key(0), Guidance("keypoints"))
        assert kept is None
        per_window = np.asarray(told).mean((1, 2, 3))
        assert set(per_window) == {0, 1}
        assert abs(per_window.mean() - 0.7) < 0.06
        part, _ = drop(jax.random.key(0), Guidance("keypoints", share=0.5))
        assert abs(float(np.asarray(part)[per_window == 0].mean()) - 0.5) < 0.05
        wholes = [
            np.asarray(drop(jax.random.key(i), Guidance(), unconditional_by="batch")[1])
            for i in range(20)
        ]
        assert all(np.ptp(w) == 0 for w in wholes)
        assert 0 < np.mean([w[0] == 0 for w in wholes]) < 1

    @pytest.mark.parametrize(
        ("dropped", "share"), [("condition", 1.0), ("keypoints", 1.0), ("keypoints", 0.5)]
    )
    def test_guidance_goes_away_from_the_unconditional_estimate(self, dropped, share):
        """In one step from the same state, the result is linear in w."""
        pose = make_batch(3, frames=FRAMES, seed=5).pose

        def run(weight):
            sections = {
                "model": {"dropped": dropped, "dropped_share": share},
                "loss": {"unconditional": 0.1},
                "sampler": {"last_steps": 1, "guidance": weight},
            }
            given = tuple(sections.items())
            return np.asarray(
                sample(
                    "diffhpe_wrapper", sections=given, num_hypotheses=1, starting_pose=pose
                ).samples
            )

        none, one, two = run(0.0), run(1.0), run(2.0)
        assert np.abs(one - none).max() > 1e-6
        np.testing.assert_allclose(two - one, one - none, atol=2e-5)


class TestFrozenLifter:
    def test_it_is_no_parameter_and_travels_with_them(self):
        fresh = jax.jit(build("diffhpe_wrapper").init)(jax.random.key(0))
        assert "lifter" not in fresh["params"]
        kept = fresh[FROZEN]["lifter"]
        assert "head" not in kept["trunk"]
        np.testing.assert_array_equal(
            kept["joint_positions"], lifter()["params"]["joint_positions"]
        )
        assert "lifter" in join_lifter(fresh)["params"]

    def test_with_its_head_if_its_pose_is_the_condition(self):
        system = build("diffhpe_wrapper", model={"condition": "pose", "encode_pose": False})
        assert "head" in jax.eval_shape(system.init, jax.random.key(0))[FROZEN]["lifter"]["trunk"]

    def test_a_trained_one_is_a_parameter(self):
        system = build("diffhpe_wrapper", model={"lifter": "trained"})
        fresh = jax.eval_shape(system.init, jax.random.key(0))
        assert FROZEN not in fresh
        assert "lifter" in fresh["params"]

    def test_a_system_samples_without_it_but_does_not_begin(self):
        system = make_system(make_config("diffhpe_wrapper"))
        with pytest.raises(ValueError, match="frozen: expected the variables of a MixSTE"):
            system.init(jax.random.key(0))
        batch = make_batch(2, frames=FRAMES)

        def run(variables):
            return system.sample(jax.random.key(0), variables, batch, num_hypotheses=2).samples

        shape = jax.eval_shape(run, variables("diffhpe_wrapper"))
        assert shape.shape == (2, 2, FRAMES, 17, 3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"width": 8}, "width 8, expected 6"),
            ({"num_frames": 5}, "num_frames 5, expected 3"),
            ({"depth": 2}, "depth 2, expected 1"),
            ({"mlp_ratio": 4.0}, "spatial_0/mlp/fc1"),
        ],
    )
    def test_one_of_another_size(self, changes, message):
        with pytest.raises(ValueError, match=f"frozen: the lifter does not fit.*{message}"):
            make_system(make_config("diffhpe_wrapper"), lifter(**changes))

    def test_one_of_another_skeleton(self):
        params = dict(lifter()["params"])
        params["joint_positions"] = params["joint_positions"][:16]
        with pytest.raises(ValueError, match=r"skeleton 'h36m_17'.*joints 16, expected 17"):
            make_system(make_config("diffhpe_wrapper"), {"params": params})

    def test_no_lifter(self):
        with pytest.raises(
            ValueError, match=r"frozen: expected a collection 'params', got \['x'\]"
        ):
            make_system(make_config("diffhpe_wrapper"), {"x": 1})
        with pytest.raises(ValueError, match="frozen: expected None, DiffHPE-2D has no frozen"):
            make_system(make_config(), lifter())
        config = make_config("diffhpe_wrapper", model={"lifter": "trained"})
        with pytest.raises(ValueError, match=r"frozen: expected None with model.lifter='trained'"):
            make_system(config, lifter())


class TestNoiseShape:
    shape = NoiseShape(std=np.full((17, 3), 2.0), mean=np.arange(51.0).reshape(17, 3))

    def test_the_hidden_state_is_diffused_by_standard_noise(self):
        schedule = cosine_schedule(T, dtype=np.float64)
        rng = np.random.default_rng(0)
        with jax.enable_x64(True):
            x0, z = jnp.asarray(rng.normal(size=(2, 5, 17, 3)))
            x_t = q_sample(schedule, x0, 2, self.shape.noise(z))
            hidden = self.shape.hidden(schedule, x_t, 2)
            np.testing.assert_allclose(hidden, q_sample(schedule, x0 / 2, 2, z), atol=1e-12)
            np.testing.assert_allclose(self.shape.shown(schedule, hidden, 2), x_t, atol=1e-12)
            np.testing.assert_allclose(self.shape.normal(self.shape.noise(z)), z, atol=1e-12)

    def test_sampling_starts_from_that_noise(self):
        std = (0.01,) * 51
        still = sample(sections=(("process", {"noise_std": std}),))
        assert np.isfinite(still.samples).all()
        first = np.abs(still.trajectory[:, 0]).mean()
        assert first < 0.5 * np.abs(plain("diffhpe_2d").trajectory[:, 0]).mean()


def test_only_z_may_be_diffused():
    config = {"depth_only": True}
    system = build(model=config)
    fresh = jax.jit(system.init)(jax.random.key(0))
    batch = make_batch(2, frames=FRAMES)
    result = system.sample(jax.random.key(0), fresh, batch, num_hypotheses=2)
    expected = np.broadcast_to(batch.keypoints[:, None], result.samples[..., :2].shape)
    np.testing.assert_array_equal(result.samples[..., :2], expected)
    loss, _ = system.loss(jax.random.key(1), fresh, batch, train=False)
    assert np.isfinite(loss)


@pytest.mark.parametrize(
    ("name", "sections", "message"),
    [
        (
            "diffhpe_2d",
            {"sampler": {"guidance": 1.5}},
            "guidance: 1.5 needs a network that was also",
        ),
        (
            "diffhpe_2d",
            {"sampler": {"name": "heun"}},
            "sampler.name: expected 'ddpm' or 'ddim', got",
        ),
        ("diffhpe_2d", {"sampler": {"last_steps": 5}}, "last_steps: expected 0 .all. to 4"),
        (
            "diffhpe_2d",
            {"sampler": {"name": "ddim", "num_steps": 3, "last_steps": 2}},
            "num_steps: expected 1 to 2",
        ),
        ("diffhpe_2d", {"sampler": {"eta": 1.5}}, r"sampler.eta: expected a value in \[0, 1\]"),
        ("diffhpe_2d", {"sampler": {"max_chains": -1}}, "max_chains: expected 0 or more, got -1"),
        ("diffhpe_2d", {"sampler": {"guidance": -1.0}}, "guidance: expected 0 or more, got -1.0"),
        ("diffhpe_2d", {"sampler": {"guidance": np.nan}}, "guidance: expected 0 or more, got nan"),
        ("diffhpe_2d", {"loss": {"unconditional": 1.0}}, r"expected a chance in \[0, 1\), got 1.0"),
        (
            "diffhpe_2d",
            {"loss": {"unconditional": 0.1}, "model": {"condition": "none"}},
            "unconditional: expected 0 with model.condition='none'",
        ),
        ("diffhpe_2d", {"loss": {"time_weight": 0.7, "side_weight": 0.6}}, "together at most 1"),
        ("diffhpe_2d", {"loss": {"side_weight": 0.1, "bones": "thin"}}, "bones: expected one of"),
        (
            "diffhpe_2d",
            {"loss": {"side_weight": 0.1}, "model": {"depth_only": True}},
            "side_weight: expected 0 with model.depth_only",
        ),
        ("diffhpe_2d", {"model": {"groups": ((0, 1),)}}, "groups: expected each of 17 joints once"),
        ("diffhpe_2d", {"model": {"grouping": "pairs"}}, "model.grouping: expected 'official' or"),
        ("diffhpe_2d", {"model": {"dropout": 1.0}}, "model.dropout: expected 0 <= dropout < 1"),
        ("diffhpe_2d", {"model": {"condition": "features"}}, "condition: expected 'keypoints' or"),
        ("diffhpe_wrapper", {"model": {"condition": "keypoints"}}, "expected 'features' or 'pose'"),
        ("diffhpe_2d", {"model": {"dropped_share": 0.0}}, "dropped_share: expected 0 < share <= 1"),
        ("diffhpe_2d", {"model": {"dropped_share": 0.5}}, "only keypoints can be dropped in part"),
        (
            "diffhpe_2d",
            {"process": {"schedule": "warped"}},
            "process.schedule: expected 'cosine' or",
        ),
        ("diffhpe_2d", {"process": {"clip": -1.0}}, "process.clip: expected 0 .none. or more"),
        ("diffhpe_2d", {"process": {"noise_std": (1.0, 2.0)}}, "noise_std: expected 51 numbers"),
        (
            "diffhpe_2d",
            {"process": {"noise_std": (0.0,) * 51}},
            "noise_std: expected numbers above",
        ),
        ("diffhpe_2d", {"skeleton": "mpi_inf_3dhp_17"}, "groups: published for .*not for skeleton"),
    ],
)
def test_configs_that_are_refused(name, sections, message):
    with pytest.raises(ValueError, match=message):
        make_system(make_config(name, **sections))


class TestBadInput:
    def check(self, message, *, sampler=(), batch=None, **options):
        system = build(sampler=dict(sampler))
        batch = make_batch(2, frames=FRAMES) if batch is None else batch
        with pytest.raises(ValueError, match=message):
            system.sample(jax.random.key(0), variables(), batch, num_hypotheses=1, **options)

    def test_frames_and_joints(self):
        self.check("batch.keypoints: expected windows of 3", batch=make_batch(2, frames=4))
        batch = make_batch(2, frames=FRAMES)
        batch = batch.replace(keypoints=batch.keypoints[:, :, :16])
        self.check(r"batch\.keypoints: expected \(\.\.\., 17, 2\)", batch=batch)

    def test_starting_pose(self):
        pose = make_batch(2, frames=FRAMES).pose
        self.check("together with sampler.last_steps, got one", starting_pose=pose)
        self.check("got none and last_steps=2", sampler={"last_steps": 2})
        self.check(
            r"starting_pose: expected \(2, 3, 17, 3\), got \(1, 3, 17, 3\)",
            sampler={"last_steps": 2},
            starting_pose=pose[:1],
        )
