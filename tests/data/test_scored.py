"""Windows to evaluate: every scored frame once, padding never."""

import itertools

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


@pytest.mark.parametrize("cut", ["shift", "causal"])
@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("step", [1, 3])
def test_other_cuts_hold_each_scored_frame_once_too(cut, length, step):
    items = scored_items(every(step), length=length, cut=cut)
    assert sorted(frames_of(items)) == [(s, f) for s in range(3) for f in range(0, 7, step)]
    for batch, frames in items.batches(4):
        if cut == "causal":
            assert not frames[:, :-1].any()
        assert (batch.mask[frames] == 1).all()


def test_a_shifted_window_counts_instead_of_the_one_before_or_with_it():
    """Seven frames in windows of three: 0-2, 3-5, 4-6."""
    once = scored_items(every(1), length=3, cut="shift")
    assert once.frames[:3].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
    twice = scored_items(every(1), length=3, cut="shift_twice")
    assert twice.frames.all()
    assert twice.num_frames == 27


@pytest.mark.parametrize("cut", ["side", "shift", "causal"])
@pytest.mark.parametrize("length", [3, 4])
def test_frames_before_scored_ones_are_there_for_velocities(cut, length):
    items = scored_items(every(3), length=length, cut=cut)
    window, offset = np.nonzero(items.before)
    found = zip(items.sequence[window], items.start[window] + offset, strict=True)
    assert sorted(found) == [(s, f) for s in range(3) for f in (2, 5)]
    assert not scored_items(every(3), length=1, cut=cut).before.any()
    unknown = [np.arange(7) != 2] * 3
    items = scored_items(every(3)._replace(known=unknown), length=length, cut=cut)
    window, offset = np.nonzero(items.before)
    assert sorted(items.start[window] + offset) == [5, 5, 5]


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_batches_show_the_frames_themselves(batch_size):
    items = scored_items(every(2), length=3)
    found = []
    for batch, frames in items.batches(batch_size):
        assert batch.keypoints.shape == (batch_size, 3, 17, 2)
        found.append(np.asarray(batch.pose)[frames])
    expected = np.concatenate([s.pose[::2] for s in VIEWS.sequences])
    np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 7, 50])
def test_batches_cut_no_group(batch_size):
    """Seven windows of each of three sequences: groups of four and three."""
    items = scored_items(all_frames(VIEWS))
    groups = items.groups(batch_size)
    shared = min(4, batch_size)
    assert np.bincount(groups).max() == shared
    for first in range(0, 21, 7):
        expected = groups[first] + np.arange(7) // shared
        np.testing.assert_array_equal(groups[first : first + 7], expected)
    rows = [r[inside] for r, inside in items.rows(batch_size)]
    assert np.concatenate(rows).tolist() == list(range(21))
    of_batches = [set(groups[r].tolist()) for r in rows]
    assert sum(map(len, of_batches)) == len(set().union(*of_batches))
    # As full as they can be.
    for these, following in itertools.pairwise(rows):
        next_group = np.count_nonzero(groups == groups[following[0]])
        assert len(these) + next_group > batch_size


def test_one_window_in_some():
    items = scored_items(every(2), length=3)
    some = items.every(3)
    chosen = np.arange(0, len(items.items), 3)
    for name in ("items", "frames", "sequence", "start", "before"):
        np.testing.assert_array_equal(getattr(some, name), getattr(items, name)[chosen])
    batch, _ = next(some.batches(2))
    np.testing.assert_array_equal(batch.index, items.items[chosen[:2]])
    assert items.every(1).num_frames == items.num_frames
    assert (items.every(1).shared, some.shared) == (4, 1)
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        items.every(0)
    # Of the first window the frame before a scored one alone is asked for.
    nothing = items._replace(frames=items.frames & (np.arange(len(items.frames)) > 0)[:, None])
    with pytest.raises(ValueError, match="every: expected a scored frame to be left, got none"):
        nothing.every(len(items.items))


def test_legends_and_all_frames():
    items = scored_items(all_frames(VIEWS))
    assert items.num_frames == VIEWS.num_frames
    assert (items.subjects, items.actions) == (VIEWS.subjects, VIEWS.actions)
    assert items.skeleton == H36M_17


def test_errors():
    with pytest.raises(ValueError, match=r"cut: expected one of .*, got 'half'"):
        scored_items(all_frames(VIEWS), cut="half")
    with pytest.raises(ValueError, match="scored: expected one flag per frame"):
        scored_items(ScoredViews(VIEWS, (np.ones(7, bool),)))
    with pytest.raises(ValueError, match="scored: expected at least one scored frame"):
        scored_items(ScoredViews(VIEWS, tuple(np.zeros(7, bool) for _ in range(3))))
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        next(scored_items(all_frames(VIEWS)).batches(0))
