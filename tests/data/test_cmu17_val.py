"""The protocol: frames in view, five a second, the same digits everywhere."""

from pathlib import Path

import numpy as np
import pytest

from posediff_jax.camera import project
from posediff_jax.data import cmu17_val_v1, procedural_motion
from posediff_jax.data.cmu17_val import BODIES, NOISE_PX, fingerprint, photograph

DATA = Path(__file__).parents[3] / "shared" / "data"
CLIPS = procedural_motion(3, num_clips=2, frames=40)


def test_every_twelfth_frame_that_is_all_in_the_image():
    result = photograph(CLIPS)
    assert len(result.views.sequences) == 8
    for sequence, scored in zip(result.views.sequences, result.scored, strict=True):
        inside = ((sequence.keypoints_px >= 0) & (sequence.keypoints_px < 1000)).all(axis=(1, 2))
        expected = [f for f in range(0, 40, 12) if inside[f]]
        assert np.flatnonzero(scored).tolist() == expected


def test_noise_changes_the_keypoints_alone():
    clean, noisy = photograph(CLIPS), photograph(CLIPS, noise_px=5.0)
    offsets = np.concatenate(
        [
            b.keypoints_px - a.keypoints_px
            for a, b in zip(clean.views.sequences, noisy.views.sequences, strict=True)
        ]
    )
    assert offsets.std() == pytest.approx(5.0, rel=0.05)
    for a, b in zip(clean.views.sequences, noisy.views.sequences, strict=True):
        np.testing.assert_array_equal(a.pose, b.pose)
        np.testing.assert_array_equal(a.camera.focal, b.camera.focal)
    for a, b in zip(clean.scored, noisy.scored, strict=True):
        np.testing.assert_array_equal(a, b)


def test_keypoints_are_the_projection_of_pose_and_root():
    sequence = photograph(CLIPS).views.sequences[0]
    pixels = project(sequence.camera, sequence.pose + sequence.root[:, None])
    np.testing.assert_allclose(pixels, sequence.keypoints_px, atol=0.02)


def test_scaled_bodies_move_alike():
    own, scaled = photograph(CLIPS), photograph(CLIPS, bodies="scaled")
    a, b = own.views.sequences[0].pose, scaled.views.sequences[0].pose
    assert 0.005 < np.abs(a - b).max() < 0.5


def test_the_fingerprint_sees_a_hundredth_of_a_pixel():
    result = photograph(CLIPS)
    assert fingerprint(result) == fingerprint(photograph(CLIPS))
    result.views.sequences[3].keypoints_px[0, 0, 0] += 0.01
    assert fingerprint(result) != fingerprint(photograph(CLIPS))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the motion capture beside the checkout")
@pytest.mark.parametrize("bodies", BODIES)
@pytest.mark.parametrize("noise_px", NOISE_PX)
def test_the_arrays_are_those_of_all_figures(bodies, noise_px):
    root = DATA / "cmu_raw" / "bvh" if bodies == "bvh" else DATA / "cmu17"
    result = cmu17_val_v1(root, noise_px=noise_px, bodies=bodies)
    frames = {"own": 1812, "scaled": 1811, "bvh": 162}[bodies]
    assert sum(map(np.sum, result.scored)) == frames


def test_other_data_is_refused(tmp_path):
    np.savez(tmp_path / "val.npz", **{"asf/01/01_01": CLIPS[0].poses})
    with pytest.raises(ValueError, match="does not give the arrays of cmu17-val-v1"):
        cmu17_val_v1(tmp_path)


def test_errors():
    with pytest.raises(ValueError, match="noise_px: expected one of"):
        cmu17_val_v1("anywhere", noise_px=3.0)
    with pytest.raises(ValueError, match="bodies: expected one of"):
        cmu17_val_v1("anywhere", bodies="large")
    with pytest.raises(FileNotFoundError):
        cmu17_val_v1("nowhere")
