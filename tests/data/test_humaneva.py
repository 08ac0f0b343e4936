"""The HumanEva-I reader, on small files of the same layout whose truth is known."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from posediff_jax.calibration import fit_lens
from posediff_jax.camera import project
from posediff_jax.data.batching import item_table
from posediff_jax.data.humaneva import load_humaneva
from posediff_jax.skeleton import HUMANEVA_15
from tests import fakes

FRAMES = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("humaneva")
    return folder, fakes.write_fake_humaneva(folder, frames=FRAMES)


def test_chunks_are_sequences_and_gaps_stay_gaps(data):
    folder, _ = data
    found = load_humaneva(folder, "validate", actions=("Walking", "Jog", "Box"))
    expected = [
        f"Validate/{subject}/{action} 1 chunk{chunk}/{camera}"
        for subject in ("S1", "S2", "S3")
        for action in ("Walking", "Jog", "Box")
        for chunk in (0, 2)
        for camera in ("C1", "C2", "C3")
    ]
    assert [s.name for s in found.sequences] == expected
    assert found.skeleton == HUMANEVA_15
    assert (found.subjects, found.actions) == (("S1", "S2", "S3"), ("Box", "Jog", "Walking"))
    assert {s.fps for s in found.sequences} == {60.0}
    assert {s.num_frames for s in found.sequences} == {FRAMES}
    everything = load_humaneva(folder)
    assert len(everything.sequences) == 3 * 5 * 2 * 3
    assert everything.sequences[0].name == "Train/S1/Walking 1 chunk0/C1"


def test_poses_are_the_world_seen_from_the_camera(data):
    folder, worlds = data
    for split, part in (("train", "Train"), ("validate", "Validate")):
        for sequence in load_humaneva(folder, split, actions=("Gestures",)).sequences:
            _, subject, take, camera = sequence.name.split("/")
            place = np.array(fakes.HUMANEVA_PLACES[subject == "S2"][int(camera[1]) - 1])
            expected = fakes.seen_from(
                worlds[f"{part}/{subject}"][take], place[:4], place[4:] / 1000
            )
            joints = sequence.pose + sequence.root[:, None]
            np.testing.assert_allclose(joints, expected, atol=5e-6)
            np.testing.assert_array_equal(sequence.pose[:, 0], 0)


def test_lenses_are_found_from_keypoints_and_positions(data):
    folder, _ = data
    for sequence in load_humaneva(folder, subjects=("S2",), actions=("Box",)).sequences:
        np.testing.assert_allclose(sequence.camera.focal, fakes.HUMANEVA_FOCAL, rtol=1e-4)
        np.testing.assert_allclose(sequence.camera.center, fakes.HUMANEVA_CENTER, atol=0.02)
        pixels = project(sequence.camera, sequence.pose + sequence.root[:, None])
        np.testing.assert_allclose(pixels, sequence.keypoints_px, atol=0.02)
        assert sequence.camera.image_size.tolist() == [640, 480]


def test_a_lens_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    points = rng.normal((0, 0, 5), 1, (50, 3))
    pixels = points[:, :2] / points[:, 2:] * [600, 620] + [310, 250] + rng.normal(0, 5, (50, 2))
    focal, center = fit_lens(points, pixels)

    def residuals(lens):
        return (points[:, :2] / points[:, 2:] * lens[:2] + lens[2:] - pixels).ravel()

    best = least_squares(residuals, [500.0, 500.0, 300.0, 200.0], xtol=1e-14, gtol=1e-14).x
    np.testing.assert_allclose([*focal, *center], best, rtol=1e-6)


def test_points_that_tell_no_lens_give_none():
    points = np.random.default_rng(1).normal((0, 0, 5), 1, (20, 3))
    pixels = points[:, :2] / points[:, 2:] * 600 + 300
    assert fit_lens(points, pixels) is not None
    assert fit_lens(np.repeat(points[:1], 20, axis=0), pixels) is None  # one ray
    assert fit_lens(points, 600 - pixels) is None  # mirrored
    assert fit_lens(points - [0, 0, 6], pixels) is None  # behind the camera


def test_coco_detections_become_15_joints(data, tmp_path):
    """A perfect detector of COCO joints agrees wherever the two conventions share a joint."""
    folder, _ = data
    with np.load(folder / "data_2d_humaneva15_gt.npz", allow_pickle=True) as file:
        truth = file["positions_2d"].item()
    by_name = {
        **{5: 2, 7: 3, 9: 4, 6: 5, 8: 6, 10: 7},  # arms
        **{11: 8, 13: 9, 15: 10, 12: 11, 14: 12, 16: 13},  # legs
        **dict.fromkeys((0, 1, 2, 3, 4), 14),  # face
    }
    order = [by_name[j] for j in range(17)]
    coco = {
        g: {t: [v[:, order] for v in views] for t, views in x.items()} for g, x in truth.items()
    }
    (tmp_path / "data_3d_humaneva15.npz").write_bytes(
        (folder / "data_3d_humaneva15.npz").read_bytes()
    )
    symmetry = [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]
    np.savez(
        tmp_path / "data_2d_humaneva15_detectron_pt_coco.npz",
        positions_2d=np.array(coco, dtype=object),
        metadata=np.array({"keypoints_symmetry": symmetry}, dtype=object),
    )
    options = {"subjects": ("S1",), "actions": ("Jog",)}
    found = load_humaneva(tmp_path, keypoints="detectron", **options)
    expected = load_humaneva(folder, **options)
    for a, b in zip(found.sequences, expected.sequences, strict=True):
        np.testing.assert_array_equal(a.keypoints_px[:, 2:], b.keypoints_px[:, 2:])
        hips = b.keypoints_px[:, [8, 11]].mean(axis=1)
        np.testing.assert_allclose(a.keypoints_px[:, 0], hips, rtol=1e-6)
        np.testing.assert_array_equal(a.pose, b.pose)


def test_batches_come_out_as_from_any_reader(data):
    folder, _ = data
    found = load_humaneva(folder, "validate", subjects=("S3",), actions=("Box",))
    batch = item_table(found, length=3, augment=True).gather(np.arange(4))
    assert batch.keypoints.shape == (4, 3, 15, 2)
    assert batch.pose.shape == (4, 3, 15, 3)
    assert np.abs(batch.keypoints).max() < 1.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, r"split: expected some of \('train', 'validate'\), got \('test',\)"),
        ({"keypoints": "cpn"}, "keypoints: expected some of .*, got"),
        ({"subjects": ("S4",)}, "subjects: expected some of .*, got"),
        ({"actions": ("Walk",)}, "actions: expected some of .*, got"),
        ({"actions": ()}, "actions: expected some of .*, got"),
    ],
)
def test_unknown_options_are_refused(options, message, data):
    with pytest.raises(ValueError, match=message):
        load_humaneva(data[0], **options)


@pytest.mark.parametrize(
    ("take", "value", "message"),
    [
        (
            "Walking 1",
            np.ones((2, 15, 3), np.float32),
            "Walking 1': expected a name like 'Walking 1 chunk0'",
        ),
        ("Box 1 chunk0", np.ones((2, 20, 3), np.float32), r"\(any, 15, 3\), got \(2, 20, 3\)"),
        ("Box 1 chunk5", np.eye(15, 3, dtype=np.float32)[None], "expected the take 'Box 1 chunk5'"),
    ],
)
def test_other_takes_are_refused_by_path_and_key(take, value, message, data, tmp_path):
    for name in ("data_3d_humaneva15.npz", "data_2d_humaneva15_gt.npz"):
        (tmp_path / name).write_bytes((data[0] / name).read_bytes())
    path = tmp_path / "data_3d_humaneva15.npz"
    with np.load(path, allow_pickle=True) as file:
        nested = file["positions_3d"].item()
    if take == "Box 1 chunk5":
        value = nested["Train/S1"]["Box 1 chunk0"]
    nested["Train/S1"][take] = value
    np.savez(path, positions_3d=np.array(nested, dtype=object))
    with pytest.raises(ValueError, match=message):
        load_humaneva(tmp_path)


def test_keypoints_of_another_person_are_found_out(data, tmp_path):
    folder, _ = data
    for name in ("data_3d_humaneva15.npz", "data_2d_humaneva15_gt.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    path = tmp_path / "data_2d_humaneva15_gt.npz"
    with np.load(path, allow_pickle=True) as file:
        mirrored = fakes.map_takes(
            file["positions_2d"].item(), lambda views: [640 - v for v in views]
        )
    np.savez(path, positions_2d=np.array(mirrored, dtype=object))
    with pytest.raises(ValueError, match=r"2d_humaneva15_gt\.npz: .* S1, camera C1: .* no lens"):
        load_humaneva(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_3d_humaneva15\.npz: no such"):
        load_humaneva(tmp_path)
