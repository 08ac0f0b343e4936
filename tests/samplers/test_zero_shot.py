"""ZeDO's loop against known poses, a hand-written loop and exact priors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.score_mlp import LABEL_SCALE, ScoreMLP
from posediff_jax.process.schedules import linear_schedule, posterior_mean, x0_from_eps
from posediff_jax.process.sdes import VP, SubVP
from posediff_jax.samplers.ray_geometry import solve_translation
from posediff_jax.samplers.zero_shot import (
    discrete_steps,
    optimise_poses,
    score_steps,
)

RNG = np.random.default_rng(0)


def random_poses(count):
    """Poses of a person's size, root at the origin, no mirror images of themselves."""
    poses = RNG.normal(size=(count, 17, 3)) * [0.25, 0.45, 0.2]
    return (poses - poses[:, :1]).astype(np.float32)


MEAN, STD = random_poses(1)[0], 0.1  # of the Gaussian that stands for the prior
TRUTH = np.array([[0.3, -0.2, 4.0], [-0.5, 0.1, 3.0], [0.1, 0.4, 5.0]], np.float32)


def gaussian_noise(x, t):
    """E[z | x_t] under N(MEAN, STD^2)."""
    signal, std = SubVP().rates(t)
    return std * (x - signal * MEAN) / ((signal * STD) ** 2 + std**2)


def rays_to(pose, translation):
    points = pose + translation[:, None]
    return points / points[..., 2:]


class LoopScene:
    truth = MEAN + 0.05 * RNG.normal(size=(3, 17, 3)).astype(np.float32)
    rays = rays_to(truth, TRUTH)
    start = random_poses(3) * 0.3 + MEAN
    T0 = TRUTH + np.float32(0.2)
    confidence = RNG.uniform(0.2, 1, (3, 17)).astype(np.float32)

    def run(self, n=20, start=None, T0=None, rays=None, **options):
        start, T0 = self.start if start is None else start, self.T0 if T0 is None else T0
        rays = self.rays if rays is None else rays
        options = {"steps": score_steps(num_iterations=n)} | options
        return jax.jit(lambda x, T, r: optimise_poses(gaussian_noise, x, T, r, **options))(
            start, T0, rays
        )


class TestLoop(LoopScene):
    def test_is_the_written_loop(self):
        """Against the published steps, one by one in float64 NumPy."""
        n, (x, T) = 10, (np.float64(self.start), np.float64(self.T0))
        rays, c = np.float64(self.rays), np.float64(self.confidence)
        unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        for i, t in enumerate(np.linspace(0.1, 0.01, n)):
            if i >= n // 5:
                with jax.enable_x64(True):
                    T = np.asarray(solve_translation(rays, x, confidence=c))
            world = x + T[:, None]
            x = (world * unit).sum(-1, keepdims=True) * unit - T[:, None]
            beta, signal = 0.1 + 19.9 * t, np.exp(-(t**2) * 19.9 / 4 - t * 0.1 / 2)
            std, g2 = 1 - signal**2, beta * (1 - signal**4)
            eps = std * (x - signal * MEAN) / ((signal * STD) ** 2 + std**2)
            x = x * (1 + beta / 2000) - g2 / (1000 * std) * eps
        with jax.enable_x64(True):
            ours = self.run(n, np.float64(self.start), self.T0, rays, confidence=c)
        np.testing.assert_allclose(ours.pose, x, atol=1e-6)
        np.testing.assert_allclose(ours.translation, T, atol=1e-6)

    def test_a_size_is_kept_and_no_pixel_moves(self):
        """Every pose before its last denoising has the size asked for, on its rays."""

        def resize(pose):
            return 1.5 / jnp.linalg.norm(pose[..., 10, :] - pose[..., 3, :], axis=-1)

        result = self.run(resize=resize, return_trajectory=True)
        on_rays, T = result.trajectory.projected, result.trajectory.translation
        length = np.linalg.norm(on_rays[..., 10, :] - on_rays[..., 3, :], axis=-1)
        np.testing.assert_allclose(length, 1.5, rtol=1e-4)
        points = on_rays + T[..., None, :]
        rays = np.broadcast_to(self.rays, points.shape)
        np.testing.assert_allclose(points / points[..., 2:], rays, atol=1e-4)
        one = self.run(resize=lambda pose: jnp.ones(pose.shape[:-2]))
        np.testing.assert_allclose(one.pose, self.run().pose, atol=1e-6)

    def test_finds_the_pose_between_prior_and_rays(self):
        before = np.linalg.norm(self.start - self.truth, axis=-1).mean()
        result = self.run(1000)
        after = jnp.linalg.norm(result.pose - self.truth, axis=-1).mean()
        assert after < before / 2
        # The drift of the reverse process makes poses larger, and so puts them further away.
        np.testing.assert_allclose(result.translation, TRUTH, atol=0.2, rtol=0.2)
        few = self.run(steps=score_steps(num_iterations=200, rescale_dt=True))
        np.testing.assert_allclose(few.pose, result.pose, atol=2e-3)

    def test_pipeline_is_deterministic_and_starts_matter(self):
        np.testing.assert_array_equal(self.run().pose, self.run().pose)
        other = self.run(start=self.start + 0.05).pose
        assert jnp.abs(other - self.run().pose).max() > 1e-3

    def test_hypotheses_are_an_axis(self):
        """(B, H, J, 3) with rays (B, 1, J, 3): each as if alone."""
        starts = np.stack([self.start, self.start[::-1]], axis=1)
        T0 = np.repeat(self.T0[:, None], 2, axis=1)
        c = self.confidence
        fan = self.run(start=starts, T0=T0, rays=self.rays[:, None], confidence=c[:, None])
        for h in range(2):
            one = self.run(start=starts[:, h], confidence=c)
            np.testing.assert_allclose(fan.pose[:, h], one.pose, atol=1e-4)
            np.testing.assert_allclose(fan.translation[:, h], one.translation, atol=1e-3)

    def test_chunks_and_vmap_change_nothing(self):
        together = self.run()
        alone = [
            self.run(start=s, T0=T, rays=r)
            for s, T, r in zip(
                self.start[:, None], self.T0[:, None], self.rays[:, None], strict=True
            )
        ]
        np.testing.assert_allclose(
            jnp.concatenate([one.pose for one in alone]), together.pose, atol=1e-4
        )
        steps = score_steps(num_iterations=20)
        mapped = jax.vmap(
            lambda x, T, r: optimise_poses(gaussian_noise, x, T, r, steps=steps).pose
        )(self.start, self.T0, self.rays)
        np.testing.assert_allclose(mapped, together.pose, atol=1e-4)

    def test_trajectory(self):
        result = self.run(10, return_trajectory=True)
        way = result.trajectory
        assert way.pose.shape == (10, 3, 17, 3)
        np.testing.assert_array_equal(way.pose[-1], result.pose)
        np.testing.assert_array_equal(way.translation[:2], jnp.stack([self.T0] * 2))
        np.testing.assert_allclose(
            way.translation[5], solve_translation(self.rays, way.pose[4]), atol=1e-4
        )
        projected = way.projected + way.translation[:, :, None]
        np.testing.assert_allclose(
            projected / projected[..., 2:], jnp.broadcast_to(self.rays, projected.shape), atol=1e-5
        )
        assert self.run(10).trajectory is None

    def test_warmup(self):
        np.testing.assert_array_equal(self.run(10, warmup=10).translation, self.T0)
        default, named = self.run(10), self.run(10, warmup=2)
        np.testing.assert_array_equal(default.pose, named.pose)
        first = self.run(10, warmup=0, return_trajectory=True).trajectory.translation[0]
        np.testing.assert_allclose(first, solve_translation(self.rays, self.start), atol=1e-4)

    def test_noise(self):
        z = RNG.normal(size=(20, 3, 17, 3)).astype(np.float32)
        quiet, noisy = self.run(), self.run(noise=z)
        assert jnp.abs(noisy.pose - quiet.pose).max() > 1e-3
        np.testing.assert_allclose(self.run(noise=0 * z).pose, quiet.pose, atol=1e-5)
        one, two = (self.run(noise_key=jax.random.key(seed)).pose for seed in (0, 1))
        assert jnp.abs(one - two).max() > 1e-3

    def test_time_is_embedded_outside_the_loop(self):
        """The scan's body holds the products of pose layers, and those of their norms, only."""
        model = ScoreMLP(17, width=32, embedding=8, num_blocks=2, groups=4)
        variables = model.init(jax.random.key(0), self.start, jnp.zeros(3))
        steps = score_steps(num_iterations=20)

        def run(x, T, rays):
            features = model.apply(variables, LABEL_SCALE * steps.time, method="embed_time")
            return optimise_poses(
                lambda pose, shift: model.apply(variables, pose, shift, method="denoise"),
                *(x, T, rays),
                steps=steps,
                features=features,
            ).pose

        jaxpr = jax.make_jaxpr(run)(self.start, self.T0, self.rays)
        (scan,) = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
        assert str(scan.params["jaxpr"]).count("dot_general[") == 5 + 1 + 5 * 2

        def told(pose, t):
            return model.apply(variables, pose, t)

        slow = optimise_poses(told, self.start, self.T0, self.rays, steps=steps).pose
        np.testing.assert_allclose(run(self.start, self.T0, self.rays), slow, atol=1e-4)

    def test_gradients_flow(self):
        steps = score_steps(num_iterations=5)

        def loss(x):
            return jnp.sum(optimise_poses(gaussian_noise, x, self.T0, self.rays, steps=steps).pose)

        gradient = jax.grad(loss)(jnp.asarray(self.start))
        assert np.isfinite(gradient).all()
        assert jnp.abs(gradient).max() > 0


class TestLoopBadInput(LoopScene):
    """Items that cannot be solved are flagged, and the others are as without them."""

    @pytest.mark.parametrize("case", ["all missing", "one joint", "coincident", "all NaN"])
    def test_a_hopeless_frame_is_flagged_alone(self, case):
        c, rays = self.confidence.copy(), self.rays.copy()
        if case == "coincident":
            rays[1] = [0.1, 0.2, 1.0]
        elif case == "all NaN":
            rays[1] = np.nan
        else:
            c[1] = 0
            c[1, 3] = float(case == "one joint")
        result, whole = self.run(rays=rays, confidence=c), self.run(confidence=self.confidence)
        assert np.isnan(result.pose[1]).all()
        assert np.isnan(result.translation[1]).all()
        np.testing.assert_array_equal(result.pose[::2], whole.pose[::2])

    def test_a_missing_joint_moves_by_the_prior(self):
        rays = self.rays.copy()
        rays[1, 13] = np.nan
        result = self.run(rays=rays)
        assert np.isfinite(result.pose).all()
        np.testing.assert_allclose(result.pose[1, :13], self.run().pose[1, :13], atol=0.02)

    def test_a_joint_of_no_confidence_is_missing_wherever_its_keypoint_lies(self):
        c, rays = self.confidence.copy(), self.rays.copy()
        c[1, 13], rays[1, 13] = 0, [-0.6, -0.6, 1.0]
        result = self.run(rays=rays, confidence=c)
        rays[1, 13] = np.nan
        np.testing.assert_array_equal(result.pose, self.run(rays=rays, confidence=c).pose)

    def test_the_trajectory_of_a_hopeless_frame_is_flagged_too(self):
        c = self.confidence.copy()
        c[1] = 0
        trajectory = self.run(confidence=c, return_trajectory=True).trajectory
        for states in (trajectory.pose, trajectory.translation, trajectory.projected):
            assert np.isnan(states[:, 1]).all()
            assert np.isfinite(states[:, ::2]).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"T0": np.ones((3, 1, 3), np.float32)}, r"translation: expected shape \(3, 3\)"),
            ({"rays": np.ones((3, 16, 3), np.float32)}, "camera_rays, pose: expected the same"),
            ({"confidence": np.ones((3, 16))}, "weights: expected"),
            ({"warmup": -1}, "warmup: expected 0 to 20 iterations, got -1"),
            ({"noise": np.ones((3, 3, 17, 3))}, r"noise: expected shape \(20, 3, 17, 3\)"),
            (
                {"noise": np.ones((20, 3, 17, 3)), "noise_key": jax.random.key(0)},
                "noise, noise_key: expected at most one",
            ),
        ],
    )
    def test_bad_arguments_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.run(**options)


class TestSteps:
    def test_published_coefficients(self):
        with jax.enable_x64(True):
            n = 10
            steps = score_steps(num_iterations=n)
            np.testing.assert_allclose(steps.estimate[:: n - 1], [0.003963, 0.00059740], rtol=1e-4)
            for n, total in ((1000, 2.325), (100, 0.2324), (20, 0.0464)):
                estimate = score_steps(num_iterations=n).estimate
                np.testing.assert_allclose(estimate.sum(), total, rtol=2e-3)
            np.testing.assert_allclose(jnp.prod(score_steps().state), 1.817, rtol=5e-4)

    def test_rescaled_steps_denoise_as_much(self):
        few = score_steps(num_iterations=200, rescale_dt=True)
        np.testing.assert_allclose(few.estimate.sum(), score_steps().estimate.sum(), rtol=1e-3)
        np.testing.assert_allclose(jnp.prod(few.state), jnp.prod(score_steps().state), rtol=2e-3)

    def test_factor_of_the_score(self):
        half, full = (score_steps(VP(), score_factor=f) for f in (0.5, 1.0))
        np.testing.assert_allclose(2 * half.estimate, full.estimate)
        np.testing.assert_array_equal(half.state, full.state)

    @pytest.mark.parametrize("eta", [0.0, 1.0])
    def test_discrete_steps_are_ddim_and_ddpm(self, eta):
        schedule = linear_schedule(1000, dtype=np.float64)
        with jax.enable_x64(True):
            steps = discrete_steps(schedule, num_iterations=25, eta=eta)
            x, eps = jnp.asarray(RNG.normal(size=(2, 25, 4)))
            x0 = x0_from_eps(schedule, x, steps.time, eps)
            ours = steps.state[:, None] * x - steps.estimate[:, None] * eps
            after = schedule.alphas_cumprod[np.asarray(steps.time) - 1][:, None]
            if eta:
                expected = posterior_mean(schedule, x0, x, steps.time)
                sigma = np.sqrt(schedule.posterior_variance[np.asarray(steps.time)])
                np.testing.assert_allclose(steps.noise, sigma, rtol=1e-9)
            else:
                expected = np.sqrt(after) * x0 + np.sqrt(1 - after) * eps
                np.testing.assert_array_equal(steps.noise, 0)
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)
        assert steps.time[0] == 99
        assert steps.time[-1] == 1

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: score_steps(num_iterations=0), "num_iterations: expected at least 1"),
            (lambda: score_steps(t_range=(0.1, 0.0)), "t_range: expected two times"),
            (lambda: discrete_steps(linear_schedule(100), num_iterations=0), "num_iterations"),
            (lambda: discrete_steps(linear_schedule(100), share=0.01), "share: expected at most 1"),
            (lambda: discrete_steps(linear_schedule(100), eta=2.0), r"eta: expected a value in"),
        ],
    )
    def test_bad_options_are_named(self, build, message):
        with pytest.raises(ValueError, match=message):
            build()
