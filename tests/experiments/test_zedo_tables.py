"""ZeDO's tables in miniature: every row is there, and says what it should of the others."""

import dataclasses

import jax
import numpy as np
import pytest

from configs.zedo_prior_synthetic import get_config
from experiments import zedo_tables
from experiments.data import load_training
from experiments.zedo_lifting import Lifted, Prior, least_errors, lift, load_frames, truth
from posediff_jax.camera import project
from posediff_jax.systems import make_system

OPTIONS = {"fit_iterations": 3, "num_iterations": 3}


def make_prior(arg):
    config = get_config(arg)
    variables = jax.jit(make_system(config).init)(jax.random.key(0))
    return Prior(arg, config, jax.device_get(variables), load_training(config).train.pose)


@pytest.fixture(scope="module")
def score():
    return make_prior("tiny")


@pytest.fixture(scope="module")
def batches(score):
    return load_frames(score.config, frames=5, batch_size=4)


def test_scored_frames_are_spread_and_padded(score, batches):
    assert [int(b.mask.sum()) for b in batches] == [4, 1]
    every = np.concatenate([b.pose[b.mask[:, 0] > 0] for b in load_frames(score.config)])
    np.testing.assert_array_equal(truth(batches)[[0, -1]], every[[0, -1], 0])
    assert len(every) > 5


def test_hypotheses_are_seen_through_the_lens(batches):
    """Truth where it is has no error, under a lens that bends the image by tens of pixels."""
    pixels, bent = [], []
    for batch in batches:
        camera = batch.camera
        camera = camera.replace(radial=np.full_like(camera.radial, 0.3))
        points = batch.pose + batch.root[..., None, :]
        seen = np.asarray(project(camera, points))
        pixels.append(np.abs(seen - np.asarray(project(batch.camera, points))).max())
        bent.append(dataclasses.replace(batch, camera=camera, keypoints_px=seen))
    assert max(pixels) > 5
    root = np.concatenate([b.root[:, 0][b.mask[:, 0] > 0] for b in bent])
    there = Lifted(truth(bent)[:, None], {"translation": root[:, None]}, 0.0)
    np.testing.assert_allclose(zedo_tables.reprojection(bent, there), 0, atol=1e-2)


@pytest.mark.slow
def test_lifting_does_not_depend_on_batches(score, batches):
    one = load_frames(score.config, frames=5, batch_size=5)
    options = {"sampler": OPTIONS | {"fit_iterations": 0}}
    np.testing.assert_allclose(
        lift(score, one, **options).samples, lift(score, batches, **options).samples, atol=1e-4
    )


@pytest.mark.slow
def test_table_4(score, batches):
    rows = zedo_tables.table_4([score], batches, 2, {"num_iterations": 5})
    assert [row["steps"] for row in rows] == ["", "RO", "RO WU"]
    for row in rows:
        assert row["S=1 p_mpjpe"] <= row["S=1 mpjpe"]
        assert row["S=2 unsolved"] == 0
    assert len({row["S=1 mpjpe"] for row in rows}) == 3


@pytest.mark.slow
def test_table_5(score, batches):
    rows = zedo_tables.table_5([score, make_prior("tiny,ddpm")], batches, 1, OPTIONS)
    assert [row["backbone"] for row in rows] == ["score", "DDIM", "DDPM"]
    assert len({row["mpjpe"] for row in rows}) == 3


@pytest.mark.slow
def test_table_7(score, batches):
    rows = zedo_tables.table_7([score], batches, 1, OPTIONS)
    starts = ["random", "generated", "K-Means, member", "K-Means, center"]
    assert [row["start"] for row in rows] == starts
    assert len({row["mpjpe"] for row in rows}) == 4


@pytest.mark.slow
def test_figure_5(score, batches):
    rows = zedo_tables.figure_5([score], batches, 1, OPTIONS, iterations=(2, 3))
    assert [(row["steps of"], row["N"]) for row in rows] == [
        *(("1 / 1000", n) for n in (2, 3)),
        *(("1 / N", n) for n in (2, 3)),
    ]
    assert all(row["ms per frame"] > 0 for row in rows)


@pytest.mark.slow
def test_choices(score, batches, capsys):
    rows = zedo_tables.choices([score], batches, 3, OPTIONS)
    by_rule = {row["rule"]: row for row in rows}
    lifted = lift(score, batches, num_hypotheses=3, sampler=OPTIONS)
    first = least_errors(lifted._replace(samples=lifted.samples[:, :1]), truth(batches))
    np.testing.assert_allclose(by_rule["first"]["mpjpe"], first["mpjpe"], rtol=1e-5)
    assert all(
        by_rule["oracle"]["mpjpe"] <= row["mpjpe"] + 1e-3 for row in rows if row["rule"] != "mean"
    )
    assert by_rule["oracle"]["needs"] == "ground truth"
    zedo_tables.print_rows(rows, "title")
    assert "denoising_energy" in capsys.readouterr().out
