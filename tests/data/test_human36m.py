"""The Human3.6M reader, on small files of the same layout whose truth is known."""

import numpy as np
import pytest

from posediff_jax.camera import project
from posediff_jax.data.batching import item_table
from posediff_jax.data.human36m import ACTIONS, load_human36m
from posediff_jax.skeleton import COCO_17, H36M_16, H36M_17
from tests import fakes

FRAMES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("h36m")
    return folder, fakes.write_fake_human36m(folder, frames=FRAMES)


def test_test_split_has_every_take_of_both_subjects_from_four_cameras(data):
    folder, worlds = data
    found = load_human36m(folder, "test")
    expected = [
        f"{subject}/{take}/{camera}"
        for subject in ("S9", "S11")
        for take in worlds[subject]
        for camera in ("54138969", "55011271", "58860488", "60457274")
    ]
    assert [s.name for s in found.sequences] == expected
    assert len(expected) == (30 + 29) * 4
    assert found.skeleton == H36M_17
    assert found.subjects == ("S11", "S9")
    assert set(found.actions) == set(fakes.HUMAN36M_ACTIONS) == set(ACTIONS)
    assert {s.fps for s in found.sequences} == {50.0}


def test_train_split_and_held_out_subjects(data):
    folder, _ = data
    assert load_human36m(folder).subjects == ("S1", "S5", "S6", "S7", "S8")
    held_out = load_human36m(folder, "train", subjects=("S8",), actions=("Photo",))
    assert [s.subject for s in held_out.sequences] == ["S8"] * 8


def test_poses_are_the_world_seen_from_the_camera_and_project_onto_the_keypoints(data):
    folder, worlds = data
    table = fakes.human36m_calibration()
    for sequence in load_human36m(folder, "test", actions=("Greeting", "WalkDog")).sequences:
        subject, take, camera = sequence.name.split("/")
        c = ("54138969", "55011271", "58860488", "60457274").index(camera)
        expected = fakes.seen_from(
            worlds[subject][take], table[f"quat_{subject}"][c], table[f"trans_{subject}"][c]
        )
        joints = sequence.pose + sequence.root[:, None]
        np.testing.assert_allclose(joints, expected, atol=3e-6)
        np.testing.assert_array_equal(sequence.pose[:, 0], 0)
        pixels = project(sequence.camera, joints)
        np.testing.assert_allclose(pixels, sequence.keypoints_px, atol=2e-2)
        assert sequence.pose.dtype == sequence.keypoints_px.dtype == np.float32


def test_actions_are_whole_names(data):
    folder, _ = data
    for action in ("Sitting", "SittingDown", "Walking", "WalkDog", "WalkTogether"):
        found = load_human36m(folder, "test", subjects=("S9",), actions=(action,))
        takes = {s.name.split("/")[1] for s in found.sequences}
        assert takes == {action, f"{action} 1"}
        assert found.actions == (action,)


def test_keypoints_that_run_on_are_cut(data):
    folder, _ = data
    with np.load(folder / "data_2d_h36m_gt.npz", allow_pickle=True) as file:
        written = file["positions_2d"].item()["S9"]["Eating"][0]
    assert len(written) == FRAMES + 3
    first = load_human36m(folder, "test", actions=("Eating",)).sequences[0]
    np.testing.assert_array_equal(first.keypoints_px, written[:FRAMES])
    assert first.num_frames == FRAMES


def test_detectors_have_names_and_hrnet_has_16_joints(data):
    folder, _ = data
    options = {"subjects": ("S9",), "actions": ("Posing",)}
    gt, cpn, hrnet, gt_16 = (
        load_human36m(folder, "test", keypoints=name, skeleton=skeleton, **options)
        for name, skeleton in (("gt", None), ("cpn", None), ("hrnet", None), ("gt", H36M_16))
    )
    assert [x.skeleton for x in (gt, cpn, hrnet, gt_16)] == [H36M_17, H36M_17, H36M_16, H36M_16]
    for a, b, c, d in zip(*(x.sequences for x in (gt, cpn, hrnet, gt_16)), strict=True):
        np.testing.assert_array_equal(a.pose, b.pose)
        np.testing.assert_array_equal(a.pose[:, [j for j in range(17) if j != 9]], c.pose)
        np.testing.assert_array_equal(c.pose, d.pose)
        assert 2 < np.abs(a.keypoints_px - b.keypoints_px).mean() < 5  # N(0, 4) px
        assert 1.5 < np.abs(d.keypoints_px - c.keypoints_px).mean() < 4  # N(0, 3) px


def test_batches_come_out_as_from_any_reader(data):
    folder, _ = data
    found = load_human36m(folder, "test", actions=("Phoning",))
    table = item_table(found, augment=True)
    batch = table.gather(np.arange(5))
    assert table.num_items == 2 * found.num_frames
    assert batch.keypoints.shape == (5, 1, 17, 2)
    assert np.abs(batch.keypoints).max() < 1.2


def test_millimetres_are_found_out(tmp_path):
    fakes.write_fake_human36m(tmp_path, subjects=("S9",), actions=("Photo",), frames=2)
    path = tmp_path / "data_3d_h36m.npz"
    with np.load(path, allow_pickle=True) as file:
        nested = file["positions_3d"].item()
    scaled = {s: {t: 1000 * x for t, x in takes.items()} for s, takes in nested.items()}
    np.savez(path, positions_3d=np.array(scaled, dtype=object))
    with pytest.raises(ValueError, match=r"data_3d.*key 'positions_3d/S9/Photo': expected metres"):
        load_human36m(tmp_path, "test", subjects=("S9",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, r"split: expected one of \('train', 'test'\), got 'val'"),
        ({"keypoints": "openpose"}, "keypoints: expected one of .*'hrnet'.*, got 'openpose'"),
        ({"actions": ("Walk",)}, r"actions: expected names of .*, got \['Walk'\]"),
        ({"actions": ()}, "positions_3d': expected takes of"),
        ({"subjects": ("S2",)}, "subject: expected one of .*, got 'S2'"),
        ({"skeleton": COCO_17}, "skeleton: data_2d_h36m_gt.npz has .*'h36m_17'.*'coco_17'"),
        ({"keypoints": "hrnet", "skeleton": H36M_17}, "'h36m_16', which cannot become 'h36m_17'"),
    ],
)
def test_unknown_options_are_refused(options, message, data):
    with pytest.raises(ValueError, match=message):
        load_human36m(data[0], **options)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_3d_h36m\.npz: no such"):
        load_human36m(tmp_path)
    fakes.write_fake_human36m(tmp_path, subjects=("S9",), actions=("Photo",), frames=2)
    (tmp_path / "data_2d_h36m_hr.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_2d_h36m_hr\.npz: no such"):
        load_human36m(tmp_path, "test", keypoints="hrnet")
    with pytest.raises(ValueError, match=r"data_3d.*'positions_3d'.*subject 'S11', got \['S9'\]"):
        load_human36m(tmp_path, "test")


def spoil(path, key, change):
    """Rewrites one entry of a file."""
    with np.load(path, allow_pickle=True) as file:
        entries = {k: file[k].item() for k in file.files}
    entries[key] = change(entries[key])
    entries = {k: v for k, v in entries.items() if v is not None}
    np.savez(path, **{k: np.array(v, dtype=object) for k, v in entries.items()})


def with_take(value, take="Photo"):
    """Puts a value at the place of a take of S9."""
    return lambda nested: {"S9": nested["S9"] | {take: value}}


ONES = np.ones((2, 17, 2), np.float32)


@pytest.mark.parametrize(
    ("name", "key", "change", "message"),
    [
        ("3d", "positions_3d", lambda _: None, r"expected the key 'positions_3d', got \[\]"),
        (
            "3d",
            "positions_3d",
            lambda _: [1, 2],
            "'positions_3d': .* dictionary .* an array of shape",
        ),
        ("3d", "positions_3d", lambda _: {1: {}}, "'positions_3d': .* dictionary of names"),
        ("3d", "positions_3d", lambda _: {"S9": 3}, "'positions_3d/S9': .* dictionary .* int"),
        (
            *("3d", "positions_3d", with_take(np.ones((2, 17, 3), np.float32))),
            r"positions_3d/S9/Photo': expected shape \(any, 32, 3\), got \(2, 17, 3\)",
        ),
        (
            *("3d", "positions_3d", with_take(np.ones((0, 32, 3), np.float32))),
            "positions_3d/S9/Photo': expected at least one frame",
        ),
        (
            *("3d", "positions_3d", with_take(np.full((2, 32, 3), np.nan, np.float32))),
            "positions_3d/S9/Photo': expected finite values",
        ),
        (
            *("3d", "positions_3d", with_take(np.full((2, 32, 3), 1e39))),
            r"positions_3d/S9/Photo': expected metres of at most 1000, got 1e\+39",
        ),
        ("3d", "positions_3d", with_take(None), "positions_3d/S9/Photo': .* got NoneType"),
        (
            *("3d", "positions_3d", with_take(np.ones((2, 32, 3), np.float32), "Sit 1")),
            "positions_3d/S9/Sit 1': expected a name like 'Sitting 1', of",
        ),
        ("2d_h36m_gt", "positions_2d", lambda _: {"S9": {}}, r"/S9': expected the take 'Photo'"),
        ("2d_h36m_gt", "positions_2d", with_take([ONES] * 3), r"a list of 4 views.*a list of 3"),
        (
            *("2d_h36m_gt", "positions_2d", with_take([ONES, ONES, ONES[:1], ONES])),
            r"Photo\[58860488\]': expected at least the 2 frames .* got 1",
        ),
        (
            *("2d_h36m_gt", "positions_2d", with_take([ONES, ONES[:, :16], ONES, ONES])),
            r"Photo\[55011271\]': expected shape \(any, 17, 2\), got \(2, 16, 2\)",
        ),
        (
            *(
                "2d_h36m_gt",
                "positions_2d",
                with_take([ONES, ONES, ONES, -1e39 * np.float64(ONES)]),
            ),
            r"Photo\[60457274\]': expected pixels of at most 1e\+06, got 1e\+39",
        ),
        ("2d_h36m_gt", "metadata", lambda _: "h36m", "'metadata': expected a dictionary, got str"),
        (
            *("2d_h36m_gt", "metadata", lambda _: {"num_joints": 17}),
            "'metadata': keypoints_symmetry: expected two lists of joints, got None",
        ),
        (
            *("2d_h36m_gt", "metadata", lambda _: {"keypoints_symmetry": [[1], [float("inf")]]}),
            "'metadata': keypoints_symmetry: expected two lists of joints, got",
        ),
        (
            *("2d_h36m_gt", "metadata", lambda m: {"keypoints_symmetry": SWAPPED}),
            r"'metadata': keypoints_symmetry: expected left \(4, 5, .* 'h36m_17'",
        ),
    ],
)
def test_files_of_another_kind_are_refused_by_path_and_key(name, key, change, message, tmp_path):
    fakes.write_fake_human36m(tmp_path, subjects=("S9",), actions=("Photo",), frames=2)
    name = "data_3d_h36m" if name == "3d" else f"data_{name}"
    spoil(tmp_path / f"{name}.npz", key, change)
    with pytest.raises(ValueError, match=rf"{name}\.npz: .*{message}"):
        load_human36m(tmp_path, "test", subjects=("S9",))


SWAPPED = fakes.SYMMETRY_17[::-1]
