"""Windows of every length, stride and padding."""

import numpy as np
import pytest

from posediff_jax.data.windows import windows

LENGTHS = [(f, n, s) for f in (1, 2, 7, 12) for n in (1, 3, 9) for s in (1, 2, None)]


@pytest.mark.parametrize(("frames", "length", "stride"), LENGTHS)
@pytest.mark.parametrize("pad", ["edge", "shift", "drop"])
def test_windows_are_runs_of_frames_with_the_last_one_repeated_where_masked(
    frames, length, stride, pad
):
    index, mask = windows(frames, length=length, stride=stride, pad=pad)
    assert index.shape == mask.shape == (len(index), length)
    steps = np.diff(index, axis=1)
    np.testing.assert_array_equal(steps, mask[:, 1:])
    assert (index[mask == 0] == frames - 1).all()
    assert (mask[:, :1] == 1).all()


@pytest.mark.parametrize(
    ("frames", "length", "stride"), [case for case in LENGTHS if (case[2] or 1) <= case[1]]
)
@pytest.mark.parametrize("pad", ["edge", "shift"])
def test_with_padding_every_frame_is_in_some_window(frames, length, stride, pad):
    index, mask = windows(frames, length=length, stride=stride, pad=pad)
    assert set(index[mask == 1].tolist()) == set(range(frames))


@pytest.mark.parametrize(("frames", "length", "stride"), LENGTHS)
def test_without_overlap_every_frame_counts_once(frames, length, stride):
    index, mask = windows(frames, length=length)
    assert sorted(index[mask == 1].tolist()) == list(range(frames))


def test_shift_overlaps_instead_of_padding():
    index, mask = windows(7, length=3, pad="shift")
    assert index[-1].tolist() == [4, 5, 6]
    assert mask.min() == 1


@pytest.mark.parametrize(("frames", "length"), [(1, 3), (5, 9), (7, 3), (20, 9), (9, 9)])
def test_split_pads_both_ends_alike(frames, length):
    """The first and last frame are repeated; the odd frame goes to the end."""
    index, mask = windows(frames, length=length, pad="split")
    before, after = int((mask[0] == 0).argmin()), int((mask[-1, ::-1] == 0).argmin())
    overhang = index.size - frames
    assert (before, after) == (overhang // 2, overhang - overhang // 2)
    real = [0] * before + list(range(frames)) + [frames - 1] * after
    assert index.ravel().tolist() == real
    assert sorted(index[mask == 1].tolist()) == list(range(frames))


def test_split_has_no_overlap():
    with pytest.raises(ValueError, match="stride: 'split' needs that of the length 3, got 2"):
        windows(5, length=3, stride=2, pad="split")


def test_drop_gives_nothing_for_a_short_sequence():
    assert windows(2, length=3, pad="drop")[0].shape == (0, 3)


def test_a_stride_beyond_the_length_samples_frames():
    assert windows(30, length=1, stride=12)[0].tolist() == [[0], [12], [24]]


@pytest.mark.parametrize("option", ["num_frames", "length", "stride"])
def test_numbers_below_one_are_refused(option):
    numbers = {"num_frames": 5, "length": 2, "stride": 1} | {option: 0}
    with pytest.raises(ValueError, match=f"{option}: expected at least 1, got 0"):
        windows(numbers.pop("num_frames"), **numbers)


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match=r"pad: expected one of .*, got 'wrap'"):
        windows(5, length=2, pad="wrap")
