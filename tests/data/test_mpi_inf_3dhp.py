"""The MPI-INF-3DHP readers, on small files of both layouts whose truth is known."""

from pathlib import Path

import numpy as np
import pytest

from posediff_jax.camera import project
from posediff_jax.data import load_mpi_inf_3dhp_test, load_mpi_inf_3dhp_train, scored_items
from posediff_jax.data.batching import item_table
from posediff_jax.data.mpi_inf_3dhp_mat import read_calibration
from posediff_jax.data.npz import read_npz
from posediff_jax.skeleton import MPI_INF_3DHP_17
from tests import fakes

FRAMES = 7
INVALID = [2, 5]


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npz")
    return folder, fakes.write_fake_3dhp_npz(folder, frames=FRAMES)


@pytest.fixture(scope="module")
def mat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mat")
    return folder, fakes.write_fake_3dhp_mat(folder, frames=FRAMES)


def files(request, kind):
    """A folder, its truth, and what there is in it."""
    folder, truth = request.getfixturevalue(kind)
    some = {"npz": ("S1", "S3"), "mat": ("S1",)}[kind], ("TS1", "TS6")
    return folder, truth, *some


@pytest.mark.parametrize("kind", ["npz", "mat"])
@pytest.mark.parametrize(("annotation", "size"), [("annot3", 1), ("univ_annot3", fakes.UNIVERSAL)])
def test_training_sequences(request, kind, annotation, size):
    folder, truth, subjects, _ = files(request, kind)
    found = load_mpi_inf_3dhp_train(folder, annotation=annotation, subjects=subjects)
    assert found.skeleton == MPI_INF_3DHP_17
    names = [f"{s}/{q}/{c}" for s in subjects for q in ("Seq1", "Seq2") for c in range(9) if c != 3]
    assert [s.name for s in found.sequences] == names
    for sequence in found.sequences:
        joints = sequence.pose + sequence.root[:, None]
        np.testing.assert_allclose(joints, size * truth[sequence.name] / 1000, atol=2e-6)
        np.testing.assert_array_equal(sequence.pose[:, 14], 0)
        subject, part, camera = sequence.name.split("/")
        assert (sequence.subject, sequence.action) == (subject, part)
        assert sequence.fps == fakes.fps_3dhp(subject, part)
        focal, center = fakes.train_lens_3dhp(int(camera))
        np.testing.assert_allclose(sequence.camera.focal, focal, rtol=1e-4)
        np.testing.assert_allclose(sequence.camera.center, center, atol=0.05)
        assert sequence.camera.image_size.tolist() == [2048, 2048]
        np.testing.assert_allclose(
            project(sequence.camera, joints), sequence.keypoints_px, atol=0.05
        )


@pytest.mark.parametrize("kind", ["npz", "mat"])
@pytest.mark.parametrize(("annotation", "size"), [("annot3", 1), ("univ_annot3", fakes.UNIVERSAL)])
def test_test_sequences_count_their_valid_frames(request, kind, annotation, size):
    folder, truth, _, names = files(request, kind)
    found = load_mpi_inf_3dhp_test(folder, annotation=annotation, sequences=names)
    views, scored, _ = found
    valid = [f for f in range(FRAMES) if f not in INVALID]
    for name, sequence, counts in zip(names, views.sequences, scored, strict=True):
        assert (sequence.name, sequence.action) == (name, name)
        assert np.flatnonzero(counts).tolist() == valid
        joints = sequence.pose + sequence.root[:, None]
        np.testing.assert_allclose(joints[valid], size * truth[name][valid] / 1000, atol=2e-6)
        pixels = project(sequence.camera, joints[valid])
        np.testing.assert_allclose(pixels, sequence.keypoints_px[valid], atol=0.05)
        assert sequence.camera.image_size.tolist() == [[2048, 2048], [1920, 1080]][name == "TS6"]
        # The nearest valid frame, of two the earlier one, stands in.
        np.testing.assert_array_equal(joints[2], joints[1])
        np.testing.assert_array_equal(sequence.keypoints_px[5], sequence.keypoints_px[4])
    items = scored_items(found, length=3, cut="shift")
    assert items.num_frames == 2 * len(valid)
    # A pose that stands in has no velocity.
    assert not items.before.any()


def test_other_cameras_are_read_when_named(mat):
    folder, truth = mat
    found = load_mpi_inf_3dhp_train(folder, subjects=("S1",), cameras=(3, 13))
    assert [s.name for s in found.sequences] == [
        f"S1/{q}/{c}" for q in ("Seq1", "Seq2") for c in (3, 13)
    ]
    last = found.sequences[-1]
    np.testing.assert_allclose(
        last.pose + last.root[:, None], truth["S1/Seq2/13"] / 1000, atol=2e-6
    )


@pytest.mark.parametrize(("name", "fixture"), [("TS1", "ts1"), ("TS6", "ts5")])
def test_test_lenses_are_those_of_the_released_evaluation(npz, name, fixture):
    path = Path(__file__).parents[1] / "golden" / f"ddhpose_aggregate3dhp_{fixture}.npz"
    with np.load(path) as file:
        fx, fy, cx, cy = file["out_cam"].reshape(-1, 9)[0, :4]
    (sequence,) = load_mpi_inf_3dhp_test(npz[0], sequences=(name,)).views.sequences
    np.testing.assert_allclose(sequence.camera.focal, [fx, fy], rtol=1e-6)
    np.testing.assert_allclose(sequence.camera.center, [cx, cy], rtol=1e-6)


def test_batches_come_out_as_from_any_reader(npz):
    found = load_mpi_inf_3dhp_train(npz[0], subjects=("S2",), cameras=(0,))
    batch = item_table(found, length=3, augment=True).gather(np.arange(4))
    assert batch.pose.shape == (4, 3, 17, 3)
    assert np.abs(batch.keypoints).max() < 1.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotation": "annot2"}, r"annotation: expected one of \('annot3', 'univ_annot3'\), got"),
        ({"subjects": ("S9",)}, r"subjects: expected some of .*, got \('S9',\)"),
        ({"cameras": (3,)}, r"key 'data/S1 Seq1': expected the key '3', got \['0', '1'"),
    ],
)
def test_unknown_options_are_refused(options, message, npz):
    with pytest.raises(ValueError, match=message):
        load_mpi_inf_3dhp_train(npz[0], **options)


def test_a_file_of_the_other_annotation_is_no_substitute(npz, tmp_path):
    (tmp_path / "data_test_3dhp.npz").write_bytes((npz[0] / "data_test_3dhp.npz").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"data_test_3dhp_ori\.npz: .*another annotation"):
        load_mpi_inf_3dhp_test(tmp_path)
    assert load_mpi_inf_3dhp_test(tmp_path, annotation="univ_annot3").views.num_frames == 6 * FRAMES


def change_npz(npz, tmp_path, name, change):
    data = read_npz(npz[0] / name, objects=True)["data"]
    change(data)
    np.savez(tmp_path / name, data=np.array(data, dtype=object))


def no_valid(data):
    data["TS2"]["valid"][:] = 0


def half_valid(data):
    data["TS2"]["valid"][1] = 0.5


def nan_where_valid(data):
    data["TS3"]["data_3d"][3, 4] = np.nan


def metres(data):
    data["TS1"]["data_3d"] /= 1000


def short(data):
    data["TS1"]["data_2d"] = data["TS1"]["data_2d"][:-1]


def no_sequence(data):
    del data["TS4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_valid, r"key 'data/TS2/valid': expected 1 for a valid frame, .* the values \[0.0\]"),
        (half_valid, r"key 'data/TS2/valid': expected 1 .* got the values \[0.0, 0.5, 1.0\]"),
        (
            nan_where_valid,
            r"key 'data/TS3/data_3d': expected finite values, got nan at index \(3, 4",
        ),
        (metres, "key 'data/TS1/data_3d': expected millimetres, got a thigh of 0."),
        (
            short,
            r"key 'data/TS1/data_2d': expected a floating array \(7, 17, 2\), got .*\(6, 17, 2\)",
        ),
        (no_sequence, "key 'data': expected the key 'TS4', got"),
    ],
)
def test_other_contents_are_refused_by_path_and_key(change, message, npz, tmp_path):
    change_npz(npz, tmp_path, "data_test_3dhp_ori.npz", change)
    with pytest.raises(ValueError, match=rf"data_test_3dhp_ori\.npz: {message}"):
        load_mpi_inf_3dhp_test(tmp_path)


def other_views(data):
    data["S1 Seq1"] = data["S1 Seq1"][:1]


def no_rate(data):
    data["S1 Seq1"][1] = 0


def flat(data):
    data["S1 Seq1"][0]["4"]["data_3d"] = data["S1 Seq1"][0]["4"]["data_3d"].reshape(FRAMES, 51)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_views, "key 'data/S1 Seq1': expected views and frames per second"),
        (no_rate, "key 'data/S1 Seq1': expected frames per second, got 0"),
        (flat, r"key 'data/S1 Seq1/4/data_3d': expected shape \(any, 17, 3\), got \(7, 51\)"),
    ],
)
def test_other_training_files_are_refused_by_path_and_key(change, message, npz, tmp_path):
    change_npz(npz, tmp_path, "data_train_3dhp_ori.npz", change)
    with pytest.raises(ValueError, match=rf"data_train_3dhp_ori\.npz: {message}"):
        load_mpi_inf_3dhp_train(tmp_path)


@pytest.mark.parametrize(
    "name", ["S1/Seq1/annot.mat", "S1/Seq2/camera.calibration", "TS1/annot_data.mat"]
)
def test_missing_and_cut_originals_are_named(name, mat, tmp_path):
    folder = tmp_path / "copy"
    for file in mat[0].rglob("*.*"):
        target = folder / file.relative_to(mat[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())

    def load():
        load_mpi_inf_3dhp_test(folder, sequences=("TS1",))
        load_mpi_inf_3dhp_train(folder, subjects=("S1",))

    load()
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name):
        load()
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load()


def test_calibrations_that_cannot_be_are_named_by_line(mat, tmp_path):
    text = (mat[0] / "S1" / "Seq1" / "camera.calibration").read_text()
    path = tmp_path / "camera.calibration"
    for old, new in (
        ("1490.0", "nan"),
        ("1490.0", "-1490.0"),
        ("  intrinsic   1490.0", "intrinsic"),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match=r"camera\.calibration: line 6: expected"):
            read_calibration(path)
