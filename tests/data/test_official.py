"""The released epoch: against the authors' output where the fixture is here, and against ours."""

import json
import pathlib

import numpy as np
import pytest

from posediff_jax.camera import intrinsics_vector
from posediff_jax.data.batching import batches, item_table
from posediff_jax.data.official import official_epoch
from posediff_jax.skeleton import H36M_17
from tests.data.fakes import sequences

FIXTURE = pathlib.Path(__file__).parents[1] / "golden" / "diffupose_data.npz"


@pytest.mark.skipif(not FIXTURE.exists(), reason="the fixture is not in this checkout")
def test_order_and_flips_are_those_of_the_released_code():
    golden = np.load(FIXTURE)
    config = json.loads(str(golden["meta"]))["config"]
    assert tuple(config["joints_left"]) == H36M_17.left
    inputs = [[golden[f"in_{kind}_{i}"] for i in range(3)] for kind in ("seq2d", "seq3d", "cam")]
    found = official_epoch(*inputs, H36M_17, seed=config["shuffle_seed"], augment=config["augment"])
    for array, key in zip(found, ("2d", "3d", "cam"), strict=True):
        np.testing.assert_array_equal(array, golden[f"out_epoch_{key}"])


def test_batches_in_official_order_are_the_official_epoch():
    data = sequences()
    items = item_table(data, augment=True)
    stream = list(batches(items, batch_size=8, order="official"))
    # The table's own screen units and intrinsics of each sequence, plain.
    plain = item_table(data).gather(np.arange(12))
    cuts = [5, 8]
    expected = official_epoch(
        np.split(plain.keypoints[:, 0], cuts),
        np.split(plain.pose[:, 0], cuts),
        [intrinsics_vector(s.camera) for s in data.sequences],
        H36M_17,
    )
    np.testing.assert_allclose(
        np.concatenate([b.keypoints for b in stream]), expected[0], atol=1e-6
    )
    np.testing.assert_array_equal(np.concatenate([b.pose for b in stream]), expected[1])
    cameras = np.concatenate([intrinsics_vector(b.camera) for b in stream])
    np.testing.assert_allclose(cameras, expected[2], atol=1e-6)


def test_without_augmentation_each_frame_comes_once():
    frames = [
        np.full((n, 17, 2), i + 0.1 * np.arange(n)[:, None, None]) for i, n in enumerate((3, 4))
    ]
    joints = [np.zeros((n, 17, 3)) for n in (3, 4)]
    points, _, _ = official_epoch(frames, joints, [np.zeros(9)] * 2, H36M_17, augment=False)
    assert sorted(points[:, 0, 0, 0].round(1).tolist()) == [0.0, 0.1, 0.2, 1.0, 1.1, 1.2, 1.3]
