"""Geometry against SciPy and NumPy, and its properties."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from scipy.spatial.transform import Rotation

from posediff_jax import geometry
from posediff_jax.skeleton import COCO_17, H36M_17, SKELETONS, Skeleton

# Compiled as users would: far quicker than one operation at a time.
procrustes = jax.jit(geometry.procrustes, static_argnames="allow_reflection")
procrustes_align = jax.jit(geometry.procrustes_align, static_argnames="allow_reflection")


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def similarity(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """A random similarity of some points."""
    turned = points @ Rotation.random(rng=rng).as_matrix().T
    return rng.uniform(0.5, 2.0) * turned + rng.normal(size=3)


class TestSafeNorm:
    def test_equals_numpy(self, rng: np.random.Generator) -> None:
        x = rng.normal(size=(4, 3, 2)).astype(np.float32)
        np.testing.assert_allclose(
            geometry.safe_norm(x, axis=1, keepdims=True),
            np.linalg.norm(x, axis=1, keepdims=True),
            rtol=1e-6,
        )

    def test_gradient_is_unit_vector_and_zero_at_zero(self) -> None:
        grad = jax.grad(lambda x: geometry.safe_norm(x).sum())
        x = jnp.array([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
        np.testing.assert_allclose(grad(x), [[0.6, 0.0, 0.8], [0.0, 0.0, 0.0]], rtol=1e-6)


class TestRootCenter:
    def test_subtracts_the_root(self, rng: np.random.Generator) -> None:
        points = rng.normal(size=(2, 17, 2)).astype(np.float32)
        np.testing.assert_array_equal(
            geometry.root_center(points, root=14), points - points[:, 14:15]
        )

    @pytest.mark.parametrize("root", [-1, 17])
    def test_refuses_a_joint_that_is_not_there(self, root: int) -> None:
        with pytest.raises(ValueError, match=f"root: expected 0 to 16, got {root}"):
            geometry.root_center(jnp.zeros((17, 3)), root=root)

    def test_refuses_a_single_point(self) -> None:
        with pytest.raises(
            ValueError, match=r"points: expected \(\.\.\., J, C\), got shape \(3,\)"
        ):
            geometry.root_center(jnp.zeros(3), root=0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=list(SKELETONS))
class TestBones:
    def test_equal_a_walk_over_the_tree(self, skeleton: Skeleton, rng: np.random.Generator) -> None:
        pose = rng.normal(size=(2, skeleton.num_joints, 3))
        lengths, directions = geometry.bones_from_pose(pose, skeleton)
        for bone, (child, parent) in enumerate(skeleton.bones):
            vector = pose[:, child] - pose[:, parent]
            norm = np.linalg.norm(vector, axis=-1)
            np.testing.assert_allclose(lengths[:, bone], norm, rtol=1e-12)
            np.testing.assert_allclose(directions[:, bone], vector / norm[:, None], rtol=1e-12)

    def test_round_trip(self, skeleton: Skeleton, rng: np.random.Generator) -> None:
        pose = rng.normal(size=(2, 4, skeleton.num_joints, 3))
        root = pose[..., skeleton.root, :]
        bones = geometry.bones_from_pose(pose, skeleton)
        np.testing.assert_allclose(
            geometry.pose_from_bones(*bones, skeleton, root_position=root), pose, atol=1e-12
        )
        np.testing.assert_allclose(
            geometry.pose_from_bones(*bones, skeleton), pose - root[..., None, :], atol=1e-12
        )


def test_collapsed_bones_have_direction_zero_and_finite_gradients() -> None:
    pose = jnp.zeros((17, 3)).at[10].set(jnp.array([0.0, 0.2, 0.0]))

    def total(pose: jax.Array) -> jax.Array:
        lengths, directions = geometry.bones_from_pose(pose, H36M_17)
        return lengths.sum() + directions.sum()

    lengths, directions = geometry.bones_from_pose(pose, H36M_17)
    assert np.flatnonzero(lengths).tolist() == [9]  # the bone of joint 10, neck to head
    np.testing.assert_allclose(directions[9], [0.0, 1.0, 0.0])
    assert not np.asarray(directions)[np.arange(16) != 9].any()
    assert np.isfinite(jax.jit(jax.grad(total))(pose)).all()


@pytest.mark.parametrize(
    ("lengths", "directions", "name"),
    [((15,), (16, 3), "lengths"), ((16,), (16, 2), "directions"), ((16,), (15, 3), "directions")],
)
def test_wrong_bones_are_refused(
    lengths: tuple[int, ...], directions: tuple[int, ...], name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected .* 'h36m_17', got shape"):
        geometry.pose_from_bones(jnp.ones(lengths), jnp.ones(directions), H36M_17)


class TestFlip:
    @pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=list(SKELETONS))
    @pytest.mark.parametrize("channels", [2, 3])
    def test_swaps_joints_by_name_and_negates_x(
        self, skeleton: Skeleton, channels: int, rng: np.random.Generator
    ) -> None:
        points = rng.normal(size=(3, skeleton.num_joints, channels)).astype(np.float32)
        flipped = geometry.flip(points, skeleton)
        for joint, name in enumerate(skeleton.joints):
            side, _, rest = name.partition("_")
            partner = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
            mirrored = points[:, skeleton.joints.index(partner)] * [-1, 1, 1][:channels]
            np.testing.assert_array_equal(flipped[:, joint], mirrored.astype(np.float32))
        np.testing.assert_array_equal(geometry.flip(flipped, skeleton), points)

    def test_keeps_bone_lengths_up_to_the_swap(self, rng: np.random.Generator) -> None:
        pose = rng.normal(size=(17, 3)).astype(np.float32)
        order = [H36M_17.flip_permutation[child] - 1 for child, _ in H36M_17.bones]
        lengths, _ = geometry.bones_from_pose(pose, H36M_17)
        flipped, _ = geometry.bones_from_pose(geometry.flip(pose, H36M_17), H36M_17)
        np.testing.assert_allclose(flipped, lengths[jnp.array(order)], rtol=1e-6)

    @pytest.mark.parametrize("shape", [(16, 3), (17, 4), (3,)])
    def test_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"points: expected .* got shape|points: .*got \("):
            geometry.flip(jnp.zeros(shape), H36M_17)


@pytest.mark.usefixtures("x64")
class TestRotations:
    def test_quaternion_to_matrix_equals_scipy_at_any_length(
        self, rng: np.random.Generator
    ) -> None:
        q = 3.0 * rng.normal(size=(5, 2, 4))
        expected = Rotation.from_quat(q.reshape(-1, 4), scalar_first=True).as_matrix()
        np.testing.assert_allclose(
            geometry.quaternion_to_matrix(q).reshape(-1, 3, 3), expected, atol=1e-12
        )

    def test_rotate_equals_scipy(self, rng: np.random.Generator) -> None:
        rotation = Rotation.random(rng=rng)
        q, points = rotation.as_quat(scalar_first=True), rng.normal(size=(6, 17, 3))
        flat = points.reshape(-1, 3)
        np.testing.assert_allclose(
            geometry.rotate(q, points).reshape(-1, 3), rotation.apply(flat), atol=1e-12
        )
        np.testing.assert_allclose(
            geometry.rotate_inverse(q, points).reshape(-1, 3),
            rotation.inv().apply(flat),
            atol=1e-12,
        )

    def test_quaternions_match_the_first_axes_of_points(self, rng: np.random.Generator) -> None:
        q, points = rng.normal(size=(3, 4)), rng.normal(size=(3, 5, 3, 3))
        expected = np.stack([geometry.rotate(a, b) for a, b in zip(q, points, strict=True)])
        np.testing.assert_allclose(geometry.rotate(q, points), expected, atol=1e-12)

    @pytest.mark.parametrize("size", [0.0, 1e-9, 1.0, np.pi, 5.0])
    def test_axis_angle_equals_scipy(self, size: float, rng: np.random.Generator) -> None:
        axis = rng.normal(size=(8, 3))
        vector = size * axis / np.linalg.norm(axis, axis=-1, keepdims=True)
        np.testing.assert_allclose(
            geometry.axis_angle_to_matrix(vector),
            Rotation.from_rotvec(vector).as_matrix(),
            atol=1e-12,
        )

    def test_axis_angle_has_the_generators_as_gradient_at_zero(self) -> None:
        jacobian = jax.jit(jax.jacobian(geometry.axis_angle_to_matrix))(jnp.zeros(3))
        expected = np.zeros((3, 3, 3))
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            expected[k, j, i], expected[j, k, i] = 1.0, -1.0
        np.testing.assert_allclose(jacobian, expected, atol=1e-12)

    @pytest.mark.parametrize("axis", ["x", "y", "z"])
    def test_rotation_about_axis_equals_scipy(self, axis: str) -> None:
        angle = np.linspace(-4.0, 4.0, 7)
        np.testing.assert_allclose(
            geometry.rotation_about_axis(axis, angle),  # type: ignore[arg-type]
            Rotation.from_euler(axis, angle[:, None]).as_matrix(),
            atol=1e-12,
        )

    def test_other_axes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="axis: expected 'x', 'y' or 'z', got 'w'"):
            geometry.rotation_about_axis("w", jnp.zeros(()))  # type: ignore[arg-type]

    def test_random_rotations_are_proper_and_uniform(self) -> None:
        rotations = geometry.random_rotation(jax.random.key(3), (4000,))
        assert rotations.dtype == jnp.float64
        np.testing.assert_allclose(np.linalg.det(rotations), 1.0, atol=1e-12)
        np.testing.assert_allclose(
            rotations @ rotations.mT, np.broadcast_to(np.eye(3), rotations.shape), atol=1e-12
        )
        # Under the uniform law the angle has the distribution function (a - sin a) / pi ...
        angles = Rotation.from_matrix(np.asarray(rotations)).magnitude()
        law = scipy.stats.kstest(angles, lambda a: (a - np.sin(a)) / np.pi)
        assert law.pvalue > 1e-3
        # ... and each entry of the matrix is uniform in [-1, 1].
        for entry in np.asarray(rotations).reshape(-1, 9).T:
            assert scipy.stats.kstest(entry, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_random_rotation_follows_key_and_dtype() -> None:
    one, two = (geometry.random_rotation(jax.random.key(s)) for s in (0, 1))
    assert one.shape == (3, 3)
    assert one.dtype == jnp.float32
    assert not np.allclose(one, two)


@pytest.mark.usefixtures("x64")
class TestProcrustes:
    def test_recovers_a_known_similarity(self, rng: np.random.Generator) -> None:
        predicted = rng.normal(size=(4, 17, 3))
        target = np.stack([similarity(rng, p) for p in predicted])
        np.testing.assert_allclose(procrustes_align(predicted, target), target, atol=1e-12)

    def test_parts_make_up_the_alignment(self, rng: np.random.Generator) -> None:
        predicted, target = rng.normal(size=(2, 3, 17, 3))
        rotation, scale, translation = procrustes(predicted, target)
        moved = [
            s * p @ R.T + t
            for p, R, s, t in zip(predicted, rotation, scale, translation, strict=True)
        ]
        np.testing.assert_allclose(procrustes_align(predicted, target), moved, atol=1e-12)

    def test_rotation_equals_scipy_with_weights(self, rng: np.random.Generator) -> None:
        # Unrelated clouds: about half of them would rather be mirrored.
        for _ in range(8):
            predicted, target = rng.normal(size=(2, 17, 3))
            weights = rng.uniform(size=17)
            center_p, center_t = (
                np.average(a, axis=0, weights=weights) for a in (predicted, target)
            )
            expected, _ = Rotation.align_vectors(
                target - center_t, predicted - center_p, weights=weights
            )
            rotation, scale, translation = procrustes(predicted, target, weights=weights)
            np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-9)
            # Scale and translation are then a linear least-squares problem.
            x = expected.apply(predicted)
            columns = np.zeros((51, 4))
            columns[:, 0], columns[:, 1:] = x.ravel(), np.tile(np.eye(3), (17, 1))
            root = np.repeat(np.sqrt(weights), 3)
            solution = np.linalg.lstsq(root[:, None] * columns, root * target.ravel())[0]
            np.testing.assert_allclose([scale, *translation], solution, atol=1e-9)

    def test_mirror_images_need_allow_reflection(self, rng: np.random.Generator) -> None:
        predicted = rng.normal(size=(17, 3))
        target = similarity(rng, predicted * [-1, 1, 1])
        mirrored = procrustes(predicted, target, allow_reflection=True)
        assert float(jnp.linalg.det(mirrored.rotation)) == pytest.approx(-1.0)
        aligned = procrustes_align(predicted, target, allow_reflection=True)
        np.testing.assert_allclose(aligned, target, atol=1e-12)
        proper = procrustes(predicted, target)
        assert float(jnp.linalg.det(proper.rotation)) == pytest.approx(1.0)
        assert np.abs(procrustes_align(predicted, target) - target).max() > 0.1

    def test_reflection_equals_scipy(self, rng: np.random.Generator) -> None:
        predicted, target = rng.normal(size=(2, 17, 3))
        x, y = predicted - predicted.mean(0), target - target.mean(0)
        orthogonal, scale = scipy.linalg.orthogonal_procrustes(x, y)
        result = procrustes(predicted, target, allow_reflection=True)
        np.testing.assert_allclose(result.rotation, orthogonal.T, atol=1e-9)
        np.testing.assert_allclose(result.scale, scale / np.sum(x * x), atol=1e-9)

    def test_joints_without_weight_play_no_part(self, rng: np.random.Generator) -> None:
        predicted, target = rng.normal(size=(2, 17, 3))
        weights = np.ones(17).astype(np.float64)
        weights[5:] = 0.0
        expected = procrustes(predicted[:5], target[:5])
        found = procrustes(predicted, target, weights=weights)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), found, expected)

    def test_planar_poses_stay_rotations(self, rng: np.random.Generator) -> None:
        predicted = rng.normal(size=(17, 3)) * [1.0, 1.0, 0.0]
        target = similarity(rng, predicted)
        result = procrustes(predicted, target)
        assert float(jnp.linalg.det(result.rotation)) == pytest.approx(1.0)
        np.testing.assert_allclose(procrustes_align(predicted, target), target, atol=1e-12)


class TestDegenerateProcrustes:
    POINT = np.full((17, 3), [0.1, 0.2, 4.7], np.float32)

    def test_one_point_goes_to_the_mean_of_the_target(self, rng: np.random.Generator) -> None:
        target = rng.normal(size=(17, 3)).astype(np.float32)
        result = procrustes(self.POINT, target)
        assert float(result.scale) == 1.0
        aligned = procrustes_align(self.POINT, target)
        np.testing.assert_allclose(aligned, np.tile(target.mean(0), (17, 1)), atol=1e-5)

    @pytest.mark.parametrize("allow_reflection", [False, True])
    def test_any_points_go_to_a_single_target(
        self, allow_reflection: bool, rng: np.random.Generator
    ) -> None:
        for predicted in (rng.normal(size=(17, 3)), self.POINT, np.zeros((17, 3))):
            aligned = procrustes_align(
                predicted.astype(np.float32), self.POINT, allow_reflection=allow_reflection
            )
            np.testing.assert_allclose(aligned, self.POINT, atol=1e-5)

    def test_no_weight_at_all_gives_nan(self, rng: np.random.Generator) -> None:
        pose = rng.normal(size=(17, 3)).astype(np.float32)
        aligned = procrustes_align(pose, pose, weights=np.zeros(17, np.float32))
        assert np.isnan(aligned).all()


@pytest.mark.parametrize(
    ("predicted", "target", "weights", "message"),
    [
        ((17, 2), (17, 2), None, r"predicted: expected \(\.\.\., 3\), got shape \(17, 2\)"),
        ((17, 3), (16, 3), None, r"got \(17, 3\) and \(16, 3\)"),
        ((17, 3), (17, 3), (16,), r"weights: expected \(\.\.\., 17\), got shape \(16,\)"),
    ],
)
def test_procrustes_refuses_shapes_that_do_not_fit(
    predicted: tuple, target: tuple, weights: tuple | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        procrustes(
            jnp.zeros(predicted),
            jnp.zeros(target),
            weights=None if weights is None else jnp.ones(weights),
        )


class TestMatchLeading:
    def test_inserts_axes_behind_the_batch(self) -> None:
        points = jnp.zeros((2, 5, 17, 3))
        for lead, expected in (
            ((), (1, 1, 1, 4)),
            ((2,), (2, 1, 1, 4)),
            ((2, 5), (2, 5, 1, 4)),
            ((1, 5), (1, 5, 1, 4)),
        ):
            value = jnp.zeros((*lead, 4))
            assert geometry.match_leading(value, points, name="value").shape == expected

    @pytest.mark.parametrize("lead", [(3,), (17,), (2, 4), (2, 5, 17, 1)])
    def test_refuses_axes_that_do_not_match(self, lead: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="value: expected leading axes that match"):
            geometry.match_leading(jnp.zeros((*lead, 4)), jnp.zeros((2, 5, 17, 3)), name="value")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_function_changes_the_dtype(dtype: type) -> None:
    """Also under the strictest promotion rules, so that no constant can widen a float32 pose."""

    def everything(pose: jax.Array, quaternion: jax.Array) -> list:
        bones = geometry.bones_from_pose(pose, COCO_17)
        return [
            geometry.safe_norm(pose),
            geometry.root_center(pose, root=0),
            geometry.pose_from_bones(*bones, COCO_17, root_position=pose[:, 0]),
            geometry.flip(pose, H36M_17),
            geometry.quaternion_to_matrix(quaternion),
            geometry.axis_angle_to_matrix(pose),
            geometry.rotation_about_axis("y", pose[..., 0]),
            geometry.rotate_inverse(quaternion, pose),
            geometry.random_rotation(jax.random.key(0), (2,), dtype=dtype),
            procrustes(pose, pose, weights=jnp.ones_like(pose[..., 0])),
            procrustes_align(pose, pose),
        ]

    pose, quaternion = (jax.ShapeDtypeStruct(s, dtype) for s in ((2, 17, 3), (2, 4)))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        results = jax.eval_shape(everything, pose, quaternion)
    assert {r.dtype for r in jax.tree.leaves(results)} == {np.dtype(dtype)}
