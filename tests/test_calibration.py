"""Cameras from what users have, and what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax import calibration
from posediff_jax import camera as cameras

SIZE = np.array([1200.0, 900.0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


class TestMakeCamera:
    def test_fills_in_what_is_not_given(self) -> None:
        camera = calibration.make_camera(1100.0, (600.0, 450.0), (1200, 900))
        assert camera.focal.tolist() == [1100.0, 1100.0]
        assert camera.image_size.tolist() == [1200.0, 900.0]
        assert camera.radial.tolist() == [0.0, 0.0, 0.0]
        assert camera.tangential.tolist() == [0.0, 0.0]
        assert camera.orientation.tolist() == [1.0, 0.0, 0.0, 0.0]
        assert camera.position.tolist() == [0.0, 0.0, 0.0]

    def test_leaves_share_leading_axes(self, rng: np.random.Generator) -> None:
        camera = calibration.make_camera(rng.uniform(900, 1300, (4, 2, 2)), (600, 450), SIZE)
        assert {leaf.shape[:-1] for leaf in jax.tree.leaves(camera)} == {(4, 2)}

    def test_keeps_the_dtype_of_arrays(self) -> None:
        with jax.enable_x64(True):
            focal = np.array([1100.0, 1100.0], np.float32)
            single = calibration.make_camera(focal, (600, 450), (1200, 900))
            double = calibration.make_camera(1100.0, (600, 450), (1200, 900))
        assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {np.dtype(np.float32)}
        assert {leaf.dtype for leaf in jax.tree.leaves(double)} == {np.dtype(np.float64)}

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"focal": 0.0}, r"focal: expected positive pixels, got \[0.0, 0.0\]"),
            ({"focal": (1100.0, -1100.0)}, "focal: expected positive"),
            ({"focal": np.nan}, "focal: expected finite values"),
            ({"focal": (1.0, 1.0, 1.0)}, r"focal: expected \(\.\.\., 2\), got shape \(3,\)"),
            ({"center": (np.inf, 0.0)}, "center: expected finite values"),
            ({"image_size": (1200, 0)}, "image_size: expected positive"),
            ({"image_size": 1200}, r"image_size: expected \(\.\.\., 2\), got shape \(\)"),
            ({"radial": (0.1, 0.1)}, r"radial: expected \(\.\.\., 3\), got shape \(2,\)"),
            ({"tangential": (np.nan, 0.0)}, "tangential: expected finite values"),
            ({"orientation": (1.0, 0.1, 0, 0)}, r"orientation: expected a unit .* norm 1\.00"),
            ({"orientation": (0, 0, 0, 0)}, "orientation: expected a unit quaternion"),
            ({"position": (0, 0, np.nan)}, "position: expected finite values"),
            ({"focal": np.ones((3, 2)), "center": np.ones((2, 2))}, "leading axes do not broad"),
        ],
    )
    def test_refuses_bad_values(self, changed: dict[str, Any], message: str) -> None:
        given = {"focal": 1100.0, "center": (600, 450), "image_size": (1200, 900)} | changed
        with pytest.raises(ValueError, match=message):
            calibration.make_camera(**given)


class TestCameraFromMatrix:
    K = np.array([[1100.0, 0.0, 590.0], [0.0, 1090.0, 460.0], [0.0, 0.0, 1.0]])

    def test_reads_the_matrix(self) -> None:
        camera = calibration.camera_from_matrix(self.K, SIZE, position=(1.0, 2.0, 3.0))
        assert camera.focal.tolist() == [1100.0, 1090.0]
        assert camera.center.tolist() == [590.0, 460.0]
        assert camera.position.tolist() == [1.0, 2.0, 3.0]

    def test_reads_many(self) -> None:
        assert calibration.camera_from_matrix(np.stack([self.K] * 3), SIZE).focal.shape == (3, 2)

    @pytest.mark.parametrize(
        ("entry", "value", "message"),
        [
            ((0, 0), 0.0, "K: expected positive focal lengths"),
            ((1, 1), -1090.0, "a negative one flips the image"),
            ((0, 1), 3.0, r"K: expected no skew .* got \[3.0, 0.0\]"),
            ((1, 2), np.nan, "K: expected finite values"),
            ((2, 2), 2.0, "is the matrix transposed or not scaled"),
        ],
    )
    def test_refuses_other_forms(self, entry: tuple, value: float, message: str) -> None:
        K = self.K.copy()
        K[entry] = value
        with pytest.raises(ValueError, match=message):
            calibration.camera_from_matrix(K, SIZE)

    def test_refuses_transposed_and_misshaped(self) -> None:
        with pytest.raises(ValueError, match="is the matrix transposed"):
            calibration.camera_from_matrix(self.K.T, SIZE)
        with pytest.raises(ValueError, match=r"K: expected \(\.\.\., 3, 3\), got shape \(3, 4\)"):
            calibration.camera_from_matrix(np.ones((3, 4)), SIZE)


def test_default_camera_sees_53_degrees_along_the_longer_side() -> None:
    camera = calibration.default_camera((1200, 900))
    assert camera.center.tolist() == [600.0, 450.0]
    edge = cameras.rays(camera, jnp.array([1200.0, 450.0]))
    assert 2 * np.degrees(np.arctan(edge[0])) == pytest.approx(53.13, abs=0.01)
    with pytest.raises(ValueError, match="image_size: expected positive pixels"):
        calibration.default_camera((0, 0))
