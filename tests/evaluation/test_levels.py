"""Errors by level: which joints are in which, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.evaluation.levels import level_errors
from posediff_jax.skeleton import H36M_17, HUMANEVA_15, MPI_INF_3DHP_17

# DDHPose's list for MPI-INF-3DHP: the head top is as far from the pelvis as the head.
LEVELS = {
    "h36m_17": [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 3, 4, 5, 3, 4, 5],
    "mpi_inf_3dhp_17": [3, 2, 3, 4, 5, 3, 4, 5, 1, 2, 3, 1, 2, 3, 0, 1, 3],
}


@pytest.mark.parametrize("skeleton", [H36M_17, MPI_INF_3DHP_17])
def test_a_joint_that_is_wrong_shows_at_its_level(skeleton):
    levels = LEVELS[skeleton.name]
    for joint, level in enumerate(levels):
        wrong = jnp.zeros((2, 17, 3)).at[:, joint, 1].set(3.0)
        found = np.asarray(level_errors(wrong, jnp.zeros((2, 17, 3)), skeleton))
        expected = np.zeros((2, 5))
        if level:
            expected[:, level - 1] = 3.0 / levels.count(level)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="predicted: expected"):
        level_errors(jnp.zeros((17, 3)), jnp.zeros((17, 3)), HUMANEVA_15)
