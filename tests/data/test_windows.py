"""Windows of every length, stride and padding."""

import numpy as np
import pytest

from posediff_jax.data.windows import heard_only, plan_clip, window_starts, windows

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


@pytest.mark.parametrize(("frames", "length"), [(1, 3), (5, 9), (7, 3), (4, 1)])
def test_causal_windows_end_at_each_frame(frames, length):
    index, mask = windows(frames, length=length, pad="causal")
    wanted = np.arange(frames)[:, None] - np.arange(length)[::-1]
    np.testing.assert_array_equal(index, np.maximum(wanted, 0))
    np.testing.assert_array_equal(mask, wanted >= 0)
    with pytest.raises(ValueError, match="stride: 'causal' has a window for each frame"):
        windows(frames, length=length, stride=2, pad="causal")


PLANS = [(f, n, o) for f in (1, 7, 9, 12, 40) for n in (1, 3, 9) for o in (0, 1, 4, 8) if o < n]


@pytest.mark.parametrize(("frames", "length", "overlap"), PLANS)
def test_the_shares_of_all_windows_in_a_frame_are_one(frames, length, overlap):
    plan = plan_clip(frames, length=length, overlap=overlap)
    total = np.zeros(frames)
    np.add.at(total, plan.index, plan.weight)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert (plan.weight[plan.mask == 0] == 0).all()
    assert (plan.weight[plan.mask == 1] > 0).all()
    # Where one window is alone, nothing is rounded.
    alone = np.bincount(plan.index[plan.mask == 1], minlength=frames) == 1
    assert (plan.weight[alone[plan.index] & (plan.mask == 1)] == 1).all()
    shared = [len(np.intersect1d(a, b)) for a, b in zip(plan.index, plan.index[1:], strict=False)]
    assert min(shared, default=overlap) >= overlap


def test_one_window_fades_into_the_next():
    plan = plan_clip(15, length=9, overlap=3)
    np.testing.assert_allclose(plan.weight[0], [1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(plan.weight[1], [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("frames", [1, 7, 9])
def test_a_clip_of_one_window_or_less_is_that_window(frames):
    plan = plan_clip(frames, length=9, overlap=5)
    assert plan.index.tolist() == [[*range(frames), *[frames - 1] * (9 - frames)]]
    assert plan.weight.tolist() == [[1.0] * frames + [0.0] * (9 - frames)]


def test_a_causal_plan_takes_the_last_frame_of_each_window():
    plan = plan_clip(6, length=3, causal=True)
    assert plan.index[:, -1].tolist() == list(range(6))
    assert plan.weight.tolist() == [[0, 0, 1]] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 3}, "overlap: expected 0 to 2, got 3"),
        ({"overlap": -1}, "overlap: expected 0 to 2, got -1"),
        ({"overlap": 1, "causal": True}, "overlap: expected 0 to 0, got 1"),
    ],
)
def test_plans_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan_clip(5, length=3, **options)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: plan_clip(13, length=9, overlap=2.5), "overlap"),
        (lambda: plan_clip(13, length=9, overlap="3"), "overlap"),
        (lambda: plan_clip(13, length=9.0), "length"),
        (lambda: window_starts(13, length=9, stride=6.5), "stride"),
        (lambda: window_starts(True, length=9), "num_frames"),
    ],
)
def test_numbers_that_are_not_whole_are_refused(call, name):
    with pytest.raises(TypeError, match=f"{name}: expected a whole number, got "):
        call()


def test_windows_with_nothing_to_say_leave_their_weight_to_the_others():
    plan = plan_clip(9, length=3, overlap=1)  # windows at 0, 2, 4, 6
    assert heard_only(plan, np.ones(4, bool)) is plan
    some = heard_only(plan, np.array([True, False, False, True]))
    assert some.weight.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1]]
    shares = np.bincount(some.index.ravel(), weights=some.weight.ravel())
    assert shares.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1]
