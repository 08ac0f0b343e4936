"""Clips check themselves; cutting and thinning."""

import numpy as np
import pytest

from posediff_jax.data.motion import MotionClip


def clip(poses, fps=60.0):
    return MotionClip("c", "s", "a", poses, fps, "h36m_17")


def counted(frames):
    """Every coordinate holds its frame number."""
    return np.broadcast_to(np.arange(frames, dtype=np.float32)[:, None, None], (frames, 17, 3))


def test_every_keeps_each_nth_frame_and_slows_down():
    slow = clip(counted(7)).every(3)
    assert slow.poses[:, 0, 0].tolist() == [0, 3, 6]
    assert slow.fps == 20.0


def test_split_covers_each_frame_once_and_names_pieces_by_their_start():
    pieces = clip(counted(7)).split(3)
    assert [p.name for p in pieces] == ["c@0", "c@3", "c@6"]
    np.testing.assert_array_equal(np.concatenate([p.poses for p in pieces]), counted(7))


def test_nan_is_reported_with_clip_frame_and_joint():
    poses = np.zeros((4, 17, 3), np.float32)
    poses[2, 5, 1] = np.nan
    with pytest.raises(ValueError, match=r"clip 'c'.*frame 2, joint 5 \(left_knee\)"):
        clip(poses)


@pytest.mark.parametrize(
    ("poses", "fps", "message"),
    [
        (np.zeros((4, 16, 3)), 60.0, r"17, 3\).*got \(4, 16, 3\)"),
        (np.zeros((4, 17, 2)), 60.0, r"17, 3\).*got \(4, 17, 2\)"),
        (np.zeros((0, 17, 3)), 60.0, "at least one frame"),
        (np.zeros((17, 3)), 60.0, "at least one frame"),
        (np.zeros((4, 17, 3)), 0.0, "fps: expected more than 0"),
    ],
)
def test_impossible_clips_are_refused(poses, fps, message):
    with pytest.raises(ValueError, match=message):
        clip(poses, fps)


@pytest.mark.parametrize("method", ["every", "split"])
def test_steps_below_one_are_refused(method):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        getattr(clip(counted(3)), method)(0)
