"""Hidden joints: the published counts and spans, functions of key and item alone."""

import dataclasses
import hashlib
from functools import partial

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import occluded
from posediff_jax.data.batching import batches, endless_batches, item_table
from posediff_jax.data.occlusion import (
    PATTERNS,
    RATES,
    Occlusion,
    occlusion_key,
    read_occlusion,
    visible_joints,
    visible_joints_on_host,
)
from posediff_jax.data.scored import all_frames, scored_items
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.skeleton import COCO_17, H36M_16, H36M_17
from tests.data.fakes import sequence, sequences

KEY = jax.random.key(7)
# Right leg, left arm of h36m_17, from the specification.
LEG, ARM = (1, 2, 3), (11, 12, 13)


def hidden(pattern, count=400, *, frames=27, skeleton=H36M_17, key=KEY, **options):
    """Flags (count, F, J) of joints that are hidden, at the published rate unless one is given."""
    occlusion = read_occlusion({"pattern": pattern, **options})
    seen = visible_joints(key, np.arange(count), occlusion, num_frames=frames, skeleton=skeleton)
    return ~np.asarray(seen)


def limbs_of(mask):
    """The joints that are ever hidden; each frame hides all of them or none."""
    joints = np.flatnonzero(mask.any(axis=(0, 1)))
    assert (mask[..., joints].all(axis=-1) == mask.any(axis=-1)).all()
    return tuple(joints)


def starts_of(mask, length):
    """First frame of the span of each item; the spans are of one length and without a gap."""
    frames = mask.any(axis=-1)
    start = frames.argmax(axis=-1)
    number = np.arange(frames.shape[-1])
    expected = (number >= start[:, None]) & (number < start[:, None] + length)
    np.testing.assert_array_equal(frames, expected)
    return start


class TestScoredMasks:
    """What figures of different days and machines are compared on."""

    DIGESTS = (
        "random=a7f31395 leg_and_arm=dd36f458 consecutive_leg=a19a8adf consecutive_frames=bd98df80"
    )

    def masks(self, items=range(40)):
        return {
            pattern: visible_joints_on_host(
                0,
                "score",
                0,
                np.array(items),
                read_occlusion({"pattern": pattern}),
                num_frames=27,
                skeleton=H36M_17,
            )
            for pattern in RATES
            if pattern != "none"
        }

    def test_never_change(self):
        found = {p: hashlib.sha256(m.tobytes()).hexdigest()[:8] for p, m in self.masks().items()}
        assert " ".join(f"{p}={digest}" for p, digest in found.items()) == self.DIGESTS

    def test_do_not_depend_on_the_generator_that_the_process_prefers(self):
        """Whose draws for an item may depend on the batch that it is in."""
        together = self.masks()
        with jax.default_prng_impl("rbg"):
            for pattern, mask in self.masks([5]).items():
                np.testing.assert_array_equal(mask, together[pattern][5:6])

    def test_do_not_depend_on_how_the_process_draws(self):
        with jax.threefry_partitionable(False):
            self.test_never_change()


def test_what_hides_nothing_says_so():
    """Weights that were trained so are not taken for ones that know missing joints."""
    assert not Occlusion().hides
    assert not Occlusion("random").hides
    assert not read_occlusion({"pattern": "consecutive_leg", "rate": 0.0}).hides
    assert Occlusion("consecutive_leg", span=3).hides
    assert all(read_occlusion({"pattern": p}).hides for p in PATTERNS if p != "none")


def test_configs_have_all_fields():
    """So that each of them is a flag."""
    config = ConfigDict({"data": {}})
    occluded.VARIANTS["occluded_leg_and_arm"](config)
    fields = config.data.occlusion.to_dict()
    assert set(fields) == {f.name for f in dataclasses.fields(Occlusion)}
    assert read_occlusion(fields) == Occlusion("leg_and_arm", RATES["leg_and_arm"])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_flag_that_names_another_pattern_brings_its_rate(pattern):
    config = ConfigDict({"data": {}})
    occluded.VARIANTS["occluded_none"](config)
    config.data.occlusion.pattern = pattern
    assert read_occlusion(config.data.occlusion) == read_occlusion({"pattern": pattern})
    config.data.occlusion.update(pattern="random", rate=0.3)
    assert read_occlusion(config.data.occlusion).rate == 0.3


class TestPublishedRules:
    def test_random_hides_every_joint_for_itself(self):
        mask = hidden("random")
        assert mask.shape == (400, 27, 17)
        # Within five standard deviations, overall and joint by joint.
        for axes in ((0, 1, 2), (0, 1), (0, 2)):
            share = mask.mean(axis=axes)
            count = mask.size / share.size
            assert np.abs(share - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / count)
        pairs = (mask[..., 1:] & mask[..., :-1]).mean(), (mask[:, 1:] & mask[:, :-1]).mean()
        np.testing.assert_allclose(pairs, 0.04, atol=0.005)

    @pytest.mark.parametrize(("frames", "count"), [(27, 10), (81, 32), (243, 97)])
    def test_leg_and_arm_are_hidden_in_an_exact_number_of_frames(self, frames, count):
        mask = hidden("leg_and_arm", 100, frames=frames)
        assert limbs_of(mask) == LEG + ARM
        assert (mask.any(axis=-1).sum(axis=-1) == count).all()
        # Every frame as often, and not in one piece.
        share = mask.any(axis=-1).mean(axis=0)
        assert np.abs(share - count / frames).max() < 5 * np.sqrt(0.25 / 100)
        assert (np.abs(np.diff(mask.any(axis=-1).astype(int), axis=-1)).sum(axis=-1) > 2).all()

    def test_leg_and_arm_as_the_paper_says(self):
        mask = hidden("leg_and_arm", draw="bernoulli")
        assert limbs_of(mask) == LEG + ARM
        counts = mask.any(axis=-1).sum(axis=-1)
        assert abs(counts.mean() - 0.4 * 27) < 5 * np.sqrt(27 * 0.24 / 400)
        assert counts.std() == pytest.approx(np.sqrt(27 * 0.24), rel=0.2)

    @pytest.mark.parametrize(
        ("pattern", "joints", "frames", "length"),
        [
            ("consecutive_leg", LEG, 27, 10),
            ("consecutive_leg", LEG, 81, 32),
            ("consecutive_frames", tuple(range(17)), 27, 5),
            ("consecutive_frames", tuple(range(17)), 243, 48),
        ],
    )
    def test_spans_never_begin_at_the_last_frame_they_could(self, pattern, joints, frames, length):
        mask = hidden(pattern, 1000 if frames == 27 else 50, frames=frames)
        assert limbs_of(mask) == joints
        start = starts_of(mask, length)
        assert start.min() >= 0
        assert start.max() < frames - length
        if frames == 27:
            # Each of the 17 or 22 starts about as often.
            counts = np.bincount(start, minlength=27 - length)
            expected = 1000 / (27 - length)
            assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)

    def test_all_starts_by_name(self):
        start = starts_of(hidden("consecutive_leg", 600, starts="all"), 10)
        assert set(start) == set(range(18))

    def test_all_draws_one_of_the_five_patterns(self):
        mask = hidden("all", 1000)
        per_frame, joints = mask.any(axis=-1).sum(axis=-1), mask.any(axis=1).sum(axis=-1)
        kinds = {
            "none": joints == 0,
            "leg_and_arm": (joints == 6) & (per_frame == 10),
            "consecutive_leg": (joints == 3) & (per_frame == 10),
            "consecutive_frames": (joints == 17) & (per_frame == 5),
            "random": (joints > 6) & (per_frame > 15),
        }
        assert sum(kinds.values()).tolist() == [1] * 1000
        for kind in kinds.values():
            assert abs(kind.mean() - 0.2) < 5 * np.sqrt(0.16 / 1000)

    def test_the_ends_of_the_range(self):
        for pattern in ("random", "leg_and_arm", "consecutive_leg", "consecutive_frames"):
            assert not hidden(pattern, rate=0.0).any()
            mask = hidden(pattern, 20, rate=1.0)
            assert mask[..., limbs_of(mask)].all()
        assert not hidden("none").any()

    def test_a_span_in_frames(self):
        assert starts_of(hidden("consecutive_leg", span=4), 4).max() == 22
        assert starts_of(hidden("consecutive_frames", 9, span=27), 27).max() == 0

    def test_limbs_are_found_by_name(self):
        mask = hidden("leg_and_arm", 3, skeleton=H36M_16)
        assert limbs_of(mask) == (1, 2, 3, 10, 11, 12)
        assert limbs_of(hidden("consecutive_leg", 3, skeleton=COCO_17)) == (12, 14, 16)

    def test_the_configs_know_all_patterns(self):
        assert occluded.PATTERNS == PATTERNS


class TestFunctionOfKeyAndItem:
    def test_neither_batch_nor_devices_nor_precision_matter(self):
        """With "all", under which every pattern is drawn."""
        whole = hidden("all", 8)
        options = {"num_frames": 27, "skeleton": H36M_17}
        draw = partial(visible_joints, occlusion=Occlusion("all"), **options)
        apart = [~np.asarray(draw(KEY, np.array([i]))) for i in (5, 2)]
        np.testing.assert_array_equal(np.concatenate(apart), whole[[5, 2]])
        shards = jax.pmap(draw, in_axes=(None, 0))(KEY, np.arange(8).reshape(4, 2))
        np.testing.assert_array_equal(~np.asarray(shards).reshape(whole.shape), whole)
        with jax.enable_x64(True):
            np.testing.assert_array_equal(hidden("all", 8), whole)

    def test_items_and_keys_differ(self):
        mask, other = hidden("random", 20), hidden("random", 20, key=jax.random.key(8))
        assert len({row.tobytes() for row in (*mask, *other)}) == 40

    def test_on_the_host(self):
        occlusion = Occlusion("random", 0.3)
        options = {"num_frames": 9, "skeleton": H36M_17}
        index = np.array([4, 0, 77], np.int32)
        ours = visible_joints_on_host(3, "train", 2, index, occlusion, **options)
        key = occlusion_key(3, "train", 2)
        np.testing.assert_array_equal(ours, visible_joints(key, index, occlusion, **options))

    def test_streams_and_epochs_have_keys_of_their_own(self):
        given = [(0, "train"), (1, "train"), (0, "score"), (0, "train", 1), (0, "train", 2)]
        keys = {jax.random.key_data(occlusion_key(*a)).tobytes() for a in given}
        assert len(keys) == 5
        with pytest.raises(ValueError, match=r"stream: expected one of .*got 'test'"):
            occlusion_key(0, "test")


def table(occlusion=None, **options):
    occlusion = read_occlusion(occlusion or {"pattern": "random", "rate": 0.4})
    return item_table(sequences(), length=2, augment=True, occlusion=occlusion, **options)


def rows_of(stream):
    found = {}
    for batch in stream:
        for row in np.flatnonzero(batch.mask.any(axis=1)):
            found[int(batch.index[row])] = jax.tree.map(lambda x, r=row: x[r], batch)
    return found


class TestBatches:
    def test_a_hidden_joint_is_zero_in_screen_units(self):
        plain = item_table(sequences(), length=2, augment=True)
        expected = rows_of(batches(plain, batch_size=4))
        for index, row in rows_of(batches(table(), batch_size=4)).items():
            missing = row.confidence == 0
            assert 0 < missing.sum() < missing.size
            assert (row.keypoints[missing] == 0).all()
            np.testing.assert_array_equal(row.keypoints_px[missing], [[450, 500]] * missing.sum())
            for field in ("keypoints", "keypoints_px", "confidence"):
                np.testing.assert_array_equal(
                    getattr(row, field)[~missing], getattr(expected[index], field)[~missing]
                )
            np.testing.assert_array_equal(row.pose, expected[index].pose)

    @pytest.mark.parametrize("batch_size", [1, 5, 14])
    def test_neither_batch_size_nor_restarts_matter(self, batch_size):
        whole = rows_of(batches(table(), batch_size=3, seed=1, epoch=2))
        again = list(batches(table(), batch_size=batch_size, seed=1, epoch=2))
        resumed = batches(table(), batch_size=batch_size, seed=1, epoch=2, start_step=1)
        for found in (rows_of(again), rows_of([again[0], *resumed])):
            assert set(found) == set(whole)
            for index, row in found.items():
                jax.tree.map(np.testing.assert_array_equal, row, whole[index])

    def test_every_epoch_hides_others(self):
        stream = endless_batches(table(), batch_size=14)
        first, second = (rows_of([next(stream)]) for _ in range(2))
        assert all((first[i].confidence != second[i].confidence).any() for i in first)
        after = next(endless_batches(table(), batch_size=14, start_step=1))
        for index, row in rows_of([after]).items():
            np.testing.assert_array_equal(row.confidence, second[index].confidence)

    def test_the_mirror_image_lacks_the_other_leg(self):
        rows = rows_of(batches(table({"pattern": "consecutive_leg", "rate": 0.5}), batch_size=4))
        flips = table().items[:, 3]
        for index, row in rows.items():
            joints = set(np.flatnonzero((row.confidence == 0).any(axis=0)))
            assert joints == ({4, 5, 6} if flips[index] else set(LEG))

    def test_joints_missing_in_the_data_are_at_the_centre_too(self):
        one = sequence("a", 2)
        confidence = np.where(np.arange(17) == 9, 0, one.confidence)
        data = PoseSequences((dataclasses.replace(one, confidence=confidence),), H36M_17)
        hidden_too = item_table(data, length=2, occlusion=Occlusion("none"))
        assert (hidden_too.gather(np.array([0])).keypoints[0, :, 9] == 0).all()
        # Without the section `data.occlusion` they stay where they are.
        as_it_is = item_table(data, length=2).gather(np.array([0]))
        np.testing.assert_array_equal(as_it_is.keypoints_px[0], one.keypoints_px)

    def test_scored_windows_hide_the_same_for_all(self):
        occlusion = Occlusion("random", 0.4)
        found = []
        for size in (1, 3):
            items = scored_items(all_frames(sequences()), length=2, occlusion=occlusion)
            found.append(rows_of(batch for batch, _ in items.batches(size)))
        for index, row in found[0].items():
            jax.tree.map(np.testing.assert_array_equal, row, found[1][index])
        seen = visible_joints(
            occlusion_key(0, "score"), np.arange(7), occlusion, num_frames=2, skeleton=H36M_17
        )
        for index, row in found[0].items():
            np.testing.assert_array_equal(row.confidence > 0, seen[index])


class TestRefusals:
    @pytest.mark.parametrize(
        ("section", "message"),
        [
            ({"pattern": "fog"}, r"occlusion.pattern: expected one of .*consecutive_leg.*'fog'"),
            ({"pattern": "random", "rate": -0.1}, r"occlusion.rate: expected a value in \[0, 1\]"),
            ({"pattern": "random", "rate": 1.1}, r"occlusion.rate: expected .* got 1.1"),
            ({"pattern": "random", "rate": float("nan")}, r"occlusion.rate: expected .* got nan"),
            ({"pattern": "all", "rate": 0.2}, "occlusion.rate: 'all' has no rate of its own"),
            ({"pattern": "random", "span": 3}, "occlusion.span: expected 0 with 'random'"),
            ({"pattern": "consecutive_leg", "span": -3}, "occlusion.span: expected at least 0"),
            ({"pattern": "random", "draw": "bernoulli"}, "'bernoulli' is a form of 'leg_and_arm'"),
            ({"pattern": "leg_and_arm", "draw": "often"}, "occlusion.draw: expected one of"),
            ({"pattern": "consecutive_leg", "starts": "some"}, "occlusion.starts: expected one"),
            ({"pattern": "random", "starts": "all"}, "occlusion.starts: expected 'official' with"),
            ({"pattern": "random", "missing": "mean"}, "occlusion.missing: expected one of"),
            ({"pattern": "random", "miss_rate": 20}, r"data\.occlusion\.miss_rate: unknown field"),
        ],
    )
    def test_sections(self, section, message):
        with pytest.raises(ValueError, match=message):
            read_occlusion(section)

    def test_types(self):
        with pytest.raises(TypeError, match=r"data\.occlusion\.rate: expected float, got 'half'"):
            read_occlusion({"pattern": "random", "rate": "half"})
        with pytest.raises(TypeError, match=r"data\.occlusion\.pattern: expected str, got \["):
            read_occlusion({"pattern": ["random"]})
        with pytest.raises(TypeError, match=r"data\.occlusion: expected fields of Occlusion"):
            read_occlusion("random")
        with pytest.raises(TypeError, match=r"occlusion\.span: expected a whole number, got 2\.5"):
            Occlusion("consecutive_leg", span=2.5)
        for rate in ("0.2", True):
            with pytest.raises(TypeError, match=r"occlusion\.rate: expected a number, got "):
                Occlusion("random", rate)

    def test_a_rate_beside_a_span(self):
        """The span says how many frames; a checkpoint holds the pattern's published rate too."""
        section = {"pattern": "consecutive_leg", "span": 3}
        assert read_occlusion(section) == read_occlusion({**section, "rate": 0.4})
        with pytest.raises(ValueError, match=r"data\.occlusion\.rate: expected none beside a span"):
            read_occlusion({**section, "rate": 0.9})

    @pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
    def test_keys_whose_draws_depend_on_the_batch(self, generator):
        with pytest.raises(ValueError, match=f"key: expected one of 'threefry2x32'.*{generator}"):
            hidden("random", 1, key=jax.random.key(7, impl=generator))

    def test_a_span_longer_than_the_clip(self):
        for draw in (
            lambda: hidden("consecutive_frames", 1, span=28),
            lambda: table({"pattern": "consecutive_leg", "span": 3}),
        ):
            with pytest.raises(ValueError, match=r"occlusion.span: expected at most the \d+ fra"):
                draw()

    @pytest.mark.parametrize("pattern", sorted({*PATTERNS} - {"none", "random"}))
    def test_clips_too_short_to_hide_anything(self, pattern):
        with pytest.raises(ValueError, match=r"occlusion\.rate: 0\.\d of a clip of 1 frames is"):
            item_table(sequences(), occlusion=read_occlusion({"pattern": pattern}))

    def test_leg_and_arm_of_one_frame_have_another_form(self):
        section = {"pattern": "leg_and_arm"}
        with pytest.raises(ValueError, match=r"or draw='bernoulli'$"):
            item_table(sequences(), occlusion=read_occlusion(section))
        item_table(sequences(), occlusion=read_occlusion({**section, "draw": "bernoulli"}))

    def test_a_skeleton_without_the_limbs(self):
        bare = dataclasses.replace(H36M_17, joints=tuple(f"joint_{i}" for i in range(17)))
        with pytest.raises(ValueError, match=r"skeleton: 'leg_and_arm' hides joints that"):
            hidden("all", 1, skeleton=bare)
