"""The card's figures on hypotheses whose errors are known, and its lines in miniature."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.zedo_prior_synthetic import get_config
from experiments import lift_card
from experiments.data import load_training
from experiments.zedo_lifting import Lifted, Prior, kmeans, load_frames, reprojection, truth
from posediff_jax.lift_engine import LiftOptions
from posediff_jax.systems import make_system
from posediff_jax.systems.zedo import make_energy

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


def figures(lifted, batches):
    return lift_card.figures(lifted, batches, reprojection(batches, lifted))


def test_what_is_chosen_is_what_scores_least(batches):
    found = figures(make_lifted(batches, 1.1, 1.0, 0.9), batches)
    assert found["chosen"] == pytest.approx(0, abs=1e-3)
    assert found["ORACLE"] == pytest.approx(0, abs=1e-3)
    extent = 1000 * np.linalg.norm(truth(batches), axis=-1).mean()
    assert found["random"] == pytest.approx(0.2 / 3 * extent, rel=1e-4)
    assert found["size %"] == pytest.approx(0, abs=1e-3)
    assert found["PCK %"] == 100


def test_size_and_shape_are_told_apart(batches):
    found = figures(make_lifted(batches, 1.1), batches)
    assert found["size %"] == pytest.approx(10, rel=1e-3)
    assert found["PA chosen"] == pytest.approx(0, abs=1e-2)
    assert found["chosen"] > 10
    assert np.isnan(found["coverage %"])


def test_a_frame_without_an_answer_is_counted(batches):
    lifted = make_lifted(batches, 1.0, 1.1)
    lifted.samples[2] = np.nan
    found = figures(lifted, batches)
    assert found["unsolved"] == 1
    assert found["chosen"] == pytest.approx(0, abs=1e-3)


def test_a_figure_that_is_not_there_is_null(batches, tmp_path):
    row = figures(make_lifted(batches, 1.0), batches)
    lift_card.write_card(str(tmp_path / "card.json"), [row], {"num_iterations": 3})
    (read,) = json.loads((tmp_path / "card.json").read_text())["rows"]
    assert read["coverage %"] is None
    assert read["PCK %"] == 100


def test_lift_and_card_choose_by_the_same(prior, batches):
    lifted = make_lifted(batches, 1.1, 1.0, 0.9)
    scores = lift_card.lift_scores(prior, batches, lifted)
    poses = jnp.asarray(lifted.samples[:, :, None], jnp.float32)
    energy = make_energy(prior.config)(jax.random.key(0), prior.variables, poses)
    np.testing.assert_allclose(scores, reprojection(batches, lifted) * energy**2, rtol=1e-4)
    assert LiftOptions.rule == "reprojection_and_energy"


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
