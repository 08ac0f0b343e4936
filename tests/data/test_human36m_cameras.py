"""The camera table: against the authors' constants, and by what it must mean."""

import jax
import numpy as np
import pytest

from posediff_jax.camera import camera_to_world, intrinsics_vector
from posediff_jax.data.human36m_cameras import CAMERA_IDS, human36m_cameras
from tests.fakes import HUMAN36M_SUBJECTS, human36m_calibration


@pytest.mark.parametrize("subject", HUMAN36M_SUBJECTS)
def test_equals_the_constants_of_the_reference(subject):
    camera, table = human36m_cameras(subject), human36m_calibration()
    for found, name in (
        (camera.image_size, "res"),
        (camera.focal, "focal_px"),
        (camera.center, "center_px"),
        (camera.radial, "radial"),
        (camera.tangential, "tangential"),
        (camera.orientation, f"quat_{subject}"),
        (camera.position, f"trans_{subject}"),
    ):
        np.testing.assert_allclose(found, table[name], rtol=2e-7, atol=1e-8, err_msg=name)
    # Float32 near 1, from which the principal point is a small difference.
    vector = intrinsics_vector(camera)
    np.testing.assert_allclose(vector, table["intrinsic_normalised"], rtol=2e-7, atol=1.3e-7)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(camera))
    assert len(CAMERA_IDS) == 4


@pytest.mark.parametrize("subject", HUMAN36M_SUBJECTS)
def test_cameras_stand_around_the_room_level_and_look_into_it(subject):
    camera = human36m_cameras(subject)
    origin = camera_to_world(camera, np.zeros((4, 1, 3), np.float32))[:, 0]
    axes = camera_to_world(camera, np.tile(np.eye(3, dtype=np.float32), (4, 1, 1)))
    right, down, forward = np.moveaxis(np.asarray(axes - origin[:, None]), 1, 0)
    assert (np.abs(right[:, 2]) < 0.1).all()
    assert (down[:, 2] < -0.9).all()
    # The middle of the image meets the middle of the room.
    toward = -camera.position[:, :2]
    cosine = (forward[:, :2] * toward).sum(-1) / (
        np.linalg.norm(forward[:, :2], axis=-1) * np.linalg.norm(toward, axis=-1)
    )
    assert (cosine > 0.97).all()
    # One in each quarter of the room, as the views are ordered.
    quarters = np.sign(camera.position[:, :2]).astype(int).tolist()
    assert quarters == [[1, 1], [1, -1], [-1, 1], [-1, -1]]


def test_s1_camera_0_points_down_as_the_layout_note_says():
    camera = jax.tree.map(lambda leaf: leaf[0], human36m_cameras("S1"))
    down = camera_to_world(camera, np.float32([[0, 1, 0]])) - camera.position
    np.testing.assert_allclose(down[0], [0.05, 0.18, -0.98], atol=0.01)


def test_a_subject_without_calibration_is_refused():
    with pytest.raises(ValueError, match=r"subject: expected one of .*'S11'.*, got 'S2'"):
        human36m_cameras("S2")
