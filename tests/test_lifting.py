"""From keypoints to people: what comes back, what a bad frame costs, files that are resumed."""

import json
from dataclasses import replace

import numpy as np
import pytest

import posediff_jax
from posediff_jax import assets, lifting
from posediff_jax.data import people_from_arrays
from posediff_jax.lift_engine import RULES, LiftOptions
from posediff_jax.lifting import lift_to_folder
from posediff_jax.samplers.body_size import SKELETON_SHARE, skeleton_height
from posediff_jax.skeleton import H36M_17
from tests.lifting import ANCHORS, CAMERA, CONFIG, SIZE, frames, write_files

KEYPOINTS, ROOT = frames(ANCHORS[0])
HEIGHT = float(skeleton_height(ANCHORS[0], H36M_17)) / SKELETON_SHARE


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("prior"))


def lift(files, keypoints=KEYPOINTS, **options):
    given = {"image_size": SIZE, "layout": "h36m_17", "camera": CAMERA, "hypotheses": 2}
    (person,) = posediff_jax.lift(keypoints, **{**given, "progress": False, **files, **options})
    return person


@pytest.fixture(scope="module")
def plain(files):
    return lift(files)


def test_an_anchor_that_is_right_is_found_at_its_place(files):
    person = lift(files, height=HEIGHT, rule="first")
    np.testing.assert_allclose(person.pose, np.stack([ANCHORS[0]] * 4), atol=0.02)
    np.testing.assert_allclose(person.root, ROOT, atol=0.06)
    assert person.reprojection_error[0].max() < 3
    assert person.valid.all()


def test_what_comes_back(plain):
    assert plain.poses.shape == (2, 4, 17, 3)
    np.testing.assert_allclose(plain.poses[:, :, 0], 0, atol=1e-6)
    assert plain.translations.shape == (2, 4, 3)
    rows = np.arange(4)
    np.testing.assert_array_equal(plain.pose, plain.poses[plain.chosen, rows])
    np.testing.assert_array_equal(plain.root, plain.translations[plain.chosen, rows])
    mean = plain.poses.mean(axis=0)
    spread = np.sqrt(((plain.poses - mean) ** 2).sum(-1).mean(0))
    np.testing.assert_allclose(plain.spread, spread, atol=1e-5)
    # The error of what is said, projected by hand.
    points = plain.poses + plain.translations[:, :, None]
    pixels = 1100 * points[..., :2] / points[..., 2:] + [500, 460]
    error = np.linalg.norm(pixels - KEYPOINTS, axis=-1).mean(-1)
    np.testing.assert_allclose(plain.reprojection_error, error, atol=0.01)
    assert plain.joints == H36M_17.joints
    assert plain.scale_from == "the bodies of the prior; no height was given"
    assert plain.weights_from == "prior.npz: a test"


def test_batches_and_other_people_change_nothing(files, plain):
    small = lift(files, batch_size=3)
    np.testing.assert_allclose(small.poses, plain.poses, atol=1e-5)
    assert small.fingerprint == plain.fingerprint
    two = posediff_jax.lift(
        np.stack([KEYPOINTS + 40, KEYPOINTS]),
        image_size=SIZE,
        layout="h36m_17",
        camera=CAMERA,
        hypotheses=2,
        progress=False,
        **files,
    )
    np.testing.assert_allclose(two[1].poses, plain.poses, atol=1e-5)


def test_a_bad_frame_is_flagged_and_the_rest_goes_on(files, plain):
    broken = KEYPOINTS.copy()
    broken[2] = np.nan
    person = lift(files, broken)
    assert person.bad.tolist() == [False, False, True, False]
    assert person.valid.tolist() == [True, True, False, True]
    assert np.isnan(person.pose[2]).all()
    np.testing.assert_allclose(person.poses[:, [0, 1, 3]], plain.poses[:, [0, 1, 3]], atol=1e-5)


def test_a_missing_joint_may_be_anywhere(files):
    trust = np.ones((4, 17))
    trust[:, 13] = 0
    results = []
    for place in (0.0, 700.0):
        points = KEYPOINTS.copy()
        points[:, 13] = place
        people = people_from_arrays(points, image_size=SIZE, layout="h36m_17", confidence=trust)
        results.append(lift(files, people))
    np.testing.assert_array_equal(results[0].poses, results[1].poses)
    assert results[0].valid.all()


def test_a_missed_hip_costs_no_frame_and_one_joint_is_too_little(files):
    points = KEYPOINTS.copy()
    points[1, [0, 1, 4]] = np.nan
    points[2, 1:] = np.nan
    person = lift(files, points, rule="first", height=HEIGHT)
    assert person.valid.tolist() == [True, True, False, True]
    assert not person.bad.any()
    np.testing.assert_allclose(person.pose[1], ANCHORS[0], atol=0.05)
    given_up = lift(files, points, sampler={"fit_missing": "nan"})
    assert given_up.valid.tolist() == [True, False, False, True]


@pytest.mark.parametrize("scale", ["sequence", "pose", "off"])
def test_a_height_sets_the_size(files, plain, scale):
    person = lift(files, height=1.2, scale=scale)
    sizes = np.asarray(skeleton_height(person.poses, H36M_17)) / SKELETON_SHARE
    before = np.asarray(skeleton_height(plain.poses, H36M_17)) / SKELETON_SHARE
    factor = person.poses[..., 3, :] / plain.poses[..., 3, :]
    if scale == "off":
        np.testing.assert_allclose(sizes, before, rtol=1e-5)
        assert "not used" in person.scale_from
    elif scale == "pose":
        np.testing.assert_allclose(sizes, 1.2, rtol=1e-4)
    else:
        np.testing.assert_allclose(factor, factor[0, 0, 0], rtol=1e-4)
        chosen = np.asarray(skeleton_height(person.pose, H36M_17)) / SKELETON_SHARE
        assert np.median(chosen) == pytest.approx(1.2, rel=1e-4)
    if scale != "off":
        assert "the height 1.2 m that was given" in person.scale_from
        # On the same rays: a size changes no pixel.
        points, old = (p.pose + p.root[:, None] for p in (person, plain))
        np.testing.assert_allclose(
            points[..., :2] / points[..., 2:], old[..., :2] / old[..., 2:], atol=1e-5
        )


def test_a_body_height_in_the_loop(files):
    person = lift(files, sampler={"body_height": 1.3})
    sizes = np.asarray(skeleton_height(person.poses, H36M_17))
    # The last denoising step comes after the last resizing.
    np.testing.assert_allclose(sizes, 1.3, rtol=0.05)
    assert person.scale_from == "an assumed height of 1.43 m: none was given"
    given = lift(files, sampler={"body_height": 1.3}, height=2.0, scale="off")
    sizes = np.asarray(skeleton_height(given.poses, H36M_17))
    np.testing.assert_allclose(sizes, 2.0 * SKELETON_SHARE, rtol=0.05)


def test_five_joints_are_too_few(files, plain):
    confidence = np.ones(KEYPOINTS.shape[:2])
    confidence[1, 5:] = 0
    confidence[2, 6:] = 0
    frames = people_from_arrays(KEYPOINTS, image_size=SIZE, layout="h36m_17", confidence=confidence)
    person = lift(files, frames)
    assert person.valid.tolist() == [True, False, True, True]
    np.testing.assert_allclose(person.pose[[0, 3]], plain.pose[[0, 3]], atol=1e-4)


def test_a_head_that_is_the_mean_of_the_eyes_does_not_count(files):
    """Where the reader says that the head is derived, its place changes nothing."""
    people = people_from_arrays(KEYPOINTS, image_size=SIZE, layout="h36m_17")
    derived, moved = np.arange(17) == 10, KEYPOINTS.copy()
    moved[:, 10] += 40
    found = [
        lift(files, replace(people, people=(replace(people.people[0], **fields),)))
        for fields in (
            {"derived": derived},
            {"derived": derived, "keypoints": moved.astype(np.float32)},
        )
    ]
    np.testing.assert_array_equal(found[0].pose, found[1].pose)


def test_what_keypoints_say_of_themselves_is_not_overruled(files):
    people = people_from_arrays(KEYPOINTS, image_size=SIZE, layout="h36m_17")
    with pytest.raises(ValueError, match="layout: expected h36m_17, that of the keypoints"):
        lift(files, people, layout="coco_17")


def test_a_warm_start_replaces_the_last_hypothesis_alone(files, plain):
    warm = lift(files, warm_start=True)
    np.testing.assert_allclose(warm.poses[0], plain.poses[0], atol=1e-5)
    np.testing.assert_allclose(warm.poses[:, 0], plain.poses[:, 0], atol=1e-5)
    apart = np.abs(warm.poses[1, 1:] - plain.poses[1, 1:]).max(axis=(1, 2))
    assert apart.min() > 0.01
    # It starts from the pose of the frame before, and nothing here draws it away.
    size = np.asarray(skeleton_height(warm.poses[1], H36M_17))[:, None, None]
    before = warm.pose[:-1] / np.asarray(skeleton_height(warm.pose[:-1], H36M_17))[:, None, None]
    np.testing.assert_allclose((warm.poses[1] / size)[1:], before, atol=0.02)


def test_segments_start_anew(files):
    """Frame 50 has none before it: as without a warm start."""
    points, _ = frames(ANCHORS[0], count=53)
    keep = np.full(points.shape, np.nan)
    keep[48:] = points[48:]
    warm, cold = (lift(files, keep, warm_start=w, batch_size=4) for w in (True, False))
    assert warm.valid.tolist() == [False] * 48 + [True] * 5
    same = np.abs(warm.poses[1] - cold.poses[1]).max(axis=(1, 2))[48:] < 1e-4
    # Frame 48 follows a frame that could not be lifted.
    assert same.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("rule", RULES)
def test_rules(files, rule):
    person = lift(files, rule=rule, hypotheses=3)
    rows = np.arange(4)
    if rule == "mean":
        np.testing.assert_allclose(person.pose, person.poses.mean(axis=0), atol=1e-6)
        assert (person.chosen == -1).all()
    else:
        np.testing.assert_array_equal(person.pose, person.poses[person.chosen, rows])
    if rule == "reprojection_error":
        np.testing.assert_array_equal(person.chosen, person.reprojection_error.argmin(axis=0))
    if rule == "first":
        assert not person.chosen.any()


class TestCameras:
    def test_a_guess_is_said(self, files):
        person = lift(files, camera=None)
        assert "focal length guessed: 1000 px" in person.camera_from
        np.testing.assert_allclose(person.camera.focal, 1000)

    def test_a_file(self, files, tmp_path, plain):
        (tmp_path / "K.json").write_text("[[1100, 0, 500], [0, 1100, 460], [0, 0, 1]]")
        person = lift(files, camera=tmp_path / "K.json")
        np.testing.assert_array_equal(person.poses, plain.poses)
        assert "focal length from" in person.camera_from

    def test_a_lens_is_undone(self, files, tmp_path):
        text = '{"focal": 1100, "center": [500, 460], "radial": [-0.3, 0.1, 0]}'
        (tmp_path / "K.json").write_text(text)
        bent, straight = (lift(files, camera=c) for c in (tmp_path / "K.json", CAMERA))
        assert np.abs(bent.poses - straight.poses).max() > 1e-3

    def test_one_without_leading_axes(self, files):
        import jax

        with pytest.raises(ValueError, match="camera: expected one without leading axes"):
            lift(files, camera=jax.tree.map(lambda x: x[None], CAMERA))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("keypoints") / "two.npz"
    both = np.stack([KEYPOINTS, KEYPOINTS + 30])
    np.savez(path, keypoints=both, layout="h36m_17", image_size=SIZE, track_ids=["a/b", "a b"])
    return path


class TestFolder:
    def run(self, files, out, keypoints, **options):
        said = []
        given = {"camera": CAMERA, "options": LiftOptions(hypotheses=2), "pictures": False}
        paths = lift_to_folder(
            keypoints, out, report=said.append, progress=False, **{**given, **files, **options}
        )
        return paths, "\n".join(said)

    def test_a_file_for_each_person_that_is_resumed(self, files, source, tmp_path, plain):
        paths, said = self.run(files, tmp_path / "out", source)
        assert [p.name for p in paths] == ["person_a_b.npz", "person_a_b_1.npz"]
        assert "4 of 4 frames" in said
        found = posediff_jax.read_lifted(paths[0])
        np.testing.assert_allclose(found.poses, plain.poses, atol=1e-5)
        assert found.track == "a/b"
        with np.load(paths[0]) as arrays:
            assert str(arrays["units"]) == "metres"
            assert arrays["joints"].tolist() == list(H36M_17.joints)
            assert "x right, y down, z forward" in str(arrays["axes"])
            assert str(arrays["scale_from"]) == found.scale_from
        before = [p.stat().st_mtime_ns for p in paths]
        paths[1].unlink()
        _, said = self.run(files, tmp_path / "out", source)
        assert "person_a_b.npz: there already" in said
        assert paths[0].stat().st_mtime_ns == before[0]
        assert paths[1].exists()
        assert not [p for p in (tmp_path / "out").iterdir() if "partial" in p.name]

    def test_other_options_do_not_replace_it_unasked(self, files, source, tmp_path):
        paths, _ = self.run(files, tmp_path, source)
        other = {"options": LiftOptions(hypotheses=2, height=1.7)}
        with pytest.raises(ValueError, match=r"out: .*person_a_b.npz is from other keypoints"):
            self.run(files, tmp_path, source, **other)
        paths[0].write_bytes(b"broken")
        with pytest.raises(ValueError, match=r"out: .*person_a_b.npz is from other keypoints"):
            self.run(files, tmp_path, source)
        self.run(files, tmp_path, source, overwrite=True, **other)
        assert "1.7 m" in posediff_jax.read_lifted(paths[0]).scale_from

    def test_pictures(self, files, source, tmp_path, monkeypatch):
        paths, said = self.run(files, tmp_path, source, pictures=True)
        names = sorted(p.name for p in tmp_path.iterdir())
        assert names == [f"person_a_b{n}.{s}" for n in ("", "_1") for s in ("gif", "npz", "png")]
        assert paths[0].with_suffix(".gif").read_bytes().startswith(b"GIF")

        def no_matplotlib(*args, **options):
            raise ImportError("pictures need matplotlib")

        paths[1].with_suffix(".png").unlink()
        monkeypatch.setattr(lifting, "plot_lifted", no_matplotlib)
        _, said = self.run(files, tmp_path, source, pictures=True)
        assert "no pictures: pictures need matplotlib" in said


class TestRefusals:
    def test_no_weights_in_the_package(self, files, monkeypatch):
        monkeypatch.setattr(assets, "PRIOR", "not_there.npz")
        monkeypatch.setattr(assets, "ANCHORS", {1: "no.npz"})
        with pytest.raises(FileNotFoundError, match=r"not_there.npz: not in this .*export_assets"):
            lift({})
        with pytest.raises(FileNotFoundError, match=r"no.npz: .*experiments.anchors for 1, 10"):
            lift({"checkpoint": files["checkpoint"]}, hypotheses=1)
        with pytest.raises(ValueError, match="hypotheses: expected 1 to 1, the anchors there are"):
            lift({"checkpoint": files["checkpoint"]}, hypotheses=51)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"hypotheses": 0}, "hypotheses: expected at least 1"),
            ({"hypotheses": 4}, "at least 4 anchors, got 3"),
            ({"height": 175}, "height: expected metres"),
            ({"rule": "best"}, "rule: expected one of"),
            ({"scale": "auto"}, "scale: expected one of"),
            ({"batch_size": -1}, "batch_size: expected at least 0"),
            ({"sampler": {"starts": "nowhere"}}, "sampler.starts: expected one of"),
            ({"sampler": {"speed": 1}}, "sampler.speed: unknown field"),
            ({"layout": None}, "image_size, layout: expected both with an array"),
        ],
    )
    def test_options(self, files, options, message):
        with pytest.raises(ValueError, match=message):
            lift(files, **options)

    def test_another_system(self, tmp_path, files):
        from posediff_jax.prior_file import read_prior, write_prior

        found = read_prior(files["checkpoint"])
        other = {**CONFIG.to_dict(), "system": "diffupose"}
        write_prior(tmp_path / "other.npz", found.variables, other)
        with pytest.raises(ValueError, match="expected the system 'zedo', got 'diffupose'"):
            lift({**files, "checkpoint": tmp_path / "other.npz"})


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ({"K": [[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]}, "focal: expected pixels, at least"),
        ({"focal": 1000, "center": [5000, 10]}, "center: expected a point of the image"),
    ],
)
def test_a_camera_of_other_images_is_refused(files, tmp_path, camera, message):
    (tmp_path / "K.json").write_text(json.dumps(camera))
    with pytest.raises(ValueError, match=message):
        lift(files, camera=tmp_path / "K.json")
