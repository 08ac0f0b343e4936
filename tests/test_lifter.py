"""A checkpoint as a function: the same hypotheses whatever the batches, clear refusals."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import posediff_jax
from posediff_jax.calibration import default_camera
from posediff_jax.data import read_keypoints
from posediff_jax.data.batching import centre_missing
from posediff_jax.data.windows import plan_clip
from posediff_jax.inference import make_sampler
from posediff_jax.lifter import clip_batch
from posediff_jax.samplers.aggregate import joint_spread
from posediff_jax.skeleton import COCO_17, H36M_17, joint_map
from posediff_jax.systems import make_system
from posediff_jax.training import CheckpointStore, create_state, make_optimizer

CONFIG = ConfigDict(
    {
        "system": "diffupose",
        "skeleton": "h36m_17",
        "model": {"width": 32, "num_blocks": 1},
        "process": {"num_timesteps": 10},
        "loss": {},
        "sampler": {"num_steps": 2},
        "data": {"frames": 1},
    }
)
CAMERA = default_camera((1000, 800))
KEYPOINTS = np.random.default_rng(0).uniform(100, 700, (11, 17, 2)).astype(np.float32)
KEY = jax.random.key(3)


def save(folder, config=CONFIG, **options):
    system = make_system(config)
    state = create_state(jax.random.key(0), system, make_optimizer({}))
    CheckpointStore(folder / "checkpoints").save(state, config=config.to_dict(), **options)
    return system, state.variables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    save(path)
    return path


@pytest.fixture(scope="module")
def lifter(folder):
    return posediff_jax.load(folder, batch_size=8)


@pytest.fixture(scope="module")
def lifted(lifter):
    return lifter(KEYPOINTS, camera=CAMERA, key=KEY, num_hypotheses=3)


def test_what_comes_back(lifted):
    assert lifted.poses.shape == (3, 11, 17, 3)
    np.testing.assert_allclose(lifted.pose, lifted.poses.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(lifted.spread, joint_spread(lifted.poses, axis=0), atol=1e-6)
    assert lifted.joints == H36M_17.joints
    assert (lifted.units, lifted.system, lifted.skeleton) == ("metres", "diffupose", H36M_17)


def test_batches_devices_and_more_hypotheses_change_nothing(folder, lifted):
    other = posediff_jax.load(folder, batch_size=3, devices=jax.devices()[:1])
    more = other(KEYPOINTS, camera=CAMERA, key=KEY, num_hypotheses=4)
    np.testing.assert_allclose(more.poses[:3], lifted.poses, atol=1e-5)
    first = other(KEYPOINTS[:2], camera=CAMERA, key=KEY, num_hypotheses=3)
    np.testing.assert_allclose(first.poses, lifted.poses[:, :2], atol=1e-5)


def test_hypotheses_and_keys_differ(lifter, lifted):
    assert lifted.spread.mean() > 0.01
    other = lifter(KEYPOINTS, camera=CAMERA, key=jax.random.key(4), num_hypotheses=3)
    assert np.abs(other.poses - lifted.poses).max() > 0.01


def test_it_is_the_systems_own_sampler(tmp_path, lifted, folder):
    """Keypoints in screen units, a frame an item, its number the item's index."""
    system, variables = save(tmp_path)
    lifter = posediff_jax.load(folder)
    batch = lifter_batch(KEYPOINTS)
    samples = make_sampler(system, variables, num_hypotheses=3)(KEY, batch).samples
    again = lifter(KEYPOINTS, camera=CAMERA, key=KEY, num_hypotheses=3)
    np.testing.assert_allclose(np.moveaxis(samples[:, :, 0], 0, 1), again.poses, atol=1e-5)


def lifter_batch(pixels):
    count = len(pixels)
    return posediff_jax.PoseBatch(
        keypoints=(2 * pixels / 1000 - np.array([1.0, 0.8])).astype(np.float32)[:, None],
        keypoints_px=pixels[:, None],
        confidence=np.ones((count, 1, 17), np.float32),
        mask=np.ones((count, 1), np.float32),
        index=np.arange(count, dtype=np.int32),
        subject=np.zeros(count, np.int32),
        action=np.zeros(count, np.int32),
        camera=jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), CAMERA),
    )


def test_other_joint_orders_are_converted_by_name(lifter):
    coco = np.random.default_rng(1).uniform(100, 700, (2, 17, 2)).astype(np.float32)
    converted = joint_map("coco_17", "h36m_17").apply(coco)
    options = {"camera": CAMERA, "key": KEY, "num_hypotheses": 1}
    np.testing.assert_allclose(
        lifter(coco, skeleton="coco_17", **options).poses,
        lifter(converted, **options).poses,
        atol=1e-5,
    )


WINDOWS = ConfigDict(
    {
        "system": "d3dp",
        "skeleton": "h36m_17",
        "model": {"num_frames": 5, "width": 8, "depth": 1, "num_heads": 1},
        "process": {"num_timesteps": 10},
        "sampler": {"num_steps": 2},
        "data": {"frames": 5},
    }
)
CLIP = np.random.default_rng(2).uniform(100, 700, (13, 17, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def window_lifter(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows")
    save(path, WINDOWS)
    return posediff_jax.load(path, batch_size=8, devices=jax.devices()[:1])


def lift(lifter, keypoints, **options):
    return lifter(keypoints, camera=CAMERA, key=KEY, num_hypotheses=2, **options).poses


@pytest.mark.parametrize("frames", [3, 5])
def test_a_clip_within_one_window_repeats_its_last_frame(window_lifter, frames):
    poses = lift(window_lifter, CLIP[:frames])
    assert poses.shape == (2, frames, 17, 3)
    padded = CLIP[np.minimum(np.arange(5), frames - 1)]
    np.testing.assert_array_equal(poses, lift(window_lifter, padded)[:, :frames])


def test_a_long_clip_is_a_single_window_where_that_is_alone(window_lifter):
    """Two windows beside each other and one over both: the first frame has one only."""
    poses = lift(window_lifter, CLIP[:9], overlap=1)
    single = lift(window_lifter, CLIP[:5])
    np.testing.assert_allclose(poses[:, :4], single[:, :4], atol=1e-5)
    assert np.abs(poses[:, 4] - single[:, 4]).max() > 1e-4


def test_causal_answers_do_not_change_with_what_comes_later(window_lifter):
    poses = lift(window_lifter, CLIP, causal=True)
    assert poses.shape == (2, 13, 17, 3)
    later = CLIP.copy()
    later[7:] += 50
    changed = lift(window_lifter, later, causal=True)
    np.testing.assert_array_equal(changed[:, :7], poses[:, :7])
    assert (np.abs(changed[:, 7:] - poses[:, 7:]).max(axis=(0, 2, 3)) > 1e-4).all()
    np.testing.assert_allclose(lift(window_lifter, CLIP[:7], causal=True), poses[:, :7], atol=1e-5)


def test_an_overlap_must_fit_the_window(window_lifter):
    with pytest.raises(ValueError, match="overlap: expected 0 to 4, got 5"):
        lift(window_lifter, CLIP, overlap=5)
    with pytest.raises(ValueError, match="overlap: expected 0 to 0, got 2"):
        lift(window_lifter, CLIP, overlap=2, causal=True)
    with pytest.raises(TypeError, match=r"overlap: expected a whole number, got 2\.5"):
        lift(window_lifter, CLIP, overlap=2.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"keypoints": KEYPOINTS[:, :16]},
            r"keypoints: expected \(..., 17, 2\) for skeleton 'h36m_17'",
        ),
        ({"keypoints": KEYPOINTS[0]}, r"keypoints: expected \(F, J, 2\) with F >= 1"),
        ({"keypoints": KEYPOINTS[:0]}, r"keypoints: expected \(F, J, 2\) with F >= 1"),
        ({"keypoints": np.full((2, 17, 2), np.nan)}, r"keypoints: expected finite .* 33 other"),
        (
            {"keypoints": np.where(np.arange(34).reshape(17, 2) == 7, np.inf, KEYPOINTS)},
            r"keypoints: expected finite values, got \[.*inf\] in frame 0, joint 3 \(right_ankle\)",
        ),
        ({"keypoints": KEYPOINTS / 1000}, "keypoints: expected pixels, got no value above"),
        ({"num_hypotheses": 0}, "num_hypotheses: expected at least 1"),
        ({"skeleton": "spider_8"}, "spider_8"),
        (
            {"camera": jax.tree.map(lambda x: np.asarray(x)[None], CAMERA)},
            "camera: expected one without leading axes",
        ),
    ],
)
def test_bad_input(lifter, change, message):
    given = {"keypoints": KEYPOINTS, "camera": CAMERA, "key": KEY, "num_hypotheses": 1} | change
    with pytest.raises(ValueError, match=message):
        lifter(given.pop("keypoints"), **given)


@pytest.fixture(scope="module")
def repairing(tmp_path_factory):
    """Trained with hidden joints: the lifter, its system and its weights."""
    config = CONFIG.copy_and_resolve_references()
    config.data.occlusion = ConfigDict({"pattern": "random", "rate": 0.2})
    path = tmp_path_factory.mktemp("occluded")
    system, variables = save(path, config)
    return posediff_jax.load(path, batch_size=8), system, variables


class TestMissingJoints:
    """Confidence 0: repaired by weights that were trained with hidden joints, refused by others."""

    SEEN = np.random.default_rng(5).uniform(size=(11, 17)) > 0.3

    def lift(self, lifter, keypoints=KEYPOINTS, **options):
        given = {"camera": CAMERA, "key": KEY, "num_hypotheses": 2} | options
        return lifter(keypoints, **given).poses

    def test_they_are_zero_in_screen_units_wherever_they_were(self, repairing):
        lifter, system, variables = repairing
        elsewhere = np.where(self.SEEN[..., None], KEYPOINTS, np.nan)
        batch = lifter_batch(KEYPOINTS)
        seen = self.SEEN[:, None]
        batch = batch.replace(
            keypoints=np.where(seen[..., None], batch.keypoints, 0).astype(np.float32),
            confidence=seen.astype(np.float32),
        )
        expected = make_sampler(system, variables, num_hypotheses=2)(KEY, batch).samples
        for keypoints in (KEYPOINTS, elsewhere):
            found = self.lift(lifter, keypoints, confidence=self.SEEN)
            np.testing.assert_allclose(found, np.moveaxis(expected[:, :, 0], 0, 1), atol=1e-5)
        assert np.abs(found - self.lift(lifter)).max() > 0.01

    def test_the_zeros_are_those_of_training(self):
        """The same numbers as a hidden joint has in a batch that a network is trained on."""
        camera = default_camera((1000, 802))
        pixels = centre_missing(KEYPOINTS, self.SEEN, np.asarray(camera.image_size))
        batch = clip_batch(pixels, self.SEEN, camera, plan_clip(11, length=1), np.arange(11))
        assert (batch.keypoints[~self.SEEN[:, None]] == 0).all()
        np.testing.assert_array_equal(batch.keypoints_px[~self.SEEN[:, None]][0], [500, 401])

    def test_confidences_of_other_joint_orders(self, repairing):
        """A thorax is missing with one of the shoulders that it is the mean of."""
        confidence = np.ones((11, 17))
        confidence[:, COCO_17.joints.index("left_shoulder")] = 0
        lifter = repairing[0]
        found = self.lift(lifter, confidence=confidence, skeleton="coco_17")
        joints = joint_map("coco_17", "h36m_17")
        missing = joints.apply_confidence(confidence)
        assert set(np.flatnonzero(missing[0] == 0)) == {7, 8, 11}
        expected = self.lift(lifter, joints.apply(KEYPOINTS), confidence=missing)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_those_of_a_file_of_keypoints(self, repairing, tmp_path):
        """What a detector did not find, from its file to poses."""
        confidence = np.where(self.SEEN, 0.9, 0.0)
        path = tmp_path / "clip.npz"
        np.savez(path, keypoints=KEYPOINTS, confidence=confidence, layout="h36m_17")
        found = read_keypoints(path, image_size=(1000, 800))
        (person,) = found.people
        poses = self.lift(repairing[0], person.keypoints, confidence=person.confidence)
        assert np.isfinite(poses).all()
        expected = self.lift(repairing[0], confidence=confidence)
        np.testing.assert_allclose(poses, expected, atol=1e-5)

    def test_a_frame_that_nobody_was_seen_in_has_no_pose(self, repairing):
        seen = self.SEEN.copy()
        seen[3:5] = False
        found = self.lift(repairing[0], confidence=seen)
        assert np.isnan(found).any(axis=(0, 2, 3)).tolist() == [f in (3, 4) for f in range(11)]
        others = [f for f in range(11) if f not in (3, 4)]
        expected = self.lift(repairing[0], confidence=self.SEEN)
        np.testing.assert_allclose(found[:, others], expected[:, others], atol=1e-5)

    def test_windows_fill_a_gap_that_they_see_over(self, tmp_path):
        """Nobody is seen in frames 2 to 8: three of the windows of five frames see nothing."""
        config = WINDOWS.copy_and_resolve_references()
        config.data.occlusion = ConfigDict({"pattern": "consecutive_frames"})
        save(tmp_path, config)
        lifter = posediff_jax.load(tmp_path)
        seen = np.ones((13, 17))
        seen[2:9] = 0
        found = self.lift(lifter, CLIP, confidence=seen, overlap=4)
        assert np.isfinite(found).all()
        # Side by side, at 0, 5 and 8, the second one sees nothing.
        seen[2:10] = 0
        found = self.lift(lifter, CLIP, confidence=seen, overlap=0)
        assert np.isnan(found).all(axis=(0, 2, 3)).tolist() == [5 <= f < 8 for f in range(13)]
        assert np.isfinite(found[:, [*range(5), *range(8, 13)]]).all()

    def test_nothing_missing_changes_nothing(self, lifter, lifted):
        found = self.lift(lifter, confidence=np.full((11, 17), 0.3), num_hypotheses=3)
        np.testing.assert_allclose(found, lifted.poses, atol=1e-6)

    @pytest.mark.parametrize(
        "section", [None, {"pattern": "none"}, {"pattern": "random", "rate": 0.0}]
    )
    def test_weights_that_never_saw_one_are_refused(self, tmp_path, section):
        config = CONFIG.copy_and_resolve_references()
        if section is not None:
            config.data.occlusion = ConfigDict(section)
        save(tmp_path, config)
        message = "confidence: some joints are missing .* were not trained with missing joints"
        with pytest.raises(ValueError, match=message):
            self.lift(posediff_jax.load(tmp_path), confidence=self.SEEN)

    def test_another_convention_is_refused(self, tmp_path):
        config = CONFIG.copy_and_resolve_references()
        config.data.occlusion = ConfigDict({"pattern": "random", "missing": "mean_pose"})
        save(tmp_path, config)
        with pytest.raises(ValueError, match=r"occlusion\.missing: expected .*got 'mean_pose'"):
            posediff_jax.load(tmp_path)

    @pytest.mark.parametrize(
        ("confidence", "message"),
        [
            (np.ones((11, 16)), r"confidence: expected \(11, 17\) for these keypoints"),
            (np.full((11, 17), 1.5), r"confidence: expected .*, got 1.5 in frame 0, joint 0"),
            (np.full((11, 17), np.nan), r"confidence: expected values in \[0, 1\]"),
            (np.zeros((11, 17)), "confidence: expected a joint that is seen"),
        ],
    )
    def test_bad_confidences(self, repairing, confidence, message):
        with pytest.raises(ValueError, match=message):
            self.lift(repairing[0], confidence=confidence)


def test_a_joint_that_the_weights_do_not_use_is_not_enough(lifter):
    """An eye of COCO's, of which a body of 17 joints has none."""
    seen = np.zeros((11, 17))
    seen[:, COCO_17.joints.index("left_eye")] = 1
    with pytest.raises(ValueError, match="a joint that is seen and that the weights use"):
        lifter(KEYPOINTS, camera=CAMERA, key=KEY, confidence=seen, skeleton="coco_17")


def test_a_camera_is_needed(lifter):
    with pytest.raises(TypeError, match="camera: expected a Camera"):
        lifter(KEYPOINTS, camera=None, key=KEY)
    with pytest.raises(TypeError, match="key: expected a typed key"):
        lifter(KEYPOINTS, camera=None, key=jax.random.PRNGKey(0))


def test_folders_that_cannot_be_used(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="expected a folder with checkpoints"):
        posediff_jax.load(tmp_path)
    with pytest.raises(ValueError, match="batch_size: expected at least 1"):
        posediff_jax.load(folder, batch_size=0)
    state = create_state(jax.random.key(0), make_system(CONFIG), make_optimizer({}))
    CheckpointStore(tmp_path / "bare").save(state)
    with pytest.raises(ValueError, match="the checkpoint holds no config"):
        posediff_jax.load(tmp_path / "bare")
