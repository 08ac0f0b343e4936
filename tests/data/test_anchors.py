"""Anchor files: what is written is read, and nothing else."""

import numpy as np
import pytest

from posediff_jax.data import Anchors, read_anchors, write_anchors
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17

POSES = np.random.default_rng(0).normal(size=(3, 17, 3)).astype(np.float32)
POSES -= POSES[:, :1]
ANCHORS = Anchors(POSES, H36M_17.joints, np.array([5, 3, 2]), "three poses")


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "folder" / "anchors.npz"
    write_anchors(file, ANCHORS)
    return file


def rewritten(path, **changes):
    """The file with other entries; None leaves one out."""
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_round_trip(path):
    anchors = read_anchors(path, H36M_17, num_anchors=3)
    np.testing.assert_array_equal(anchors.poses, POSES)
    np.testing.assert_array_equal(anchors.counts, [5, 3, 2])
    assert anchors.joints == H36M_17.joints
    assert anchors.source == "three poses"
    assert set(anchors.frozen()) == {"anchors", "joints"}


def test_a_write_that_fails_leaves_the_old_file_alone(path, monkeypatch):
    before = path.read_bytes()

    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        write_anchors(path, ANCHORS._replace(poses=POSES * 2))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["anchors.npz"]


def test_the_wrong_named_order_is_refused(path):
    """Seventeen joints are not the same seventeen joints."""
    with pytest.raises(ValueError, match=r"expected the order of skeleton 'mpi_inf_3dhp_17'"):
        read_anchors(path, MPI_INF_3DHP_17)
    other = rewritten(path, joints=np.array(MPI_INF_3DHP_17.joints))
    with pytest.raises(ValueError, match=r"those are of 'mpi_inf_3dhp_17'; see skeleton.joint_map"):
        read_anchors(other, H36M_17)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": np.array("millimetre")}, "key 'unit': expected 'metre', got 'millimetre'"),
        ({"unit": None}, "expected keys .*'unit'"),
        ({"poses": POSES[:, :16]}, r"key 'poses': expected shape \(any, 17, 3\)"),
        ({"poses": POSES * np.nan}, "key 'poses': expected finite values"),
        ({"poses": POSES + 1}, "key 'poses': expected root-relative poses, got the root 1.732 m"),
        ({"poses": POSES[:0], "counts": np.zeros(0, int)}, "one for each of at least one pose"),
        ({"counts": np.zeros(2, int)}, r"one for each of at least one pose, got \(2,\) for 3"),
    ],
)
def test_bad_files_are_named(path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_anchors(rewritten(path, **changes), H36M_17)


def test_more_than_there_are(path):
    with pytest.raises(ValueError, match=r"anchors.npz: expected at least 4 anchors, got 3"):
        read_anchors(path, H36M_17, num_anchors=4)
