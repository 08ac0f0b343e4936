"""Readers of detectors' files against files written by hand, and what they refuse."""

import json

import numpy as np
import pytest

from posediff_jax.data import read_keypoints
from posediff_jax.data.keypoints import layout_name, people_from_arrays
from tests.data import detectors
from tests.data.detectors import BODY_25, COCO, H36M, HALPE, expected, middle, rows

SIZE = (1000, 900)
NOTHING_THERE = [[0, 0, 0]] * 17


def read(path, **options):
    return read_keypoints(path, **{"image_size": SIZE, **options})


def only(path, **options):
    (person,) = read(path, **options).people
    return person


def joint(name):
    return H36M.index(name)


def derived(person):
    return [H36M[j] for j in np.flatnonzero(person.derived)]


class TestLayouts:
    def test_coco_derives_torso_and_head(self, tmp_path):
        file = detectors.alphapose(tmp_path / "a.json", {0: [(rows(COCO), 0)]})
        person = only(file)
        np.testing.assert_allclose(
            person.keypoints[0], expected(head=middle("LEye", "REye")), atol=1e-4
        )
        assert derived(person) == ["Hip", "Spine", "Neck", "Head"]

    def test_halpe_has_pelvis_neck_and_head(self, tmp_path):
        file = detectors.alphapose(tmp_path / "a.json", {0: [(rows(HALPE), 0)]})
        person = only(file)
        np.testing.assert_allclose(person.keypoints[0], expected(), atol=1e-4)
        assert derived(person) == ["Spine"]

    def test_body_25_of_openpose(self, tmp_path):
        folder = detectors.openpose(tmp_path / "json", {0: [rows(BODY_25)]})
        person = only(folder)
        np.testing.assert_allclose(
            person.keypoints[0], expected(head=middle("LEye", "REye")), atol=1e-4
        )
        assert derived(person) == ["Spine", "Head"]

    def test_h36m_by_name(self, tmp_path):
        points = np.stack([expected(), expected() + 1])
        np.savez(tmp_path / "k.npz", keypoints=points, layout="H36M-17", image_size=SIZE)
        people = read_keypoints(tmp_path / "k.npz")
        assert (people.layout, people.source, people.image_size) == ("h36m_17", "arrays", SIZE)
        np.testing.assert_allclose(people.people[0].keypoints, points, atol=1e-4)
        assert not people.people[0].derived.any()
        text = {"keypoints": points.tolist(), "layout": "h36m_17", "image_size": list(SIZE)}
        (tmp_path / "k.json").write_text(json.dumps(text))
        again = read_keypoints(tmp_path / "k.json").people[0]
        np.testing.assert_allclose(again.keypoints, points, atol=1e-4)

    def test_whole_body_files_give_their_body(self, tmp_path):
        more = [[5.0, 5.0, 0.9]]
        for count, names in ((133, COCO), (136, HALPE)):
            points = rows(names) + more * (count - len(names))
            person = only(detectors.alphapose(tmp_path / "a.json", {0: [(points, 0)]}))
            np.testing.assert_allclose(person.keypoints[0, 2], detectors.PERSON["RKnee"])

    def test_mmpose_says_that_a_model_is_of_human36m(self, tmp_path):
        points = [[*p, 0.8] for p in expected()]
        content = {
            "meta_info": {"dataset_name": "h36m"},
            "instance_info": [{"frame_id": 1, "instances": [detectors.instance(points)]}],
        }
        (tmp_path / "m.json").write_text(json.dumps(content))
        assert read(tmp_path / "m.json").layout == "h36m_17"

    def test_names_are_read_in_any_spelling(self):
        spellings = ("H36M-17", "COCO-17", "Halpe-26", "BODY_25", "coco_17", " body-25")
        assert [layout_name(s) for s in spellings] == [
            *("h36m_17", "coco_17", "halpe_26", "body_25"),
            *("coco_17", "body_25"),
        ]


class TestConfidence:
    def test_a_derived_joint_has_the_least_of_its_parents(self, tmp_path):
        points = rows(COCO, scores={"LHip": 0.3, "REye": 0.5})
        person = only(detectors.alphapose(tmp_path / "a.json", {0: [(points, 0)]}))
        trust = dict(zip(H36M, person.confidence[0], strict=True))
        assert trust["Hip"] == trust["Spine"] == pytest.approx(0.3)
        assert trust["Head"] == pytest.approx(0.5)
        assert trust["Neck"] == trust["RHip"] == pytest.approx(0.9)

    def test_missing_is_what_has_no_confidence_not_what_is_at_zero(self, tmp_path):
        """A wrist at the corner of the image is a wrist, one of confidence 0 is missing."""
        points = rows(COCO)
        points[COCO.index("LWrist")] = [0, 0, 0.8]
        points[COCO.index("RKnee")] = [455, 590, 0]
        person = only(detectors.alphapose(tmp_path / "a.json", {0: [(points, 0)]}))
        assert person.confidence[0, joint("LWrist")] == pytest.approx(0.8)
        assert person.confidence[0, joint("RKnee")] == 0

    def test_a_mean_with_a_missing_joint_is_missing(self, tmp_path):
        points = rows(COCO)
        points[COCO.index("LHip")] = [0, 0, 0]
        person = only(detectors.alphapose(tmp_path / "a.json", {0: [(points, 0)]}))
        missing = [H36M[j] for j in np.flatnonzero(person.confidence[0] == 0)]
        assert missing == ["Hip", "LHip", "Spine"]

    def test_a_threshold_and_values_above_one(self, tmp_path):
        points = rows(COCO, score=4.5, scores={"Nose": 0.2})
        file = detectors.alphapose(tmp_path / "a.json", {0: [(points, 0)]})
        people = read(file, min_confidence=0.3)
        assert people.people[0].confidence[0, joint("Nose")] == 0
        assert people.people[0].confidence.max() == 1
        assert "confidences above 1 count as 1" in people.notes

    def test_arrays_without_confidence(self):
        points = np.stack([expected()] * 2)
        points[1, 3] = np.nan
        points[1, 13] = 0
        people = people_from_arrays(points, image_size=SIZE, layout="h36m_17")
        confidence = people.people[0].confidence
        assert confidence[0].all()
        assert confidence[1, [3, 13]].tolist() == [0, 1]
        assert np.isfinite(people.people[0].keypoints).all()
        assert "exactly (0, 0)" in people.notes[0]


class TestPeople:
    def test_track_ids_are_kept(self, tmp_path):
        frames = {
            8: [(rows(COCO), 2), (rows(COCO, shift=(200, 0)), 7)],
            9: [(rows(COCO, shift=(200, 0)), [7.0]), (rows(COCO, shift=(5, 0)), 2)],
            10: [(rows(COCO, shift=(10, 0)), 2)],
        }
        people = read(detectors.alphapose(tmp_path / "a.json", frames)).people
        assert [p.track for p in people] == ["2", "7"]
        assert [p.frames.tolist() for p in people] == [[8, 9, 10], [8, 9]]
        np.testing.assert_allclose(people[0].keypoints[:, 2, 0], [455, 460, 465])
        np.testing.assert_allclose(people[1].keypoints[:, 2, 0], [655, 655])

    def test_images_are_sorted_by_number(self, tmp_path):
        frames = {n: [(rows(COCO, shift=(n, 0)), 1)] for n in (10, 2, 9)}
        person = only(detectors.alphapose(tmp_path / "a.json", frames, image="img_{}.png"))
        assert person.frames.tolist() == list(range(2, 11))
        seen = person.confidence.any(axis=1)
        assert person.frames[seen].tolist() == [2, 9, 10]
        np.testing.assert_allclose(person.keypoints[seen, 2, 0], [457, 464, 465])

    def test_who_is_not_tracked_is_followed(self, tmp_path):
        """OpenPose lists people in any order; one is missing for a frame."""
        near, far = rows(BODY_25), rows(BODY_25, shift=(300, 20))
        frames = {0: [near, far], 1: [far, near], 2: [near], 3: [far, near]}
        people = read(detectors.openpose(tmp_path / "json", frames))
        assert len(people.people) == 2
        for person, x in zip(people.people, (455, 755), strict=True):
            seen = person.confidence.any(axis=1)
            np.testing.assert_allclose(person.keypoints[seen, 2, 0], x)
        assert people.people[1].confidence.any(axis=1).tolist() == [True, True, False, True]
        assert "tracks nobody" in people.notes[0]

    def test_mmpose_video_of_its_inferencer_and_of_its_demo(self, tmp_path):
        walk = [
            {
                "frame_id": i,
                "instances": [
                    detectors.instance(rows(COCO, shift=(i, 0)), track_id=4),
                    detectors.instance(rows(COCO, shift=(300, 0)), track_id=9),
                ],
            }
            for i in range(3)
        ]
        (tmp_path / "list.json").write_text(json.dumps(walk))
        demo = {"meta_info": {"dataset_name": "coco"}, "instance_info": walk}
        (tmp_path / "demo.json").write_text(json.dumps(demo))
        for name in ("list", "demo"):
            people = read(tmp_path / f"{name}.json")
            assert people.source == "mmpose"
            assert [p.track for p in people.people] == ["4", "9"]
            np.testing.assert_allclose(people.people[0].keypoints[:, 2, 0], [455, 456, 457])

    def test_mmpose_image(self, tmp_path):
        (tmp_path / "m.json").write_text(json.dumps([detectors.instance(rows(HALPE))]))
        np.testing.assert_allclose(only(tmp_path / "m.json").keypoints[0], expected(), atol=1e-4)

    def test_several_people_in_arrays(self, tmp_path):
        points = np.stack([[expected()] * 2, [expected() + 90] * 2])
        trust = np.ones((2, 2, 17))
        np.savez(
            tmp_path / "k.npz",
            keypoints=points,
            confidence=trust,
            layout="h36m_17",
            track_ids=["ann", "bob"],
        )
        assert [p.track for p in read(tmp_path / "k.npz").people] == ["ann", "bob"]


class TestBadFrames:
    def test_one_entry_that_cannot_be_read(self, tmp_path):
        frames = {n: [(rows(COCO), 1)] for n in range(4)}
        frames[2] = [(rows(COCO)[:16], 1)]
        people = read(detectors.alphapose(tmp_path / "a.json", frames))
        (person,) = people.people
        assert person.bad.tolist() == [False, False, True, False]
        assert person.confidence.any(axis=1).tolist() == [True, True, False, True]
        assert "1 frames have entries that cannot be read, first [2]" in people.notes

    def test_one_broken_file_of_a_folder(self, tmp_path):
        folder = detectors.openpose(tmp_path / "json", {n: [rows(BODY_25)] for n in range(3)})
        (folder / "walk_000000000001_keypoints.json").write_text('{"people": [')
        person = only(folder)
        assert person.bad.tolist() == [False, True, False]
        assert person.frames.tolist() == [0, 1, 2]

    def test_another_file_in_a_folder_is_no_frame(self, tmp_path):
        folder = detectors.openpose(tmp_path / "json", {n: [rows(BODY_25)] for n in (4, 6)})
        write(folder / "camera.json", {"K": [1, 2, 3]})
        write(folder / "backup_5.json", "")
        write(folder / "walk_000000000005_keypoints.json", "null")
        people = read(folder)
        (person,) = people.people
        assert person.frames.tolist() == [4, 5, 6]
        assert person.bad.tolist() == [False, True, False]
        note = (
            "2 files are not OpenPose's and were left out, first ['backup_5.json', 'camera.json']"
        )
        assert note in people.notes

    def test_values_that_are_no_numbers(self, tmp_path):
        points = [rows(COCO) for _ in range(3)]
        points[1] = [[float("nan"), float("inf"), 0.9]] * 17
        file = detectors.alphapose(tmp_path / "a.json", {n: [(p, 1)] for n, p in enumerate(points)})
        person = only(file)
        assert person.bad.tolist() == [False, True, False]
        assert np.isfinite(person.keypoints).all()
        assert not person.confidence[1].any()

    def test_an_array_with_a_lost_frame(self):
        points = np.stack([expected()] * 3)
        points[1] = np.nan
        people = people_from_arrays(points, image_size=SIZE, layout="h36m_17")
        assert people.people[0].bad.tolist() == [False, True, False]

    def test_frame_numbers_that_are_times_do_not_fill_the_memory(self, tmp_path):
        frames = {n: [(rows(COCO), 1)] for n in (0, 10**12)}
        file = detectors.alphapose(tmp_path / "a.json", frames)
        assert only(file).frames.tolist() == [0, 1]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


NORMALISED = [x for px, py, c in rows(COCO) for x in (px / 1000, py / 900, c)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got an empty file"),
        ("  \n", "got an empty file"),
        ("{", "cannot be read"),
        ("[]", "at least one person"),
        ([1, 2], "expected a file of AlphaPose .* got a list of int"),
        ({"images": [], "annotations": []}, r"OpenPose.* got keys \['annotations', 'images'\]"),
        ([{"label": "person", "points": []}], r"got a list of \['label', 'points'\]"),
        ({"people": []}, "nobody in any frame"),
        ([{"image_id": "0.jpg", "keypoints": "abc"}], "entries without keypoints"),
        ([{"image_id": "0.jpg", "keypoints": [1, 2, 3] * 21}], r"layout: expected .* got 21"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 1] * 18}]}, r"25 \(body_25\) .* got 18"),
        ([{"image_id": "0", "keypoints": [0.0] * 51}], "confidence: .* got none"),
        (
            [{"image_id": "0", "keypoints": NORMALISED}],
            "expected pixels, .* normalised",
        ),
        ({"keypoints": [[1, 2]], "layout": "smpl_24"}, "layout: expected one of .* got 'smpl_24'"),
        ({"keypoints": [[[1, 2]] * 17]}, "layout: expected one of .* got none"),
        ({"keypoints": [[1, 2]], "layout": "h36m_17", "bbox": 1}, "expected the keys"),
        ({"keypoints": [[[1, 2]] * 16], "layout": "h36m_17"}, "expected the 17 keypoints .* 16"),
        ({"keypoints": [["a"]], "layout": "h36m_17"}, "expected an array of numbers"),
        ({"keypoints": [], "layout": "h36m_17"}, r"expected \(F, J, 2\).* got shape \(0,\)"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        read(write(tmp_path / "k.json", content))
    if "layout: expected one of" not in message:
        assert "k.json" in str(error.value)


def test_coco_given_as_h36m_is_named(tmp_path):
    coco = np.array([rows(COCO)] * 3)
    with pytest.raises(ValueError, match=r"layout: .* implausible for 'h36m_17' and fit 'coco_17'"):
        people_from_arrays(coco, image_size=SIZE, layout="h36m_17")
    file = detectors.alphapose(tmp_path / "a.json", {0: [(rows(COCO), 1)]})
    with pytest.raises(ValueError, match="fit 'coco_17'"):
        read(file, layout="h36m_17")
    h36m = np.stack([expected()] * 2)
    with pytest.raises(ValueError, match="implausible for 'coco_17' and fit 'h36m_17'"):
        people_from_arrays(h36m, image_size=SIZE, layout="coco_17")


def test_image_sizes(tmp_path):
    file = detectors.alphapose(tmp_path / "a.json", {0: [(rows(COCO), 1)]})
    with pytest.raises(ValueError, match=r"image_size: .*--image-size=WxH"):
        read_keypoints(file)
    with pytest.raises(ValueError, match="image_size: expected width and height"):
        read_keypoints(file, image_size=(0, 900))
    with pytest.raises(ValueError, match=r"100% of the keypoints are outside"):
        read_keypoints(file, image_size=(300, 300))
    np.savez(tmp_path / "k.npz", keypoints=expected()[None], layout="h36m_17", image_size=SIZE)
    with pytest.raises(ValueError, match=r"expected \(1000, 900\) as the file says, got \(9, 9\)"):
        read_keypoints(tmp_path / "k.npz", image_size=(9, 9))


def test_other_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read(tmp_path / "no.json")
    (tmp_path / "k.txt").write_text("1")
    with pytest.raises(ValueError, match=r"expected a .npz or .json file"):
        read(tmp_path / "k.txt")
    (tmp_path / "k.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="got an empty file"):
        read(tmp_path / "k.npz")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"expected one .json file for each frame"):
        read(folder)
    detectors.alphapose(folder / "a_1.json", {0: [(rows(COCO), 1)]})
    with pytest.raises(ValueError, match="expected one of OpenPose's files, got one of alphapose"):
        read(folder)


def test_a_person_without_confidence_is_left_out_and_said(tmp_path):
    frames = {0: [(rows(COCO), 1), (rows(COCO, shift=(90, 0), score=0.01), 2)]}
    people = read(detectors.alphapose(tmp_path / "a.json", frames))
    assert [p.track for p in people.people] == ["1"]
    assert "person 2: left out, no keypoint reaches 0.1" in people.notes


def test_a_layout_and_a_threshold_out_of_range(tmp_path):
    file = detectors.alphapose(tmp_path / "a.json", {0: [(rows(COCO), 1)]})
    with pytest.raises(ValueError, match="expected the 26 keypoints of 'halpe_26', got 17"):
        read(file, layout="Halpe-26")
    with pytest.raises(ValueError, match="min_confidence: expected a value in"):
        read(file, min_confidence=1.0)
    with pytest.raises(ValueError, match="track_ids: expected 1 different ones"):
        people_from_arrays(
            expected()[None], image_size=SIZE, layout="h36m_17", track_ids=["a", "b"]
        )
    with pytest.raises(ValueError, match=r"confidence: expected \(1, 1, 17\)"):
        people_from_arrays(
            expected()[None], image_size=SIZE, layout="h36m_17", confidence=np.ones((2, 17))
        )


def test_a_joint_far_outside_is_missing(tmp_path):
    points = rows(COCO)
    points[COCO.index("LWrist")] = [1e5, -1e5, 0.9]
    found = read(detectors.alphapose(tmp_path / "a.json", {0: [(points, 0)]}))
    assert found.people[0].confidence[0, H36M.index("LWrist")] == 0
    assert "6% of the keypoints are outside" in found.notes[0]
    assert found.notes[1].startswith("1 joints are further from the image")


def test_ids_that_are_missing_in_a_frame_are_said_to_be_unused(tmp_path):
    frames = {0: [(rows(COCO), 7)], 1: [(rows(COCO), -1)]}
    found = read(detectors.alphapose(tmp_path / "a.json", frames))
    assert len(found.people) == 1
    assert found.notes[0].startswith("track ids are missing or double in some frames")
