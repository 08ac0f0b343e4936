"""Windows to evaluate: every scored frame once, padding never."""

import numpy as np
import pytest

from posediff_jax.data import (
    ScoredViews,
    all_frames,
    procedural_motion,
    scored_items,
    virtual_views,
)
from posediff_jax.skeleton import H36M_17

VIEWS = virtual_views(0, procedural_motion(0, num_clips=3, frames=7), H36M_17)


def every(step, views=VIEWS):
    return ScoredViews(views, tuple(np.arange(s.num_frames) % step == 0 for s in views.sequences))


def frames_of(items):
    window, offset = np.nonzero(items.frames)
    return list(zip(items.sequence[window], items.start[window] + offset, strict=True))


@pytest.mark.parametrize("length", [1, 3, 7, 9])
@pytest.mark.parametrize("step", [1, 3])
def test_each_scored_frame_is_in_one_window(length, step):
    items = scored_items(every(step), length=length)
    assert frames_of(items) == [(s, f) for s in range(3) for f in range(0, 7, step)]
    assert items.num_frames == len(frames_of(items))


def test_windows_without_a_scored_frame_are_left_out():
    assert len(scored_items(every(7), length=1).items) == 3
    assert len(scored_items(every(7), length=3).items) == 3


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_batches_show_the_frames_themselves(batch_size):
    items = scored_items(every(2), length=3)
    found = []
    for batch, frames in items.batches(batch_size):
        assert batch.keypoints.shape == (batch_size, 3, 17, 2)
        found.append(np.asarray(batch.pose)[frames])
    expected = np.concatenate([s.pose[::2] for s in VIEWS.sequences])
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_legends_and_all_frames():
    items = scored_items(all_frames(VIEWS))
    assert items.num_frames == VIEWS.num_frames
    assert (items.subjects, items.actions) == (VIEWS.subjects, VIEWS.actions)
    assert items.skeleton == H36M_17


def test_errors():
    with pytest.raises(ValueError, match="scored: expected one flag per frame"):
        scored_items(ScoredViews(VIEWS, (np.ones(7, bool),)))
    with pytest.raises(ValueError, match="scored: expected at least one scored frame"):
        scored_items(ScoredViews(VIEWS, tuple(np.zeros(7, bool) for _ in range(3))))
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        next(scored_items(all_frames(VIEWS)).batches(0))
