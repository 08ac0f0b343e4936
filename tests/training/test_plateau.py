"""The plateau schedule: PyTorch's rule, fed by the loop, the same bits after interruptions."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from posediff_jax.training.loop import train
from posediff_jax.training.metrics_log import read_metrics
from posediff_jax.training.optimizers import (
    learning_rate_schedule,
    make_optimizer,
    make_plateau,
)
from posediff_jax.training.plateau import Plateau, PlateauState, feed, plateau_scale
from tests.training.fakes import batches, make_system
from tests.training.test_checkpoints import assert_equal


def by_hand(values, *, rate, factor, patience, threshold, least=0.0, best_so_far=False):
    """PyTorch's ReduceLROnPlateau ("min", "rel") as its documentation states it."""
    best, bad, trace = np.inf, 0, []
    if best_so_far:
        values = np.minimum.accumulate(values)
    for value in values:
        if value < best * (1 - threshold):
            best, bad = value, 0
        else:
            bad += 1
        if bad > patience:
            lower = max(rate * factor, least)
            rate = lower if rate - lower > 1e-8 else rate
            bad = 0
        trace.append(rate)
    return trace


def fed(rule, values):
    state, trace = PlateauState(np.float64(1), np.float64(np.inf), np.int32(0)), []
    for value in values:
        state = rule.fed(state, value)
        trace.append(rule.learning_rate * float(state.scale))
    return trace


CURVE = np.exp(-np.arange(90) / 15) + 0.1 * np.random.default_rng(0).random(90)


@pytest.mark.parametrize("best_so_far", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"factor": 0.5, "patience": 11, "threshold": 0.1},
        {"factor": 0.3, "patience": 3, "threshold": 0.0},
        {"factor": 0.5, "patience": 0, "threshold": 0.05, "least": 2e-4},
        {"factor": 0.1, "patience": 0, "threshold": 0.3},
    ],
)
def test_the_rule_of_pytorch(options, best_so_far):
    """Whether the lowest figure so far is fed, as released, or the current one."""
    expected = by_hand(CURVE, rate=1e-3, best_so_far=best_so_far, **options)
    options = {"min_learning_rate" if k == "least" else k: v for k, v in options.items()}
    found = fed(Plateau(1e-3, **options), CURVE)
    assert len(set(expected)) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_released_rate_halves_with_the_twelfth_stale_evaluation():
    assert np.flatnonzero(np.diff(fed(Plateau(1.0), [1.0] + [0.95] * 30))).tolist() == [11, 23]


def test_a_figure_that_is_not_a_number_is_not_better():
    rule = Plateau(1.0, patience=1)
    assert fed(rule, [1.0, np.nan, np.nan]) == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_updates_scale(accumulate):
    config = {"learning_rate": 0.01, "schedule": "plateau", "weight_decay": 0.1}
    config["accumulate_steps"] = accumulate
    optimizer, rule = make_optimizer(config), make_plateau({**config, "patience": 0})
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    assert plateau_scale(state) == 1
    for figure in (1.0, 1.0, 1.0):
        state = feed(state, rule, figure)
    assert plateau_scale(state) == 0.25
    plain = make_optimizer({**config, "schedule": "constant"})
    other = plain.init(params)
    for _ in range(accumulate):
        gradient = {"w": jnp.arange(3.0)}
        ours, state = optimizer.update(gradient, state, params)
        theirs, other = plain.update(gradient, other, params)
    np.testing.assert_allclose(ours["w"], 0.25 * theirs["w"], rtol=1e-6)
    with pytest.raises(ValueError, match="plateau: expected an optimiser of schedule 'plateau'"):
        feed(other, rule, 1.0)


CONFIG = {
    "learning_rate": 0.05,
    "schedule": "plateau",
    "patience": 1,
    "threshold": 0.6,
    "watch": "error",
}


def run(workdir=None, *, batches_fn=None, num_steps=16, **options):
    """Evaluates every two steps; few of the gains are large enough."""

    def evaluate(variables):
        figure = float(np.abs(jax.device_get(variables["params"]["w"])).sum())
        return {"error": figure, "other": 0.0}

    given = {"evaluate": evaluate, "eval_every": 2, "select_on": "other"} | options
    return train(
        make_system(),
        make_optimizer(CONFIG),
        batches_fn or batches(),
        num_steps=num_steps,
        schedule=learning_rate_schedule(CONFIG),
        plateau=make_plateau(CONFIG),
        workdir=workdir,
        log_every=1,
        save_every=5,
        progress=False,
        devices=jax.devices()[:2],
        **given,
    )


def lines_of(workdir, split):
    return [x for x in read_metrics(workdir / "metrics.jsonl") if x["split"] == split]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, jax.device_get(run(workdir))


def test_the_loop_feeds_every_evaluation(undisturbed):
    workdir, state = undisturbed
    figures = [x["error"] for x in lines_of(workdir, "eval")]
    expected = fed(make_plateau(CONFIG), figures)
    assert len(figures) == 8
    assert len(set(expected)) > 1, "the figure must stagnate for this test to say something"
    rates = [x["learning_rate"] for x in lines_of(workdir, "train")]
    # An evaluation after step s is felt by the updates after it.
    np.testing.assert_allclose(rates, np.repeat([0.05, *expected[:-1]], 2), rtol=1e-6)
    np.testing.assert_allclose(0.05 * plateau_scale(state.opt_state), expected[-1], rtol=1e-6)


# The seventh is the last step before an evaluation, which is then made on resuming.
@pytest.mark.parametrize(
    ("how", "at_step"), [("killed", 9), ("terminated", 7), ("terminated", 8), ("timed out", 0)]
)
def test_interrupted_runs_end_with_the_same_bits(undisturbed, tmp_path, how, at_step):
    workdir, expected = undisturbed

    def from_step(step):
        for batch in batches()(step):
            if step == at_step and how == "killed":
                raise KeyboardInterrupt
            if step == at_step and how == "terminated":
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
            step += 1

    if how == "timed out":
        run(tmp_path, max_seconds=0.0)
        # A step that has no evaluation of its own is evaluated then, which must not count.
        assert [x["step"] for x in lines_of(tmp_path, "eval")] == [1]
    else:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(tmp_path, batches_fn=from_step)
    assert_equal(jax.device_get(run(tmp_path)), expected)
    kept = [
        [x["error"] for x in lines_of(folder, "eval") if x["step"] % 2 == 0]
        for folder in (workdir, tmp_path)
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_every": 0}, "eval_every: the schedule 'plateau' needs evaluations"),
        (
            {"evaluate": lambda v: {"other": 0.0}, "num_steps": 2},
            r"plateau: expected one of \['other'\], got 'error'",
        ),
    ],
)
def test_refusals_of_the_loop(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 1.0}, "optimizer.factor: expected between 0 and 1"),
        ({"threshold": 1.0}, "optimizer.threshold: expected 0 to below 1"),
        ({"patience": -1}, "optimizer.patience: expected >= 0"),
        ({"min_learning_rate": -1.0}, "optimizer.min_learning_rate: expected >= 0"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate: 'plateau' needs more than 0"),
    ],
)
def test_refusals_of_the_config(change, message):
    with pytest.raises(ValueError, match=message):
        make_plateau({"schedule": "plateau", **change})


def test_other_schedules_have_no_plateau():
    assert make_plateau({"schedule": "cosine"}) is None
    optimizer = make_optimizer({"schedule": "constant"})
    assert plateau_scale(optimizer.init({"w": jnp.ones(2)})) == 1.0
    assert isinstance(optimizer, optax.GradientTransformation)
