"""Plausibility of poses, where it is known."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from posediff_jax.data import procedural_motion
from posediff_jax.evaluation.plausibility import nearest_shape, plausibility
from posediff_jax.geometry import random_rotation
from posediff_jax.skeleton import H36M_17

REAL = np.concatenate([c.poses for c in procedural_motion(0, num_clips=14, frames=2)])


def test_nearest_shape_against_scipy():
    found = nearest_shape(REAL[:5], REAL[5:], chunk=2)
    features = np.stack([pdist(pose.astype(np.float64)) for pose in REAL])
    expected = cdist(features[:5], features[5:]).min(axis=1) / np.sqrt(17 * 16 / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_where_a_person_looks_does_not_matter():
    R = np.asarray(random_rotation(jax.random.key(0), (len(REAL),)))
    turned = np.einsum("nij,nkj->nki", R, REAL) + 3
    np.testing.assert_allclose(nearest_shape(turned, REAL), 0, atol=1e-4)
    mirrored = REAL * np.float32([-1, 1, 1])
    np.testing.assert_allclose(nearest_shape(mirrored, REAL), 0, atol=1e-4)


@pytest.mark.slow
def test_real_poses_are_more_plausible_than_noise():
    noise = np.random.default_rng(0).normal(size=REAL.shape) * REAL.std(axis=(0, 1))
    good, bad = (plausibility(p, REAL[1::2], H36M_17) for p in (REAL[::2], noise))
    for figure in ("asymmetry", "to_real", "to_generated"):
        assert good[figure] < bad[figure] / 2
    np.testing.assert_allclose(good["size"], good["size_real"], rtol=0.1)
    assert good["asymmetry_real"] == bad["asymmetry_real"] < 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest_shape(REAL[:, :16], REAL), "poses, reference: expected"),
        (lambda: nearest_shape(REAL, REAL[:0]), "reference: expected at least one pose"),
        (lambda: plausibility(REAL, REAL[:1], H36M_17), "unseen: expected at least two poses"),
        (lambda: plausibility(REAL[:, :16], REAL, H36M_17), r"poses: expected \(..., 17, 3\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
