"""One pose from many, against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.calibration import make_camera
from posediff_jax.camera import project
from posediff_jax.samplers import aggregate
from posediff_jax.samplers.aggregate import (
    joint_spread,
    mean_pose,
    medoid_pose,
    reprojection_pose,
    take_joints,
)

HYPOTHESES = jax.random.normal(jax.random.key(0), (2, 5, 3, 17, 3))  # (B, H, F, J, 3)


def test_mean_pose_averages_hypotheses():
    np.testing.assert_allclose(
        mean_pose(HYPOTHESES), np.asarray(HYPOTHESES, np.float64).mean(axis=1), atol=1e-6
    )


def test_medoid_is_the_hypothesis_nearest_to_the_others():
    pose, index = medoid_pose(HYPOTHESES)
    x = np.asarray(HYPOTHESES, np.float64)
    for b in range(2):
        for f in range(3):
            cost = [
                sum(np.linalg.norm(x[b, h, f] - x[b, g, f], axis=-1).mean() for g in range(5))
                for h in range(5)
            ]
            assert index[b, f] == np.argmin(cost)
            np.testing.assert_array_equal(pose[b, f], HYPOTHESES[b, index[b, f], f])


def test_an_outlier_moves_the_mean_but_not_the_medoid():
    poses = jnp.zeros((1, 4, 1, 17, 3)).at[0, 3].set(100.0)
    assert jnp.abs(mean_pose(poses)).max() == 25
    assert jnp.abs(medoid_pose(poses)[0]).max() == 0


@pytest.mark.parametrize("broken", [0, 2])
def test_a_hypothesis_that_is_no_number_is_passed_over(broken):
    poses = HYPOTHESES.at[:, broken].set(jnp.nan)
    others = [h for h in range(5) if h != broken]
    expected, index = medoid_pose(HYPOTHESES[:, np.array(others)])
    pose, found = medoid_pose(poses)
    np.testing.assert_array_equal(pose, expected)
    np.testing.assert_array_equal(found, np.array(others)[index])


def test_spread_is_the_root_mean_square_distance_to_the_mean():
    x = np.asarray(HYPOTHESES, np.float64)
    distance = np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=-1)
    np.testing.assert_allclose(
        joint_spread(HYPOTHESES), np.sqrt((distance**2).mean(axis=1)), rtol=1e-5
    )
    assert joint_spread(HYPOTHESES[:, :1]).max() == 0
    # Also where all are equal its gradient is a number.
    slope = jax.grad(lambda x: joint_spread(x, axis=0).sum())(jnp.ones((4, 17, 3)))
    np.testing.assert_array_equal(slope, 0)


class TestReprojection:
    """Two clips with a camera each, a person about 4 m away, hypotheses around the truth."""

    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.4, (2, 3, 17, 3))
    truth[..., 0, :] = 0
    hypotheses = truth[:, None] + rng.normal(0, 0.05, (2, 5, 3, 17, 3))
    root = np.array([0.2, -0.1, 4.0]) + rng.normal(0, 0.1, (2, 3, 3))
    focal, center = np.array([[1100.0, 1150.0], [900.0, 880.0]]), np.array([[510, 490], [640, 360]])
    camera = make_camera(focal, center, (1000, 1000))
    distorted = make_camera(
        focal, center, (1000, 1000), radial=(-0.2, 0.24, 0.0), tangential=(1e-3, -2e-3)
    )

    def seen(self, points, clip):
        """Pinhole projection written out, `(..., 3)` to `(..., 2)`."""
        return self.focal[clip] * points[..., :2] / points[..., 2:] + self.center[clip]

    def keypoints(self):
        points = self.truth + self.root[:, :, None]
        return np.stack([self.seen(points[b], b) for b in range(2)])

    def run(self, keypoints=None, camera=None, hypotheses=None, **options):
        keypoints = self.keypoints() if keypoints is None else keypoints
        with jax.enable_x64(True):
            given = self.hypotheses if hypotheses is None else hypotheses
            chosen = reprojection_pose(given, keypoints, camera or self.camera, **options)
        return tuple(map(np.asarray, chosen))

    def test_takes_each_joint_from_the_nearest_projection(self):
        pose, index = self.run(root=self.root)
        keypoints = self.keypoints()
        for b, f, j in np.ndindex(2, 3, 17):
            points = self.hypotheses[b, :, f, j] + self.root[b, f]
            distance = np.linalg.norm(self.seen(points, b) - keypoints[b, f, j], axis=-1)
            assert index[b, f, j] == np.argmin(distance)
            np.testing.assert_array_equal(pose[b, f, j], self.hypotheses[b, index[b, f, j], f, j])

    def test_a_hypothesis_that_is_the_truth_wins_wherever_it_stands(self):
        """With the true root exactly; with the estimated one nearly always."""
        hypotheses = np.array(self.hypotheses)
        hypotheses[:, 3] = self.truth
        _, index = self.run(hypotheses=hypotheses, root=self.root)
        assert np.all(index[..., 1:] == 3)  # the root joint is the origin in two hypotheses or more
        pose, _ = self.run(hypotheses=hypotheses)
        error = np.linalg.norm(pose - self.truth, axis=-1).mean()
        assert error < 0.5 * np.linalg.norm(mean_pose(hypotheses) - self.truth, axis=-1).mean()

    def test_the_estimated_root_is_that_of_the_mean_pose(self):
        """Keypoints of the mean pose itself, seen through a lens: its root is found again."""
        mean = self.hypotheses.mean(axis=1)
        with jax.enable_x64(True):
            keypoints = project(self.distorted, mean + self.root[:, :, None])
        estimated = self.run(keypoints, self.distorted)[1]
        np.testing.assert_array_equal(
            estimated, self.run(keypoints, self.distorted, root=self.root)[1]
        )

    def test_more_axes_before_the_hypotheses(self):
        """Stored iterations, (B, W, H, F, J, 3): each is chosen from on its own."""
        stored = np.stack([self.hypotheses, self.hypotheses[:, ::-1]], axis=1)
        both = np.stack([self.keypoints()] * 2, axis=1)
        pose, index = self.run(both, hypotheses=stored, axis=2)
        assert pose.shape == (2, 2, 3, 17, 3)
        first = self.run()
        np.testing.assert_array_equal(index[:, 0], first[1])
        np.testing.assert_array_equal(pose[:, 1], first[0])

    def test_a_missing_joint_follows_the_others(self):
        keypoints = self.keypoints()
        keypoints[:, :, 5] = np.nan
        confidence = np.ones(keypoints.shape[:-1])
        confidence[:, :, 5] = 0
        hypotheses = np.array(self.hypotheses)
        hypotheses[:, 2] = self.truth
        _, index = self.run(keypoints, hypotheses=hypotheses, root=self.root, confidence=confidence)
        assert np.all(index[:, :, 5] == 2)
        pose, _ = self.run(keypoints, confidence=confidence)
        assert np.isfinite(pose).all()

    def test_nothing_behind_the_camera_is_chosen(self):
        """The mirror image of a point in the camera's centre has the same projection."""
        hypotheses = np.array(self.hypotheses)
        hypotheses[:, 0] = -self.truth - 2 * self.root[:, :, None]
        assert np.all(self.run(hypotheses=hypotheses, root=self.root)[1] > 0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"camera": None}, "camera: J-Agg compares .* needs a camera, got None"),
            ({"keypoints_px": np.zeros((2, 3, 16, 2))}, r"keypoints_px: expected \(2, 3, 17, 2\)"),
            ({"root": np.zeros((2, 3, 17, 3))}, r"root: expected \(2, 3, 3\)"),
            ({"confidence": np.ones((2, 3))}, r"confidence: expected \(2, 3, 17\)"),
            ({"axis": 3}, "hypotheses: expected some on axis 3"),
            ({"hypotheses": np.zeros((2, 0, 3, 17, 3))}, "hypotheses: expected some on axis 1"),
            ({"hypotheses": np.zeros((2, 5, 3, 17, 2))}, r"hypotheses: expected \(\.\.\., 3\)"),
        ],
    )
    def test_bad_input_is_named(self, changes, message):
        given = {
            "hypotheses": self.hypotheses,
            "keypoints_px": self.keypoints(),
            "camera": self.camera,
        }
        with pytest.raises(ValueError, match=message):
            reprojection_pose(**{**given, **changes})


def test_take_joints_refuses_an_index_per_pose():
    with pytest.raises(ValueError, match=r"index: expected \(2, 3, 17\)"):
        take_joints(HYPOTHESES, np.zeros((2, 3), int))


def test_every_rule_says_what_it_needs():
    assert all(callable(getattr(aggregate, rule)) for rule in aggregate.NEEDS)
    assert "camera" in aggregate.NEEDS["reprojection_pose"]
    assert not any("ground truth" in need for needs in aggregate.NEEDS.values() for need in needs)
