"""The camera against NumPy and SciPy, and its round trips."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posediff_jax import calibration
from posediff_jax import camera as cameras
from posediff_jax.geometry import flip
from posediff_jax.skeleton import H36M_17
from posediff_jax.types import Camera

SIZE = np.array([1200.0, 900.0])
# Compiled as users would: far quicker than one operation at a time.
project = jax.jit(cameras.project, static_argnames=("distort", "clamp"))
cast_rays = jax.jit(cameras.rays, static_argnames="undistort_iterations")
fit_translation = jax.jit(cameras.fit_translation)
K = np.array([[1100.0, 0.0, 590.0], [0.0, 1090.0, 460.0], [0.0, 0.0, 1.0]])
LENS: dict[str, Any] = {"radial": (-0.2, 0.25, -0.002), "tangential": (-0.0009, 0.0016)}


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def make(rng: np.random.Generator, lead: tuple[int, ...] = (), **options: Any) -> Camera:
    """Cameras that differ in every number, with a lens unless told otherwise."""
    orientation = Rotation.random(int(np.prod(lead)), rng=rng).as_quat(scalar_first=True)
    return calibration.make_camera(
        rng.uniform(900, 1300, (*lead, 2)),
        rng.uniform(400, 700, (*lead, 2)),
        SIZE,
        orientation=orientation.reshape(*lead, 4),
        position=rng.normal(size=(*lead, 3)),
        **(LENS | options),
    )


def in_view(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Points 3 to 6 m in front of the camera, within its view."""
    z = rng.uniform(3.0, 6.0, (*shape, 1))
    return np.concatenate([rng.uniform(-0.4, 0.4, (*shape, 2)) * z, z], axis=-1)


class TestScreenUnits:
    def test_corners_and_centre(self) -> None:
        pixels = jnp.array([[0.0, 0.0], [1200.0, 900.0], [600.0, 450.0]])
        expected = [[-1.0, -0.75], [1.0, 0.75], [0.0, 0.0]]
        np.testing.assert_allclose(cameras.to_screen(pixels, (1200, 900)), expected)
        np.testing.assert_allclose(cameras.to_pixels(jnp.array(expected), (1200, 900)), pixels)

    def test_one_size_per_clip(self, rng: np.random.Generator) -> None:
        pixels = rng.uniform(0, 900, (2, 5, 17, 2)).astype(np.float32)
        sizes = np.array([[1000.0, 1002.0], [640.0, 480.0]], np.float32)
        expected = np.stack(
            [2 * p / w - [1, h / w] for p, (w, h) in zip(pixels, sizes, strict=True)]
        )
        screen = cameras.to_screen(pixels, sizes)
        np.testing.assert_allclose(screen, expected, atol=1e-6)
        np.testing.assert_allclose(cameras.to_pixels(screen, sizes), pixels, rtol=1e-5)

    def test_refuses_wrong_axes(self) -> None:
        with pytest.raises(
            ValueError, match=r"pixels: expected \(\.\.\., 2\), got shape \(17, 3\)"
        ):
            cameras.to_screen(jnp.zeros((17, 3)), (1200, 900))
        with pytest.raises(ValueError, match="image_size: expected leading axes"):
            cameras.to_pixels(jnp.zeros((2, 17, 2)), np.ones((3, 2)))


@pytest.mark.usefixtures("x64")
class TestWorldAxes:
    def test_equal_scipy(self, rng: np.random.Generator) -> None:
        camera, world = make(rng), rng.normal(size=(4, 17, 3))
        rotation = Rotation.from_quat(np.asarray(camera.orientation), scalar_first=True)
        expected = rotation.inv().apply((world - np.asarray(camera.position)).reshape(-1, 3))
        seen = cameras.world_to_camera(camera, world)
        np.testing.assert_allclose(seen.reshape(-1, 3), expected, atol=1e-12)
        np.testing.assert_allclose(cameras.camera_to_world(camera, seen), world, atol=1e-12)


def project_point(camera: Camera, point: np.ndarray) -> list[float]:
    """The lens model of Human3.6M for one point, written with scalars."""
    k1, k2, k3 = map(float, camera.radial)
    p1, p2 = map(float, camera.tangential)
    x, y = point[0] / point[2], point[1] / point[2]
    r2 = x**2 + y**2
    factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + (p1 * x + p2 * y)
    return [
        float(camera.focal[0]) * (x * factor + p1 * r2) + float(camera.center[0]),
        float(camera.focal[1]) * (y * factor + p2 * r2) + float(camera.center[1]),
    ]


@pytest.mark.usefixtures("x64")
class TestProject:
    def test_without_distortion_is_the_intrinsic_matrix(self, rng: np.random.Generator) -> None:
        points = in_view(rng, (5, 17))
        camera = calibration.camera_from_matrix(K, SIZE, **LENS)
        homogeneous = points @ K.T
        np.testing.assert_allclose(
            project(camera, points, distort=False),
            homogeneous[..., :2] / homogeneous[..., 2:],
            rtol=1e-12,
        )

    def test_distortion_equals_the_scalar_formula(self, rng: np.random.Generator) -> None:
        camera, points = make(rng), in_view(rng, (9,))
        expected = [project_point(camera, p) for p in points]
        np.testing.assert_allclose(project(camera, points), expected, rtol=1e-12)

    def test_clamp_cuts_wide_points(self, rng: np.random.Generator) -> None:
        camera = make(rng)
        wide, cut = jnp.array([[6.0, -1.0, 2.0]]), jnp.array([[2.0, -1.0, 2.0]])
        np.testing.assert_allclose(
            project(camera, wide, clamp=1.0), project(camera, cut), rtol=1e-12
        )
        assert abs(project(camera, wide) - project(camera, cut)).max() > 100

    def test_one_camera_per_clip_serves_hypotheses(self, rng: np.random.Generator) -> None:
        camera, points = make(rng, (2,)), in_view(rng, (2, 3, 4, 17))
        expected = [
            project(jax.tree.map(lambda leaf, i=i: leaf[i], camera), points[i]) for i in range(2)
        ]
        np.testing.assert_allclose(project(camera, points), expected, rtol=1e-12)
        np.testing.assert_allclose(jax.vmap(project)(camera, points), expected, rtol=1e-12)

    def test_refuses_cameras_that_do_not_match(self, rng: np.random.Generator) -> None:
        with pytest.raises(ValueError, match=r"camera: .*\(2, 5, 17, .\), got shape \(3, .\)"):
            project(make(rng, (3,)), jnp.ones((2, 5, 17, 3)))
        with pytest.raises(
            ValueError, match=r"points: expected \(\.\.\., 3\), got shape \(17, 2\)"
        ):
            project(make(rng), jnp.ones((17, 2)))


@pytest.mark.usefixtures("x64")
class TestRays:
    def test_without_distortion_are_the_inverse_matrix(self, rng: np.random.Generator) -> None:
        pixels = rng.uniform(0, 900, (5, 17, 2))
        homogeneous = np.concatenate([pixels, np.ones((5, 17, 1))], axis=-1)
        np.testing.assert_allclose(
            cast_rays(calibration.camera_from_matrix(K, SIZE), pixels),
            homogeneous @ np.linalg.inv(K).T,
            rtol=1e-12,
        )

    def test_undistortion_inverts_project(self, rng: np.random.Generator) -> None:
        camera, points = make(rng, (2,)), in_view(rng, (2, 5, 17))
        pixels, expected = project(camera, points), points / points[..., 2:]
        errors = [
            float(abs(cast_rays(camera, pixels, undistort_iterations=n) - expected).max())
            for n in (0, 2, 5, 20)
        ]
        assert errors[0] > 1e-3
        assert errors[1] < errors[0] / 10
        assert errors[2] < errors[1] / 10
        assert errors[3] < 1e-12

    def test_backproject_inverts_project(self, rng: np.random.Generator) -> None:
        camera, points = make(rng, (2,)), in_view(rng, (2, 5, 17))
        pixels = project(camera, points)
        found = cameras.backproject(camera, pixels, points[..., 2], undistort_iterations=20)
        np.testing.assert_allclose(found, points, atol=1e-11)

    def test_one_depth_per_pose(self, rng: np.random.Generator) -> None:
        camera, pixels = make(rng), rng.uniform(0, 900, (2, 5, 17, 2))
        depth = rng.uniform(3, 6, (2, 5))
        found = cameras.backproject(camera, pixels, depth)
        np.testing.assert_allclose(found[..., 2], np.tile(depth[..., None], 17), rtol=1e-12)

    def test_undistortion_has_gradients(self, rng: np.random.Generator) -> None:
        camera, point = make(rng), in_view(rng, ())

        def there_and_back(xy: jax.Array) -> jax.Array:
            pixel = project(camera, jnp.append(xy, 1.0))
            return cast_rays(camera, pixel, undistort_iterations=20)[:2]

        jacobian = jax.jacrev(there_and_back)(jnp.asarray(point[:2] / point[2]))
        np.testing.assert_allclose(jacobian, np.eye(2), atol=1e-9)

    def test_refuses_negative_iterations(self, rng: np.random.Generator) -> None:
        with pytest.raises(ValueError, match="undistort_iterations: expected at least 0, got -1"):
            cast_rays(make(rng), jnp.zeros((17, 2)), undistort_iterations=-1)


@pytest.mark.usefixtures("x64")
class TestIntrinsicsVector:
    def test_is_in_screen_units(self) -> None:
        camera = calibration.make_camera((1200.0, 600.0), (900.0, 450.0), SIZE, **LENS)
        expected = [2.0, 1.0, 0.5, 0.0, -0.2, 0.25, -0.002, -0.0009, 0.0016]
        np.testing.assert_allclose(cameras.intrinsics_vector(camera), expected, atol=1e-12)

    def test_round_trip(self, rng: np.random.Generator) -> None:
        camera = make(rng, (3,))
        found = cameras.camera_from_vector(cameras.intrinsics_vector(camera), SIZE)
        found = found.replace(  # type: ignore[attr-defined]
            orientation=camera.orientation, position=camera.position
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, camera)

    def test_camera_from_vector_stands_at_the_origin(self, rng: np.random.Generator) -> None:
        vector = cameras.intrinsics_vector(make(rng))
        camera, points = cameras.camera_from_vector(vector, SIZE), in_view(rng, (17,))
        np.testing.assert_allclose(cameras.world_to_camera(camera, points), points)
        with pytest.raises(ValueError, match=r"vector: expected \(\.\.\., 9\), got shape \(8,\)"):
            cameras.camera_from_vector(vector[:8], SIZE)


@pytest.mark.usefixtures("x64")
class TestFlipCamera:
    def test_negates_entries_2_and_7(self, rng: np.random.Generator) -> None:
        camera = make(rng, (2,))
        signs = np.where(np.isin(np.arange(9), [2, 7]), -1.0, 1.0)
        np.testing.assert_allclose(
            cameras.intrinsics_vector(cameras.flip_camera(camera)),
            cameras.intrinsics_vector(camera) * signs,
            atol=1e-12,
        )

    def test_sees_the_mirrored_world_mirrored(self, rng: np.random.Generator) -> None:
        camera, points = make(rng, (2,)), in_view(rng, (2, 5, 17))
        world = cameras.camera_to_world(camera, points)
        mirrored = cameras.flip_camera(camera)

        def see(camera: Camera, world: jax.Array) -> jax.Array:
            return project(camera, cameras.world_to_camera(camera, world))

        screen = cameras.to_screen(see(camera, world), SIZE)
        found = cameras.to_screen(see(mirrored, flip(world, H36M_17)), SIZE)
        np.testing.assert_allclose(found, flip(screen, H36M_17), atol=1e-12)

    def test_twice_is_nothing(self, rng: np.random.Generator) -> None:
        camera = make(rng)
        twice = cameras.flip_camera(cameras.flip_camera(camera))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), twice, camera)


class TestCheckInFront:
    def test_accepts_points_in_front(self, rng: np.random.Generator) -> None:
        cameras.check_in_front(in_view(rng, (2, 5, 17)))

    @pytest.mark.parametrize("depth", [0.0, -1.5, np.nan])
    def test_names_the_first_bad_point(self, depth: float, rng: np.random.Generator) -> None:
        points = in_view(rng, (2, 5, 17))
        points[1, 3, 6:, 2] = depth
        message = f"root: expected z > 0 m .* z = {depth} at axis 0 index 1, frame 3, joint 6 "
        with pytest.raises(ValueError, match=message + r"\(left_ankle\)"):
            cameras.check_in_front(points, name="root", skeleton=H36M_17)


def stacked_solution(rays: np.ndarray, pose: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same least-squares problem, one row per residual, by a general solver."""
    rows, right = [], []
    for (u, v, _), (x, y, z), w in zip(rays, pose, weights, strict=True):
        rows += [np.sqrt(w) * np.array([1, 0, -u]), np.sqrt(w) * np.array([0, 1, -v])]
        right += [np.sqrt(w) * (z * u - x), np.sqrt(w) * (z * v - y)]
    return np.linalg.lstsq(np.array(rows), np.array(right))[0]


@pytest.mark.usefixtures("x64")
class TestFitTranslation:
    def pose_and_rays(
        self, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pose = 0.4 * rng.normal(size=(*shape, 17, 3))
        translation = in_view(rng, shape)
        points = pose + translation[..., None, :]
        return pose, points / points[..., 2:], translation

    def test_recovers_an_exact_translation(self, rng: np.random.Generator) -> None:
        pose, rays, translation = self.pose_and_rays(rng, (2, 5))
        np.testing.assert_allclose(fit_translation(rays, pose), translation, atol=1e-10)

    def test_equals_a_general_solver_on_noisy_rays(self, rng: np.random.Generator) -> None:
        pose, rays, _ = self.pose_and_rays(rng, (6,))
        rays[..., :2] += 0.01 * rng.normal(size=(6, 17, 2))
        weights = rng.uniform(0, 1, (6, 17)) ** 4
        expected = [stacked_solution(*item) for item in zip(rays, pose, weights, strict=True)]
        found = fit_translation(rays, pose, weights=weights)
        np.testing.assert_allclose(found, expected, atol=1e-10)

    def test_float32_stays_below_a_tenth_of_a_millimetre(self, rng: np.random.Generator) -> None:
        pose, rays, translation = self.pose_and_rays(rng, (200,))
        found = fit_translation(rays.astype(np.float32), pose.astype(np.float32))
        assert found.dtype == np.float32
        assert abs(found - translation).max() < 1e-4

    def test_missing_joints_play_no_part(self, rng: np.random.Generator) -> None:
        pose, rays, translation = self.pose_and_rays(rng, (2,))
        weights = np.ones((2, 17))
        weights[:, 2:], rays[:, 2:] = 0.0, np.nan
        found = fit_translation(rays, pose, weights=weights)
        np.testing.assert_allclose(found, translation, atol=1e-9)

    @pytest.mark.parametrize("seen", [0, 1])
    def test_too_few_joints_give_nan(self, seen: int, rng: np.random.Generator) -> None:
        pose, rays, translation = self.pose_and_rays(rng, (2,))
        weights = np.ones((2, 17))
        weights[0, seen:] = 0.0
        found = fit_translation(rays, pose, weights=weights)
        assert np.isnan(found[0]).all()
        np.testing.assert_allclose(found[1], translation[1], atol=1e-10)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_coinciding_rays_give_nan(self, dtype: type, rng: np.random.Generator) -> None:
        rays = np.tile(np.array([0.1, 0.3, 1.0], dtype), (17, 1))
        pose = rng.normal(size=(17, 3)).astype(dtype)
        assert np.isnan(fit_translation(rays, pose)).all()

    def test_hypotheses_share_rays(self, rng: np.random.Generator) -> None:
        pose, rays, _ = self.pose_and_rays(rng, (2, 3))
        found = fit_translation(rays[:, :1], pose)
        assert found.shape == (2, 3, 3)
        np.testing.assert_allclose(found[1, 2], fit_translation(rays[1, 0], pose[1, 2]), atol=1e-12)

    def test_refuses_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match=r"camera_rays, pose: .* got \(17, 3\) and \(16, 3\)"):
            fit_translation(jnp.ones((17, 3)), jnp.ones((16, 3)))
        with pytest.raises(
            ValueError, match=r"weights: expected \(\.\.\., 17\), got shape \(16,\)"
        ):
            fit_translation(jnp.ones((17, 3)), jnp.ones((17, 3)), weights=jnp.ones(16))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_function_changes_the_dtype(dtype: type, rng: np.random.Generator) -> None:
    """Also under the strictest promotion rules, so that no constant can widen a float32 point."""

    def everything(camera: Camera, points: jax.Array) -> list:
        pixels = project(camera, cameras.world_to_camera(camera, points), clamp=1.0)
        rays = cast_rays(camera, pixels, undistort_iterations=2)
        return [
            cameras.camera_to_world(camera, points),
            cameras.to_pixels(cameras.to_screen(pixels, (1000, 1002)), camera.image_size),
            cameras.backproject(camera, pixels, points[..., 2]),
            fit_translation(rays, points, weights=jnp.ones_like(points[..., 0])),
            fit_translation(rays, points),
            cameras.flip_camera(camera),
            cameras.camera_from_vector(cameras.intrinsics_vector(camera), (1000, 1002)),
        ]

    camera = jax.tree.map(lambda leaf: leaf.astype(dtype), make(rng, (2,)))
    points = jax.ShapeDtypeStruct((2, 5, 17, 3), dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        results = jax.eval_shape(everything, camera, points)
    assert {r.dtype for r in jax.tree.leaves(results)} == {np.dtype(dtype)}
