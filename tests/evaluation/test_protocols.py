"""Evaluation protocols against plain loops, and what they quietly use."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax import calibration
from posediff_jax import camera as cameras
from posediff_jax.evaluation import metrics, protocols

SIZE = (1000.0, 1002.0)
FOCAL, CENTER = (1145.0, 1143.5), (512.5, 515.4)


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


class TestDiffuposeOfficial:
    def truth(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Root-relative poses, their root depth, and exact keypoints in pixels."""
        pose = 0.4 * rng.normal(size=(2, 3, 17, 3))
        pose[..., 0, :] = 0.0
        root = np.array([0.3, -0.2, 5.0]) + 0.1 * rng.normal(size=(2, 3, 1, 3))
        points = pose + root
        pixels = points[..., :2] / points[..., 2:] * FOCAL + CENTER
        return pose, root[..., 0, 2], pixels

    @pytest.fixture
    def intrinsics(self) -> jax.Array:
        # A lens on purpose: the protocol ignores it.
        camera = calibration.make_camera(FOCAL, CENTER, SIZE, radial=(-0.2, 0.2, 0.0))
        return cameras.intrinsics_vector(camera)

    def test_equals_a_loop_in_pixels(self, rng: np.random.Generator, intrinsics: jax.Array) -> None:
        _, depth, pixels = self.truth(rng)
        predicted = rng.normal(size=(2, 3, 17, 3))
        found = protocols.diffupose_official(
            predicted, cameras.to_screen(pixels, SIZE), depth, intrinsics
        )
        for item in np.ndindex(2, 3):
            z = depth[item] + np.append(0.0, predicted[(*item, slice(1, None), 2)])
            xy = (pixels[item] - CENTER) / FOCAL * z[:, None]
            np.testing.assert_allclose(found[item][:, :2], xy - xy[0], atol=1e-12)
            np.testing.assert_array_equal(found[item][:, 2], predicted[item][:, 2])

    def test_nothing_but_depth_is_left_of_the_prediction(
        self, rng: np.random.Generator, intrinsics: jax.Array
    ) -> None:
        # With true depths the result is perfect, however wrong the predicted x and y are.
        pose, depth, pixels = self.truth(rng)
        predicted = pose.copy()
        predicted[..., :2] += rng.normal(size=(2, 3, 17, 2))
        found = protocols.diffupose_official(
            predicted, cameras.to_screen(pixels, SIZE), depth, intrinsics
        )
        assert float(metrics.mpjpe(predicted, pose).mean()) > 0.5
        np.testing.assert_allclose(found, pose, atol=1e-12)

    def test_one_camera_per_clip(self, rng: np.random.Generator, intrinsics: jax.Array) -> None:
        _, depth, pixels = self.truth(rng)
        predicted, screen = rng.normal(size=(2, 3, 17, 3)), cameras.to_screen(pixels, SIZE)
        vectors = jnp.stack([intrinsics, 1.1 * intrinsics])
        found = protocols.diffupose_official(predicted, screen, depth, vectors)
        for clip in range(2):
            expected = protocols.diffupose_official(
                predicted[clip], screen[clip], depth[clip], vectors[clip]
            )
            np.testing.assert_allclose(found[clip], expected, atol=1e-12)

    def test_refuses_shapes_that_do_not_fit(self, intrinsics: jax.Array) -> None:
        predicted, screen, depth = jnp.zeros((2, 17, 3)), jnp.zeros((2, 17, 2)), jnp.ones(2)
        with pytest.raises(ValueError, match=r"keypoints_screen: .*got shape \(2, 16, 2\)"):
            protocols.diffupose_official(predicted, screen[:, :16], depth, intrinsics)
        with pytest.raises(ValueError, match=r"root_depth: expected \(2,\), got shape \(2, 17\)"):
            protocols.diffupose_official(predicted, screen, jnp.ones((2, 17)), intrinsics)
        with pytest.raises(ValueError, match=r"vector: expected \(\.\.\., 9\), got shape \(4,\)"):
            protocols.diffupose_official(predicted, screen, depth, intrinsics[:4])


class TestNMpjpePerAxis:
    def test_equals_a_loop_over_axes(self, rng: np.random.Generator) -> None:
        predicted, target = rng.normal(size=(2, 17, 3))
        scaled = np.stack(
            [p * (p @ y) / (p @ p) for p, y in zip(predicted.T, target.T, strict=True)], axis=-1
        )
        expected = np.linalg.norm(scaled - target, axis=-1).mean()
        np.testing.assert_allclose(protocols.n_mpjpe_per_axis(predicted, target), expected)

    def test_forgives_a_stretched_pose_that_n_mpjpe_does_not(
        self, rng: np.random.Generator
    ) -> None:
        target = rng.normal(size=(4, 17, 3))
        stretched = target * [1.0, 0.5, 2.0]
        per_axis = protocols.n_mpjpe_per_axis(stretched, target)
        np.testing.assert_allclose(per_axis, 0.0, atol=1e-12)
        assert (metrics.n_mpjpe(stretched, target) > 0.1).all()


class TestActionMeans:
    def test_equals_a_loop(self, rng: np.random.Generator) -> None:
        values, actions = rng.uniform(size=40), rng.integers(3, 9, 40)
        found = protocols.action_means(values, actions)
        expected = [values[actions == a].mean() for a in sorted(set(actions))]
        np.testing.assert_allclose(found.means, expected)
        assert found.actions.tolist() == sorted(set(actions))
        assert found.counts.sum() == 40
        assert found.mean == pytest.approx(np.mean(expected))
        assert abs(found.mean - values.mean()) > 1e-4  # frames do not weigh alike over actions

    def test_frames_weigh_alike_inside_an_action(self) -> None:
        # Two clips of one action, 1 and 3 real frames; the padding holds NaN.
        values = [[8.0, np.nan, np.nan], [0.0, 0.0, 4.0]]
        found = protocols.action_means(values, [5, 5], mask=[[1, 0, 0], [1, 1, 1]])
        assert found.means.tolist() == [3.0]
        assert found.counts.tolist() == [4.0]

    def test_takes_float32_without_losing_digits(self) -> None:
        values = np.full(300_000, 0.1, np.float32)
        found = protocols.action_means(values, np.zeros(len(values), int))
        assert found.mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)

    def test_a_real_nan_stays_visible(self) -> None:
        assert np.isnan(protocols.action_means([1.0, np.nan], [0, 0]).mean)

    def test_leaves_out_actions_without_frames(self) -> None:
        found = protocols.action_means([1.0, 2.0], [0, 1], mask=[1, 0])
        assert found.actions.tolist() == [0]
        assert found.mean == 1.0

    def test_refuses_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"actions: expected one per item .* got shape \(2,\)"):
            protocols.action_means([1.0, 2.0, 3.0], [0, 1])
        with pytest.raises(ValueError, match=r"mask: expected the shape of values \(2,\)"):
            protocols.action_means([1.0, 2.0], [0, 1], mask=[[1, 1]])
        with pytest.raises(ValueError, match="values: expected at least one unmasked frame"):
            protocols.action_means([1.0], [0], mask=[0])
        with pytest.raises(ValueError, match="values: expected at least one unmasked frame"):
            protocols.action_means([], [])


def test_what_uses_ground_truth_says_so() -> None:
    assert "root trajectory" in protocols.NEEDS["diffupose_official"][1]
    assert "GROUND TRUTH" in (protocols.diffupose_official.__doc__ or "")
    assert set(protocols.NEEDS) == {"diffupose_official", "n_mpjpe_per_axis", "action_means"}
