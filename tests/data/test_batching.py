"""Batches: complete, resumable, mirrored right, and the same whatever their size."""

import jax
import numpy as np
import pytest

from posediff_jax.camera import flip_camera, project, to_screen
from posediff_jax.data.batching import (
    batches,
    endless_batches,
    epoch_order,
    item_table,
    list_items,
    num_batches,
)
from posediff_jax.data.procedural import procedural_motion
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.data.synthetic import virtual_views
from posediff_jax.geometry import flip
from posediff_jax.skeleton import H36M_17
from tests.data.fakes import sequence, sequences


def table(**options):
    return item_table(sequences(), **({"augment": True} | options))


def rows(stream):
    """Item index -> leaves of its row, real rows only; each item may come once."""
    found = {}
    for batch in stream:
        for row in np.flatnonzero(batch.mask.any(axis=1)):
            index = int(batch.index[row])
            assert index not in found
            found[index] = jax.tree.map(lambda leaf, row=row: leaf[row], batch)
    return found


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("order", ["shuffled", "sequential", "official", "official_stream"])
@pytest.mark.parametrize("batch_size", [1, 5, 24, 100])
def test_an_epoch_has_every_item_once_in_batches_of_constant_shape(order, batch_size):
    items = table()
    stream = list(batches(items, batch_size=batch_size, order=order))
    assert len(stream) == num_batches(items, batch_size)
    assert {b.keypoints.shape for b in stream} == {(batch_size, 1, 17, 2)}
    assert set(rows(stream)) == set(range(24))


def test_what_an_item_holds_does_not_depend_on_its_batch():
    small, large = (rows(batches(table(), batch_size=n, seed=n)) for n in (1, 7))
    for index, row in small.items():
        assert_equal(row, large[index])


def test_the_last_batch_is_filled_with_masked_copies_of_its_last_item():
    last = list(batches(table(length=2), batch_size=8, order="sequential"))[-1]
    # 5, 3 and 4 frames make 3, 2 and 2 windows, each plain and mirrored: 14 items.
    assert last.index.tolist() == [8, 9, 10, 11, 12, 13, 13, 13]
    assert last.mask[:6].max(axis=1).tolist() == [1.0] * 6
    assert last.mask[6:].tolist() == [[0.0, 0.0]] * 2
    np.testing.assert_array_equal(last.keypoints[5:], np.repeat(last.keypoints[5:6], 3, axis=0))


def test_drop_last_leaves_out_what_is_not_full():
    assert num_batches(table(), 7, drop_last=True) == 3
    assert len(list(batches(table(), batch_size=7, drop_last=True))) == 3


@pytest.mark.parametrize("order", ["shuffled", "sequential", "official", "official_stream"])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_batches(order, start):
    options = {"batch_size": 7, "seed": 3, "epoch": 2, "order": order}
    whole = list(batches(table(), **options))
    rest = list(batches(table(), start_step=start, **options))
    assert len(rest) == 4 - start
    for a, b in zip(whole[start:], rest, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("start", [0, 3, 4, 9])
def test_endless_batches_are_the_epochs_one_after_another(start):
    expected = [
        b for epoch in range(3) for b in batches(table(), batch_size=7, seed=1, epoch=epoch)
    ]
    stream = endless_batches(table(), batch_size=7, seed=1, start_step=start)
    for batch in expected[start:]:
        assert_equal(next(stream), batch)


def test_orders_differ_between_epochs_and_seeds_and_are_permutations():
    orders = [tuple(epoch_order(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert tuple(epoch_order(0, 1, 50)) == orders[1]


def test_results_can_be_put_back_by_index():
    out = np.zeros((24, 1, 17, 2), np.float32)
    for batch in batches(table(), batch_size=7, seed=5):
        out[batch.index] = batch.keypoints_px
    np.testing.assert_array_equal(out, table().gather(np.arange(24)).keypoints_px)


def test_plain_items_are_the_frames_of_the_sequences():
    items = table(augment=False, length=2)
    batch = items.gather(np.arange(items.num_items))
    b = sequences().sequences[1]
    # The second sequence has 3 frames: items 3 and 4, the last one padded.
    np.testing.assert_array_equal(
        batch.keypoints_px[3:5].reshape(4, 17, 2), b.keypoints_px[[0, 1, 2, 2]]
    )
    np.testing.assert_array_equal(batch.pose[3:5].reshape(4, 17, 3), b.pose[[0, 1, 2, 2]])
    np.testing.assert_array_equal(batch.root[3:5].reshape(4, 3), b.root[[0, 1, 2, 2]])
    np.testing.assert_array_equal(batch.confidence[3:5].reshape(4, 17), b.confidence[[0, 1, 2, 2]])
    assert batch.mask[3:5].tolist() == [[1, 1], [1, 0]]
    assert [sequences().subjects[s] for s in batch.subject] == ["zoe"] * 3 + ["anna"] * 4
    assert [sequences().actions[a] for a in batch.action] == ["walk"] * 3 + ["jump"] * 2 + [
        "walk"
    ] * 2
    assert_equal(jax.tree.map(lambda x: x[3], batch.camera), b.camera)


def test_keypoints_are_in_the_screen_units_of_the_camera():
    batch = table().gather(np.arange(24))
    expected = to_screen(batch.keypoints_px, batch.camera.image_size)
    np.testing.assert_allclose(batch.keypoints, expected, atol=1e-6)


def test_mirrored_items_are_the_mirror_image_of_their_partners():
    items = table()
    flipped = np.flatnonzero(items.items[:, 3])
    pairs = {tuple(row[:3]): i for i, row in enumerate(items.items) if row[3] == 0}
    plain = items.gather(np.array([pairs[tuple(items.items[i, :3])] for i in flipped]))
    mirrored = items.gather(flipped)
    np.testing.assert_allclose(mirrored.keypoints, flip(plain.keypoints, H36M_17), atol=1e-6)
    np.testing.assert_array_equal(mirrored.pose, flip(plain.pose, H36M_17))
    np.testing.assert_array_equal(mirrored.root, plain.root * np.float32([-1, 1, 1]))
    np.testing.assert_array_equal(
        mirrored.confidence, plain.confidence[..., list(H36M_17.flip_permutation)]
    )
    jax.tree.map(np.testing.assert_allclose, mirrored.camera, flip_camera(plain.camera))


def test_the_mirrored_camera_sees_the_mirrored_person():
    clips = procedural_motion(0, num_clips=2, frames=3)
    items = item_table(virtual_views(0, clips, H36M_17, distortion=True), augment=True)
    batch = items.gather(np.arange(items.num_items))
    seen = project(batch.camera, batch.pose + batch.root[..., None, :])
    np.testing.assert_allclose(seen, batch.keypoints_px, atol=5e-3)


def test_data_without_truth_make_batches_without_truth():
    data = PoseSequences((sequence(pose=None, root=None),), H36M_17)
    batch = next(batches(item_table(data, augment=True), batch_size=3))
    assert batch.pose is None
    assert batch.root is None


def test_dtypes_are_those_of_the_data_and_leaves_are_numpy():
    batch = table().gather(np.arange(4))
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(batch)} == {"float32", "int32"}
    double = PoseSequences(
        (sequence(keypoints_px=sequence().keypoints_px.astype(np.float64)),), H36M_17
    )
    assert item_table(double).gather(np.arange(2)).keypoints.dtype == np.float64


def test_gathering_does_not_change_the_table():
    items = table()
    before = (
        items.keypoints_px.copy(),
        items.pose.copy(),
        items.root.copy(),
        items.confidence.copy(),
    )
    list(batches(items, batch_size=7))
    for a, b in zip(
        before, (items.keypoints_px, items.pose, items.root, items.confidence), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_items_end_within_their_sequence():
    assert list_items([3, 2], length=2).tolist() == [[0, 0, 2, 0], [0, 2, 3, 0], [1, 0, 2, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"start_step": 5}, "start_step: expected 0 to 4, got 5"),
        ({"start_step": -1}, "start_step"),
        ({"order": "sorted"}, "order: expected one of .*, got 'sorted'"),
        ({"seed": -1}, "seed"),
        ({"epoch": -1}, "epoch"),
    ],
)
def test_options_out_of_range_are_refused_at_the_call(options, message):
    with pytest.raises(ValueError, match=message):
        batches(table(), **({"batch_size": 7} | options))


def test_endless_batches_refuse_what_would_never_give_a_batch():
    with pytest.raises(ValueError, match="batch_size: expected at most 24 with drop_last, got 25"):
        endless_batches(table(), batch_size=25, drop_last=True)
    with pytest.raises(ValueError, match="order"):
        endless_batches(table(), batch_size=5, order="sorted")
    with pytest.raises(ValueError, match="start_step"):
        endless_batches(table(), batch_size=5, start_step=-1)


def test_a_window_that_fits_nowhere_is_refused():
    with pytest.raises(ValueError, match="length: no window of 9 fits, the longest has 5 frames"):
        table(length=9, pad="drop")


@pytest.mark.parametrize("index", [[-1], [24], [[0]]])
def test_indices_outside_the_table_are_refused(index):
    with pytest.raises(ValueError, match=r"index: expected \(B,\) within \[0, 24\)"):
        table().gather(np.array(index))
