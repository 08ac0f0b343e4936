"""One pose from many, against NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.samplers.aggregate import joint_spread, mean_pose, medoid_pose

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


def test_spread_is_the_root_mean_square_distance_to_the_mean():
    x = np.asarray(HYPOTHESES, np.float64)
    distance = np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=-1)
    np.testing.assert_allclose(
        joint_spread(HYPOTHESES), np.sqrt((distance**2).mean(axis=1)), rtol=1e-5
    )
    assert joint_spread(HYPOTHESES[:, :1]).max() == 0
