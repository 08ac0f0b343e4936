"""K-Means anchors on poses whose clusters are known."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import anchors
from posediff_jax.data import read_anchors
from posediff_jax.skeleton import H36M_16, H36M_17

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
KINDS = RNG.normal(size=(3, 17, 3)) * 0.3
KINDS -= KINDS[:, :1]
LABELS = np.repeat([0, 1, 2], [60, 25, 15])
POSES = KINDS[LABELS] + 0.01 * RNG.normal(size=(100, 17, 3))
POSES -= POSES[:, :1]


@pytest.mark.parametrize("pick", ["member", "center"])
def test_finds_the_clusters_largest_first(pick):
    found = anchors.run(POSES, H36M_17, num=3, pick=pick, source="three kinds")
    np.testing.assert_array_equal(found.counts, [60, 25, 15])
    np.testing.assert_allclose(found.poses, KINDS, atol=0.04)
    means = np.stack([POSES[kind == LABELS].mean(axis=0) for kind in range(3)])
    if pick == "center":
        np.testing.assert_allclose(found.poses, means, atol=1e-6)
    else:
        distance = np.abs(found.poses[:, None] - POSES.astype(np.float32)).max(axis=(2, 3))
        np.testing.assert_array_equal(LABELS[distance.argmin(axis=1)], [0, 1, 2])
        np.testing.assert_allclose(distance.min(axis=1), 0, atol=1e-7)
    assert "three kinds" in found.source


def test_one_anchor_is_the_mean_or_the_pose_nearest_to_it():
    (center,) = anchors.run(POSES, H36M_17, num=1, pick="center").poses
    np.testing.assert_allclose(center, POSES.mean(axis=0), atol=1e-6)
    (member,) = anchors.run(POSES, H36M_17, num=1).poses
    distance = np.linalg.norm(POSES - center, axis=(1, 2))
    np.testing.assert_allclose(member, POSES[distance.argmin()], atol=1e-7)


def test_the_seed_decides():
    one, same = (anchors.run(POSES, H36M_17, num=10, seed=1).poses for _ in range(2))
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 101}, r"num: expected 1 to 100 \(the poses\), got 101"),
        ({"num": 0}, "num: expected 1 to 100"),
        ({"num": 2, "pick": "mean"}, "pick: expected one of .* got 'mean'"),
        ({"num": 2, "skeleton": H36M_16}, r"poses: expected \(..., 16, 3\)"),
        ({"num": 2, "poses": POSES * np.nan}, r"poses: expected \(N, J, 3\) finite metres"),
        ({"num": 2, "poses": np.zeros((5, 17, 3))}, "num: no 2 clusters found in 5 poses"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_bad_arguments_are_named(options, message):
    options = {"poses": POSES, "skeleton": H36M_17} | options
    with pytest.raises(ValueError, match=message):
        anchors.run(options.pop("poses"), options.pop("skeleton"), **options)


def test_the_command_writes_what_the_reader_reads(tmp_path):
    file = tmp_path / "anchors.npz"
    command = [sys.executable, "-m", "experiments.anchors", "--num=4", f"--output={file}"]
    command.append("--config=configs/zedo_prior_synthetic.py:tiny")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = read_anchors(file, H36M_17, num_anchors=4)
    assert found.counts.sum() == 7 * 8
    assert "4 anchors of procedural" in done.stdout
