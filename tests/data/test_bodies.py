"""Other bodies: bones scaled, directions and floor kept, left like right."""

import numpy as np
import pytest

from posediff_jax.data import procedural_motion, random_bodies
from posediff_jax.data.bodies import resize_body
from posediff_jax.skeleton import H36M_17

CLIPS = procedural_motion(0, num_clips=3, frames=5)


def bones(poses):
    children, parents = zip(*H36M_17.bones, strict=True)
    return poses[:, list(children)] - poses[:, list(parents)]


def test_each_bone_is_multiplied_and_keeps_its_direction():
    factors = np.random.default_rng(0).uniform(0.5, 2, 17)
    resized = resize_body(CLIPS[0], factors)
    children = [child for child, _ in H36M_17.bones]
    expected = factors[children, None] * bones(CLIPS[0].poses)
    np.testing.assert_allclose(bones(resized.poses), expected, atol=1e-5)


def test_the_lowest_joint_stays_as_high_as_it_was():
    resized = resize_body(CLIPS[0], np.full(17, 1.3))
    np.testing.assert_allclose(
        resized.poses[..., 1].min(axis=1), CLIPS[0].poses[..., 1].min(axis=1), atol=1e-6
    )
    np.testing.assert_array_equal(resized.poses[:, 0, ::2], CLIPS[0].poses[:, 0, ::2])


def test_random_bodies_differ_but_have_equal_sides():
    resized = random_bodies(1, CLIPS, spread=0.2)
    ratios = [
        np.linalg.norm(bones(new.poses), axis=-1)[0] / np.linalg.norm(bones(old.poses), axis=-1)[0]
        for new, old in zip(resized, CLIPS, strict=True)
    ]
    for ratio in ratios:
        of_child = dict(zip([c for c, _ in H36M_17.bones], ratio, strict=True))
        for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
            assert of_child[left] == pytest.approx(of_child[right], rel=1e-4)
        assert 0.8**2 <= ratio.min() < ratio.max() <= 1.2**2
    assert np.abs(ratios[0] - ratios[1]).max() > 0.01


def test_a_body_depends_on_seed_and_place_only():
    alone = random_bodies(1, CLIPS[:1], spread=0.2)[0]
    np.testing.assert_array_equal(alone.poses, random_bodies(1, CLIPS, spread=0.2)[0].poses)
    assert np.abs(alone.poses - random_bodies(2, CLIPS, spread=0.2)[0].poses).max() > 0.01


def test_errors():
    with pytest.raises(ValueError, match="factors: expected 17 positive numbers"):
        resize_body(CLIPS[0], np.ones(16))
    with pytest.raises(ValueError, match="factors: expected 17 positive numbers"):
        resize_body(CLIPS[0], np.zeros(17))
    for seed, spread in ((-1, 0.1), (0, 1.0), (0, -0.1)):
        with pytest.raises(ValueError, match="seed, spread: expected"):
            random_bodies(seed, CLIPS, spread=spread)
