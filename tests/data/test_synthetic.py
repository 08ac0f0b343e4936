"""Virtual cameras against a pinhole in NumPy, and the statistics of their noise."""

import functools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posediff_jax.data.motion import MotionClip
from posediff_jax.data.procedural import procedural_motion
from posediff_jax.data.synthetic import virtual_views
from posediff_jax.skeleton import COCO_17, H36M_16, H36M_17


@functools.cache
def clips():
    return procedural_motion(5, num_clips=7, frames=12)


@functools.cache
def views(**options):
    return virtual_views(1, clips(), H36M_17, views_per_clip=20, **options)


def pinhole(camera, world):
    """NumPy oracle: pixels and camera-axes points."""
    turn = Rotation.from_quat(np.roll(np.asarray(camera.orientation, np.float64), -1))
    flat = turn.inv().apply((world - np.asarray(camera.position)).reshape(-1, 3))
    points = flat.reshape(world.shape)
    return camera.focal * points[..., :2] / points[..., 2:] + camera.center, points


def test_keypoints_are_the_pinhole_image_of_the_clip():
    for sequence, clip in zip(views().sequences, np.repeat(clips(), 20), strict=True):
        pixels, points = pinhole(sequence.camera, clip.poses.astype(np.float64))
        np.testing.assert_allclose(sequence.keypoints_px, pixels, atol=5e-3)
        np.testing.assert_allclose(sequence.pose + sequence.root[:, None], points, atol=5e-6)
        assert (sequence.subject, sequence.action, sequence.fps) == (
            clip.subject,
            clip.action,
            clip.fps,
        )
        assert (sequence.confidence == 1.0).all()


def test_cameras_look_at_the_person_level_and_from_everywhere():
    distances, pitches, azimuths = [], [], []
    for sequence, clip in zip(views().sequences, np.repeat(clips(), 20), strict=True):
        turn = Rotation.from_quat(np.roll(sequence.camera.orientation, -1)).as_matrix()
        right, down, forward = turn.T
        target = clip.poses[:, 0].mean(axis=0)
        away = np.asarray(sequence.camera.position) - target
        np.testing.assert_allclose(forward, -away / np.linalg.norm(away), atol=1e-5)
        assert right[1] == pytest.approx(0.0, abs=1e-6)
        assert down[1] < 0
        distances.append(np.linalg.norm(away))
        pitches.append(np.degrees(np.arcsin(away[1] / distances[-1])))
        azimuths.append(np.arctan2(away[0], away[2]))
    assert 3.0 - 1e-5 < min(distances) < 3.5 < 5.5 < max(distances) < 6.0 + 1e-5
    assert -10.01 < min(pitches) < -5 < 25 < max(pitches) < 30.01
    assert np.histogram(azimuths, bins=4, range=(-np.pi, np.pi))[0].min() > 20


def test_intrinsics_are_like_those_of_human36m_and_differ():
    focal = np.stack([s.camera.focal for s in views().sequences])
    center = np.stack([s.camera.center for s in views().sequences])
    assert 1143 <= focal.min() < focal.max() <= 1150
    assert 504 - 1e-3 <= center.min() < center.max() <= 520 + 1e-3
    assert {tuple(s.camera.image_size.tolist()) for s in views().sequences} == {(1000.0, 1000.0)}


def test_a_view_depends_on_seed_clip_and_view_number_alone():
    few = virtual_views(1, clips()[:2], H36M_17, views_per_clip=3).sequences
    for sequence in few:
        same = next(s for s in views().sequences if s.name == sequence.name)
        np.testing.assert_array_equal(sequence.keypoints_px, same.keypoints_px)
    other = virtual_views(2, clips()[:2], H36M_17, views_per_clip=3).sequences
    assert all(np.abs(a.root - b.root).max() > 0.01 for a, b in zip(few, other, strict=True))


def test_somebody_who_walks_past_the_camera_is_always_in_front():
    poses = np.repeat(clips()[1].poses[:1], 40, axis=0) + np.linspace(-15, 15, 40)[
        :, None, None
    ] * [1, 0, 0]
    walker = MotionClip("far", "s", "a", poses.astype(np.float32), 50.0, "h36m_17")
    for sequence in virtual_views(0, [walker], H36M_17, views_per_clip=10).sequences:
        assert (sequence.pose + sequence.root[:, None])[..., 2].min() > 0.999


def test_distortion_bends_the_image_and_is_recorded():
    bent = views(distortion=True).sequences
    for a, b in zip(bent, views().sequences, strict=True):
        assert np.abs(a.camera.radial).min() > 0
        assert 0.01 < np.abs(a.keypoints_px - b.keypoints_px).max() < 80


def test_plain_noise_is_gaussian_of_the_given_size():
    noisy = views(noise_px=5.0).sequences
    error = np.stack(
        [a.keypoints_px - b.keypoints_px for a, b in zip(noisy, views().sequences, strict=True)]
    )
    assert error.std() == pytest.approx(5.0, rel=0.02)
    assert error.mean() == pytest.approx(0.0, abs=0.1)
    assert (np.abs(error) > 15).mean() == pytest.approx(0.0027, abs=0.001)
    assert all((s.confidence == 1).all() for s in noisy)


def test_detector_noise_has_heavy_tails_missing_joints_and_falling_confidence():
    clean, noisy = views().sequences, views(noise_px=4.0, detector=True).sequences
    error = np.stack(
        [
            np.linalg.norm(a.keypoints_px - b.keypoints_px, axis=-1)
            for a, b in zip(noisy, clean, strict=True)
        ]
    )
    confidence = np.stack([s.confidence for s in noisy])
    seen = confidence > 0
    # |n| / sqrt(chi2_3 / 3) is the root of 2 F(2, 3): P(> 6) = (1 + 12)^-1.5 of the survival of F.
    assert (error[seen] > 24).mean() == pytest.approx(13**-1.5, rel=0.25)
    assert np.median(error[seen]) == pytest.approx(
        4.0 * np.sqrt(3 * (0.5 ** (-2 / 3) - 1)), rel=0.05
    )
    inside = np.stack([((s.keypoints_px > 0) & (s.keypoints_px < 1000)).all(-1) for s in clean])
    assert (~seen)[inside].mean() == pytest.approx(0.01, abs=0.004)
    assert confidence[seen & (error < 2)].mean() > 0.85
    assert confidence[seen & (error > 40)].mean() < 0.3
    assert confidence[seen].min() >= 0.05
    assert confidence.max() <= 1.0


def test_joints_outside_the_image_are_missing_for_a_detector():
    near = views(distance=(3.0, 3.0), focal=(3000.0, 3000.0), detector=True).sequences
    pixels = np.stack([s.keypoints_px for s in near])
    outside = ((pixels < 0) | (pixels > 1000)).any(axis=-1)
    assert outside.mean() > 0.05
    assert (np.stack([s.confidence for s in near])[outside] == 0).all()


def test_clips_are_converted_to_the_skeleton_asked_for():
    sixteen = virtual_views(1, clips()[:1], H36M_16).sequences[0]
    seventeen = virtual_views(1, clips()[:1], H36M_17).sequences[0]
    np.testing.assert_allclose(sixteen.pose, np.delete(seventeen.pose, 9, axis=1), atol=1e-6)
    with pytest.raises(ValueError, match=r"clip 'procedural/5/0'.*h36m_17 -> coco_17"):
        virtual_views(1, clips()[:1], COCO_17)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views_per_clip": 0}, "views_per_clip: expected at least 1"),
        ({"noise_px": -1.0}, "noise_px: expected at least 0"),
        ({"distance": (0.0, 3.0)}, "distance"),
        ({"distance": (6.0, 3.0)}, "distance"),
        ({"focal": (0.0, 3.0)}, "focal"),
        ({"pitch_degrees": (0.0, 90.0)}, "pitch_degrees"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        virtual_views(0, clips()[:1], H36M_17, **options)


def test_no_clip_is_refused():
    with pytest.raises(ValueError, match="clips: expected at least one"):
        virtual_views(0, [], H36M_17)
