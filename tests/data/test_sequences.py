"""Every impossible sequence is refused by name."""

import numpy as np
import pytest

from posediff_jax.data.sequences import PoseSequences
from posediff_jax.skeleton import H36M_16, H36M_17
from tests.data.fakes import sequence, sequences


def checked(**changes):
    return PoseSequences((sequence("good", seed=9), sequence(**changes)), H36M_17)


def altered(field, index, value):
    """The fake sequence with one value of one array replaced."""
    array = getattr(sequence(), field).copy()
    array[index] = value
    return {field: array}


def test_legends_are_sorted_names_and_frames_add_up():
    data = sequences()
    assert data.subjects == ("anna", "zoe")
    assert data.actions == ("jump", "walk")
    assert data.num_frames == 12


def test_a_sequence_without_truth_is_fine():
    PoseSequences((sequence(pose=None, root=None),), H36M_17)


def test_another_skeleton_is_named_with_the_sequence():
    with pytest.raises(ValueError, match=r"'walk': keypoints_px.*16, 2.*'h36m_16'.*\(4, 17, 2\)"):
        PoseSequences((sequence(),), H36M_16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints_px": np.zeros((4, 17, 3))}, r"keypoints_px: expected \(\.\.\., 17, 2\)"),
        ({"keypoints_px": np.zeros((0, 17, 2))}, "keypoints_px: expected .* at least one frame"),
        ({"keypoints_px": np.zeros((17, 2))}, "keypoints_px: expected .* at least one frame"),
        (altered("keypoints_px", (2, 3, 0), np.nan), r"frame 2, joint 3 \(right_ankle\)"),
        (altered("keypoints_px", (1, 0, 1), np.inf), r"frame 1, joint 0 \(pelvis\)"),
        ({"confidence": np.ones((3, 17))}, r"confidence: expected shape \(4, 17\), got \(3, 17\)"),
        (altered("confidence", (0, 2), 1.5), r"\[0, 1\], got 1.5 at frame 0, joint 2"),
        (altered("confidence", (3, 10), np.nan), r"got nan at frame 3, joint 10 \(head\)"),
        ({"fps": 0.0}, "fps: expected more than 0"),
        ({"pose": np.zeros((4, 16, 3))}, r"pose: expected shape \(4, 17, 3\)"),
        (altered("pose", (1, 2, 2), np.nan), r"pose: expected finite .* frame 1, joint 2"),
        ({"pose": sequence().pose + 1.0}, r"pose: expected root-relative .* 1.732 m"),
        ({"root": np.zeros((4, 2))}, r"root: expected shape \(4, 3\)"),
        (altered("root", (2, 0), np.nan), "root: expected finite metres, .* at frame 2"),
        (altered("pose", (1, 16, 2), -6.0), r"in front of the camera.*frame 1, joint 16 \(right_w"),
        ({"pose": None}, "expected pose in all or in none, got it in 1 of 2"),
        ({"name": "good"}, "'good' occurs twice"),
    ],
)
def test_impossible_sequences_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        checked(**changes)
    assert repr(changes.get("name", "walk")) in str(caught.value) or "all or in none" in message


def test_a_root_behind_the_camera_is_refused_without_a_pose():
    root = sequence().root * np.float32([1, 1, -1])
    with pytest.raises(ValueError, match=r"'walk': root: expected z > 0"):
        PoseSequences((sequence(pose=None, root=root),), H36M_17)


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("focal", np.zeros(2), "focal: expected positive"),
        ("focal", np.ones((4, 2)), "without leading axes"),
        ("center", np.array([np.nan, 0]), "center: expected finite"),
        ("image_size", np.zeros(2), "image_size: expected positive"),
        ("orientation", np.ones(4), "orientation: expected a unit quaternion"),
    ],
)
def test_impossible_cameras_are_refused_by_name(leaf, value, message):
    camera = sequence().camera.replace(**{leaf: value})
    with pytest.raises(ValueError, match=rf"sequence 'walk': camera: .*{message}"):
        checked(camera=camera)


def test_no_sequence_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one, got none"):
        PoseSequences((), H36M_17)
