"""The card's figures on hypotheses whose errors are known, and its lines in miniature."""

import json

import jax
import numpy as np
import pytest

from configs.zedo_prior_synthetic import get_config
from experiments import lift_card
from experiments.data import load_training
from experiments.zedo_lifting import Lifted, Prior, kmeans, load_frames, truth
from posediff_jax.systems import make_system

NUM = 6


@pytest.fixture(scope="module")
def prior():
    config = get_config("tiny")
    variables = jax.jit(make_system(config).init)(jax.random.key(0))
    return Prior("tiny", config, jax.device_get(variables), load_training(config).train.pose)


@pytest.fixture(scope="module")
def batches(prior):
    return load_frames(prior.config, frames=NUM, batch_size=4)


def make_lifted(batches, *factors):
    """Hypotheses that are the truth times a factor, where the truth is."""
    pose = np.asarray(truth(batches))[:, None] * np.array(factors)[:, None, None]
    root = np.concatenate([np.asarray(b.root)[:, 0][np.asarray(b.mask)[:, 0] > 0] for b in batches])
    root = np.broadcast_to(root[:, None], (len(root), len(factors), 3))
    return Lifted(pose, {"translation": root}, 1.0)


def test_what_is_chosen_is_what_projects_best(batches):
    figures = lift_card.figures(make_lifted(batches, 1.1, 1.0, 0.9), batches)
    assert figures["chosen"] == pytest.approx(0, abs=1e-3)
    assert figures["ORACLE"] == pytest.approx(0, abs=1e-3)
    extent = 1000 * np.linalg.norm(truth(batches), axis=-1).mean()
    assert figures["random"] == pytest.approx(0.2 / 3 * extent, rel=1e-4)
    assert figures["size %"] == pytest.approx(0, abs=1e-3)
    assert figures["PCK %"] == 100


def test_size_and_shape_are_told_apart(batches):
    figures = lift_card.figures(make_lifted(batches, 1.1), batches)
    assert figures["size %"] == pytest.approx(10, rel=1e-3)
    assert figures["PA chosen"] == pytest.approx(0, abs=1e-2)
    assert figures["chosen"] > 10
    assert np.isnan(figures["coverage %"])


def test_a_frame_without_an_answer_is_counted(batches):
    lifted = make_lifted(batches, 1.0, 1.1)
    lifted.samples[2] = np.nan
    figures = lift_card.figures(lifted, batches)
    assert figures["unsolved"] == 1
    assert figures["chosen"] == pytest.approx(0, abs=1e-3)


def test_a_figure_that_is_not_there_is_null(batches, tmp_path):
    row = lift_card.figures(make_lifted(batches, 1.0), batches)
    lift_card.write_card(str(tmp_path / "card.json"), [row], {"num_iterations": 3})
    (read,) = json.loads((tmp_path / "card.json").read_text())["rows"]
    assert read["coverage %"] is None
    assert read["PCK %"] == 100


def test_an_unknown_line_is_refused(prior):
    with pytest.raises(ValueError, match=r"only: expected some of .*'vla'"):
        lift_card.run(prior, {}, {}, only=["vla"])


@pytest.mark.slow
def test_postures_are_scored_without_any_data(prior):
    anchors = {n: kmeans(prior, n) for n in (1, 2)}
    rows = lift_card.run(
        prior,
        anchors,
        {},
        only=["val", "postures"],
        frames=5,
        sampler={"fit_iterations": 3, "num_iterations": 3},
    )
    assert [row["S"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["chosen"]) for row in rows)
