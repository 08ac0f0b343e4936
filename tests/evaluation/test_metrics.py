"""Metrics against NumPy and SciPy, and what they must not depend on."""

import inspect
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.spatial
from scipy.spatial.transform import Rotation

from posediff_jax.evaluation import metrics
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17

PAIRWISE = [
    metrics.mpjpe,
    metrics.rerooted_mpjpe,
    metrics.p_mpjpe,
    metrics.n_mpjpe,
    metrics.pck,
    metrics.auc,
]


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def poses() -> tuple[np.ndarray, np.ndarray]:
    """Predictions about 10 cm off, and their targets, metres."""
    rng = np.random.default_rng(5)
    target = 0.4 * rng.normal(size=(2, 6, 17, 3))
    return target + 0.1 * rng.normal(size=target.shape), target


def distances(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.sqrt(((predicted - target) ** 2).sum(axis=-1))


def test_joint_error_and_mpjpe_equal_numpy(poses: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(metrics.joint_error(*poses), distances(*poses), rtol=1e-12)
    np.testing.assert_allclose(metrics.mpjpe(*poses), distances(*poses).mean(-1), rtol=1e-12)


def test_rerooted_mpjpe_moves_the_root(poses: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, target = poses
    moved = predicted - predicted[..., 4:5, :] + target[..., 4:5, :]
    expected = distances(moved, target).mean(-1)
    np.testing.assert_allclose(metrics.rerooted_mpjpe(*poses, root=4), expected, rtol=1e-12)


def test_mpjpe_has_a_gradient_where_joints_are_exact() -> None:
    target = jnp.zeros((17, 3))
    predicted = target.at[3, 1].set(0.5)
    expected = np.zeros((17, 3))
    expected[3, 1] = 1 / 17
    np.testing.assert_allclose(jax.jit(jax.grad(metrics.mpjpe))(predicted, target), expected)


class TestPMpjpe:
    def test_equals_scipy(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        # SciPy centres both, scales the target to unit norm and allows reflections.
        predicted, target = poses
        expected = np.zeros((2, 6))
        for item in np.ndindex(2, 6):
            norm = np.linalg.norm(target[item] - target[item].mean(0))
            unit, aligned, _ = scipy.spatial.procrustes(target[item], predicted[item])
            expected[item] = norm * distances(unit, aligned).mean()
        found = metrics.p_mpjpe(predicted, target, allow_reflection=True)
        np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_forbids_reflections_unless_told(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        _, target = poses
        mirrored = target * [-1, 1, 1]
        allowed = metrics.p_mpjpe(mirrored, target, allow_reflection=True)
        np.testing.assert_allclose(allowed, 0.0, atol=1e-12)
        assert (metrics.p_mpjpe(mirrored, target) > 0.05).all()

    def test_ignores_any_similarity_of_the_prediction(
        self, poses: tuple[np.ndarray, np.ndarray]
    ) -> None:
        predicted, target = poses
        turned = predicted @ Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix().T
        moved = 1.7 * turned + np.array([0.1, -2.0, 5.0])
        np.testing.assert_allclose(
            metrics.p_mpjpe(moved, target), metrics.p_mpjpe(predicted, target), rtol=1e-9
        )


class TestNMpjpe:
    def test_scale_is_the_best_in_least_squares(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        predicted, target = poses[0][0, 0], poses[1][0, 0]
        best = scipy.optimize.minimize_scalar(
            lambda s: ((s * predicted - target) ** 2).sum(), tol=1e-12
        )
        np.testing.assert_allclose(
            metrics.n_mpjpe(predicted, target),
            distances(best.x * predicted, target).mean(),
            rtol=1e-7,
        )

    def test_ignores_one_scale_per_pose(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        predicted, target = poses
        scales = np.linspace(0.5, 2.0, 12).reshape(2, 6, 1, 1)
        np.testing.assert_allclose(
            metrics.n_mpjpe(scales * predicted, target),
            metrics.n_mpjpe(predicted, target),
            rtol=1e-9,
        )

    def test_survives_a_collapsed_prediction(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        _, target = poses
        np.testing.assert_allclose(
            metrics.n_mpjpe(np.zeros_like(target), target), distances(0 * target, target).mean(-1)
        )


class TestMpjve:
    def test_equals_numpy(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        expected = distances(np.diff(poses[0], axis=1), np.diff(poses[1], axis=1)).mean((1, 2))
        np.testing.assert_allclose(metrics.mpjve(*poses), expected, rtol=1e-12)

    def test_ignores_a_constant_offset(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        _, target = poses
        offset = np.linspace(-1, 1, 51).reshape(17, 3)
        np.testing.assert_allclose(metrics.mpjve(target + offset, target), 0.0, atol=1e-12)

    @pytest.mark.parametrize("shape", [(1, 17, 3), (17, 3)])
    def test_needs_two_frames(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"predicted: expected .* F >= 2, got shape"):
            metrics.mpjve(jnp.zeros(shape), jnp.zeros(shape))

    def test_needs_equal_numbers_of_frames(self) -> None:
        with pytest.raises(ValueError, match="expected leading axes that broadcast"):
            metrics.mpjve(jnp.zeros((4, 17, 3)), jnp.zeros((3, 17, 3)))


def along_x(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a target with the given joint errors."""
    target = np.zeros((*errors.shape, 3))
    predicted = target.copy()
    predicted[..., 0] = errors
    return predicted, target


class TestPckAndAuc:
    def test_threshold_is_strict(self) -> None:
        pair = along_x(np.array([0.0, 0.149, 0.150, 0.151]))
        assert float(metrics.pck(*pair)) == 0.5
        assert float(metrics.pck(*pair, threshold=0.1501)) == 0.75

    def test_joints_choose_who_counts(self) -> None:
        pair = along_x(np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
        assert metrics.pck(*pair, joints=(0, 1)).tolist() == [0.5, 1.0]
        assert metrics.auc(*pair, joints=(2,), thresholds=(0.5, 1.5)).tolist() == [0.5, 0.5]

    def test_auc_is_the_mean_of_31_pck(self, poses: tuple[np.ndarray, np.ndarray]) -> None:
        errors = distances(*poses)
        curve = [(errors < t).mean(-1) for t in np.linspace(0.0, 0.150, 31)]
        np.testing.assert_allclose(metrics.auc(*poses), np.mean(curve, axis=0), rtol=1e-12)

    def test_a_perfect_pose_reaches_30_of_31(self) -> None:
        assert float(metrics.auc(*along_x(np.zeros(17)))) == pytest.approx(30 / 31)

    def test_nan_is_no_miss(self) -> None:
        assert np.isnan(metrics.pck(*along_x(np.array([0.0, np.nan]))))

    def test_official_joints_are_the_same_body_parts(self) -> None:
        names = [MPI_INF_3DHP_17.joints[j] for j in metrics.PCK_JOINTS["mpi_inf_3dhp_17"]]
        assert set(MPI_INF_3DHP_17.joints) - set(names) == {"pelvis", "spine", "head"}
        same = {"head_top": "head", "neck": "thorax"}  # what Human3.6M calls these places
        expected = [same.get(name, name) for name in names]
        assert [H36M_17.joints[j] for j in metrics.PCK_JOINTS["h36m_17"]] == expected

    def test_refuses_joints_and_thresholds_that_are_not_there(self) -> None:
        pair = along_x(np.zeros(17))
        with pytest.raises(ValueError, match=r"joints: expected indices 0 to 16, got \(3, 17\)"):
            metrics.pck(*pair, joints=(3, 17))
        with pytest.raises(ValueError, match="joints: expected indices"):
            metrics.pck(*pair, joints=())
        with pytest.raises(ValueError, match="thresholds: expected at least one"):
            metrics.auc(*pair, thresholds=())


@pytest.mark.parametrize("metric", PAIRWISE)
class TestEveryPairwiseMetric:
    def test_hypotheses_meet_one_target(
        self, metric: Callable, poses: tuple[np.ndarray, np.ndarray]
    ) -> None:
        predicted, target = poses
        found = metric(predicted[None], target)
        assert found.shape == (1, 2, 6)
        np.testing.assert_allclose(
            metric(predicted, target[:, :1])[1, 2], metric(predicted[1, 2], target[1, 0])
        )

    def test_refuses_shapes_that_do_not_fit(self, metric: Callable) -> None:
        with pytest.raises(ValueError, match=r"predicted: expected \(\.\.\., 3\)"):
            metric(jnp.zeros((17, 2)), jnp.zeros((17, 2)))
        with pytest.raises(ValueError, match=r"got \(17, 3\) and \(16, 3\)"):
            metric(jnp.zeros((17, 3)), jnp.zeros((16, 3)))
        with pytest.raises(ValueError, match="predicted, target: expected leading axes that broad"):
            metric(jnp.zeros((2, 17, 3)), jnp.zeros((3, 17, 3)))

    def test_keeps_float32(self, metric: Callable) -> None:
        pose = jax.ShapeDtypeStruct((17, 3), np.float32)
        assert jax.eval_shape(metric, pose, pose).dtype == np.float32


def test_every_metric_declares_what_it_needs() -> None:
    functions = {
        name: f
        for name, f in inspect.getmembers(metrics, inspect.isfunction)
        if f.__module__ == metrics.__name__ and not name.startswith("_")
    }
    assert set(metrics.NEEDS) == set(functions) - {"best_scale"}
    for name, needs in metrics.NEEDS.items():
        doc = inspect.getdoc(functions[name]) or ""
        assert "Needs ground truth" in doc, name
        assert needs[0] == "ground truth", name
