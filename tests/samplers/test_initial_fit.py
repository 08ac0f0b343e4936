"""ZeDO's initial fit against known turns and distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.calibration import make_camera
from posediff_jax.camera import project
from posediff_jax.geometry import quaternion_to_matrix, rotation_about_axis
from posediff_jax.samplers.initial_fit import fit_initial_pose

RNG = np.random.default_rng(0)
CAMERA = make_camera([1100.0, 1150.0], [500.0, 480.0], [1000, 1000])
HIPS = (0, 1, 4)


def random_poses(count):
    """Poses of a person's size, root at the origin, no mirror images of themselves."""
    poses = RNG.normal(size=(count, 17, 3)) * [0.25, 0.45, 0.2]
    return (poses - poses[:, :1]).astype(np.float32)


class TestInitialFit:
    angles = np.array([0.4, -0.7, 0.1], np.float32)
    anchors = random_poses(3)
    truth = np.array([[0.3, -0.2, 4.0], [-0.5, 0.1, 3.0], [0.1, 0.4, 5.0]], np.float32)

    def scene(self, axis="z"):
        R = rotation_about_axis(axis, self.angles)
        turned = jnp.einsum("bij,bkj->bki", R, self.anchors)
        return turned, project(CAMERA, turned + self.truth[:, None])

    def fit(self, keypoints, **options):
        options = {"num_iterations": 150, "learning_rate": 0.05} | options
        return jax.jit(lambda k: fit_initial_pose(self.anchors, k, CAMERA, **options))(keypoints)

    @pytest.mark.parametrize("axis", ["z", "y"])
    def test_recovers_turn_and_distance(self, axis):
        turned, keypoints = self.scene(axis)
        fit = self.fit(keypoints, axes=axis, num_iterations=400)
        np.testing.assert_allclose(fit.pose, turned, atol=0.06)
        np.testing.assert_allclose(fit.translation, self.truth, atol=0.3)
        assert (fit.objective < fit.curve[:, 0] / 5).all()

    def test_says_what_it_did(self):
        """Pose, translation, objective and scale belong together."""
        _, keypoints = self.scene()
        fit = self.fit(keypoints, joints=HIPS, bounds=(0.9, 1.1), num_iterations=30)
        R = quaternion_to_matrix(fit.quaternion)
        np.testing.assert_allclose(fit.pose, jnp.einsum("bij,bkj->bki", R, self.anchors), atol=1e-6)
        distance = jnp.linalg.norm(fit.translation, axis=-1)
        np.testing.assert_allclose(distance, 3 * jnp.clip(fit.scale, 0.9, 1.1), rtol=1e-5)
        found = project(CAMERA, fit.pose + fit.translation[:, None])
        error = jnp.abs(found - keypoints)[:, np.array(HIPS)].mean(axis=(1, 2))
        np.testing.assert_allclose(fit.objective, error, rtol=1e-4)
        assert fit.curve.shape == (3, 30)

    def test_the_root_stays_on_its_ray(self):
        _, keypoints = self.scene()
        fit = self.fit(keypoints, num_iterations=20)
        np.testing.assert_allclose(project(CAMERA, fit.translation), keypoints[:, 0], atol=1e-2)

    def test_unnamed_axes_do_not_turn(self):
        _, keypoints = self.scene()
        quaternion = self.fit(keypoints, axes="y", num_iterations=20).quaternion
        np.testing.assert_array_equal(quaternion[:, np.array([1, 3])], 0)
        assert (jnp.abs(quaternion[:, 2]) > 0.01).all()

    def test_items_are_fitted_alone(self):
        _, keypoints = self.scene()
        together = self.fit(keypoints, num_iterations=10)
        options = {"num_iterations": 10, "learning_rate": 0.05}
        fit = jax.jit(lambda a, k: fit_initial_pose(a, k, CAMERA, **options))
        alone = [fit(a, k) for a, k in zip(self.anchors, keypoints, strict=True)]
        for field, value in together._asdict().items():
            stacked = jnp.stack([getattr(one, field) for one in alone])
            np.testing.assert_allclose(stacked, value, rtol=1e-4, atol=1e-4)

    def test_anchors_are_an_axis_of_hypotheses(self):
        _, keypoints = self.scene()
        fan = fit_initial_pose(self.anchors, keypoints[:, None], CAMERA, num_iterations=10)
        assert fan.pose.shape == (3, 3, 17, 3)
        one = fit_initial_pose(self.anchors[1], keypoints, CAMERA, num_iterations=10)
        np.testing.assert_allclose(fan.pose[:, 1], one.pose, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("joint", [0, 4])
    def test_a_missing_keypoint_flags_its_item_alone(self, joint):
        _, keypoints = self.scene()
        broken = np.array(keypoints)
        broken[1, joint] = np.nan
        fit, whole = (self.fit(k, joints=HIPS, num_iterations=10) for k in (broken, keypoints))
        assert np.isnan(fit.pose[1]).all()
        assert np.isnan(fit.translation[1]).all()
        np.testing.assert_array_equal(fit.pose[::2], whole.pose[::2])

    def test_a_missing_keypoint_that_does_not_count_changes_nothing(self):
        _, keypoints = self.scene()
        broken = np.array(keypoints)
        broken[:, 10] = np.nan
        fit, whole = (self.fit(k, joints=HIPS, num_iterations=10) for k in (broken, keypoints))
        np.testing.assert_array_equal(fit.pose, whole.pose)

    def test_keypoints_that_are_not_seen_are_left_out(self):
        _, keypoints = self.scene()
        wild, seen = np.array(keypoints), np.ones((3, 17), bool)
        wild[:, 4], seen[:, 4] = [np.nan, 1e9], False
        fit = self.fit(wild, joints=HIPS, seen=seen, num_iterations=20)
        without = self.fit(keypoints, joints=(0, 1), num_iterations=20)
        np.testing.assert_allclose(fit.pose, without.pose, atol=1e-5)
        np.testing.assert_allclose(fit.objective, without.objective, rtol=1e-4)

    @pytest.mark.parametrize(("axes", "left"), [("z", (0,)), ("z", (1, 4)), ("xyz", (0, 1))])
    def test_too_few_keypoints_flag_their_item_alone(self, axes, left):
        """A turn about one axis and a distance need one keypoint beside the root, more axes two."""
        _, keypoints = self.scene()
        seen = np.ones((3, 17), bool)
        seen[1] = np.isin(np.arange(17), left)
        options = {"joints": HIPS, "axes": axes, "num_iterations": 10}
        fit, whole = (self.fit(keypoints, seen=s, **options) for s in (seen, np.ones_like(seen)))
        for field in ("pose", "translation", "objective"):
            found, expected = getattr(fit, field), getattr(whole, field)
            assert np.isnan(found[1]).all()
            np.testing.assert_array_equal(found[::2], expected[::2])
        seen[1, :2] = seen[1, 4] = True
        assert np.isfinite(self.fit(keypoints, seen=seen, **options).pose).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seen": np.ones((3, 16), bool)}, r"seen: expected shape \(3, 17\), got \(3, 16\)"),
            ({"axes": "w"}, "axes: expected some of 'xyz', got 'w'"),
            ({"joints": (0,)}, "joints: expected at least one beside the root 0"),
            ({"joints": (1, 17)}, "joints, root: expected indices 0 to 16"),
            ({"depth": 0.0}, "depth: expected a distance above 0 m"),
            ({"bounds": (2.0, 0.5)}, "bounds: expected 0 <= low < high"),
            ({"num_iterations": 0}, "num_iterations: expected at least 1"),
        ],
    )
    def test_bad_options_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            fit_initial_pose(self.anchors, self.scene()[1], CAMERA, **options)

    def test_bad_shapes_are_named(self):
        with pytest.raises(ValueError, match="pose, keypoints: expected"):
            fit_initial_pose(self.anchors[:, :16], self.scene()[1], CAMERA)
