"""Baselines: the mean of all training poses, and the training view that looks most alike."""

import dataclasses

import numpy as np
import pytest

from posediff_jax.data import (
    all_frames,
    item_table,
    procedural_motion,
    scored_items,
    virtual_views,
)
from posediff_jax.evaluation import baselines
from posediff_jax.evaluation.baselines import mean_training_pose, nearest_training_poses
from posediff_jax.skeleton import H36M_17

VIEWS = virtual_views(0, procedural_motion(0, num_clips=4, frames=5), H36M_17)
POSES = np.concatenate([s.pose for s in VIEWS.sequences])


@pytest.mark.parametrize("chunk", [1000, 7])
def test_the_mean_of_all_items(chunk, monkeypatch):
    monkeypatch.setattr(baselines, "_CHUNK", chunk)
    mirrored = POSES[:, H36M_17.flip_permutation] * np.array([-1, 1, 1])
    expected = np.concatenate([POSES, mirrored]).mean(axis=0)
    table = item_table(VIEWS, augment=True)
    np.testing.assert_allclose(mean_training_pose(table), expected, atol=1e-6)


def test_padded_frames_do_not_count():
    table = item_table(VIEWS, length=4)
    np.testing.assert_allclose(mean_training_pose(table), POSES.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("chunk", [1000, 3])
def test_a_view_finds_itself_wherever_and_however_large_it_is(chunk, monkeypatch):
    monkeypatch.setattr(baselines, "_CHUNK", chunk)
    moved = dataclasses.replace(
        VIEWS,
        sequences=tuple(
            dataclasses.replace(s, keypoints_px=0.5 * s.keypoints_px + 40) for s in VIEWS.sequences
        ),
    )
    items = scored_items(all_frames(moved))
    found = nearest_training_poses(item_table(VIEWS), items)
    np.testing.assert_array_equal(found, POSES)


def test_against_a_search_by_hand():
    other = virtual_views(1, procedural_motion(1, num_clips=2, frames=3), H36M_17)
    found = nearest_training_poses(item_table(VIEWS), scored_items(all_frames(other)))

    def shape(sequences):
        points = np.concatenate([s.keypoints_px for s in sequences.sequences]).astype(np.float64)
        points -= points[:, :1]
        return points / np.linalg.norm(points, axis=(1, 2), keepdims=True)

    distance = np.linalg.norm(shape(other)[:, None] - shape(VIEWS)[None], axis=(2, 3))
    np.testing.assert_array_equal(found, POSES[distance.argmin(axis=1)])


def test_errors():
    items = scored_items(all_frames(VIEWS))
    with pytest.raises(ValueError, match="table: expected items of one frame, got 2"):
        nearest_training_poses(item_table(VIEWS, length=2), items)
    bare = dataclasses.replace(item_table(VIEWS), pose=None)
    with pytest.raises(ValueError, match="table: expected training items whose poses are known"):
        mean_training_pose(bare)
