"""The loop: runs that are killed, broken or finished must agree with an undisturbed one."""

import itertools
import os
import signal

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.training.checkpoints import CheckpointStore, load_variables
from posediff_jax.training.ema import EmaOptions, constant_ema
from posediff_jax.training.loop import train
from posediff_jax.training.metrics_log import read_metrics
from posediff_jax.training.optimizers import make_optimizer
from tests.training.fakes import batches, make_batch, make_system, spoil
from tests.training.test_checkpoints import assert_equal, damage

RAMP = EmaOptions(update_every=2, update_after_step=3, beta=0.9)


def run(workdir=None, *, system=None, batches_fn=None, num_steps=12, **options):
    defaults = {
        "ema": RAMP,
        "log_every": 2,
        "save_every": 4,
        "progress": False,
        "devices": jax.devices()[:2],
    }
    return train(
        system or make_system(),
        make_optimizer({"learning_rate": 0.05, "warmup_steps": 3}),
        batches_fn or batches(),
        num_steps=num_steps,
        workdir=workdir,
        **{**defaults, **options},
    )


def interrupted(at_step, what):
    """Batches that do `what` before they hand out the one of `at_step` (0-based)."""

    def from_step(step):
        for batch in batches()(step):
            if step == at_step:
                what()
            yield batch
            step += 1

    return from_step


def kill():
    raise KeyboardInterrupt


def store_of(workdir):
    return CheckpointStore(workdir / "checkpoints")


def lines_of(workdir):
    """The log without what time does to it."""
    clock = ("time", "steps_per_second")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nothing happened to: its folder and its last state."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, jax.device_get(run(workdir))


def test_learns_and_logs(undisturbed):
    workdir, state = undisturbed
    assert state.step == 12
    lines = lines_of(workdir)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert set(lines[0]) == {"step", "split", "loss", "grad_norm", "index"}
    assert lines[-1]["loss"] < lines[0]["loss"]
    # Means over the two steps of a line: the batch of step s holds items 16 s to 16 s + 15.
    np.testing.assert_allclose([line["index"] for line in lines], 15.5 + 32 * np.arange(6))


def test_last_step_is_saved_beside_the_one_before(undisturbed):
    workdir, state = undisturbed
    assert store_of(workdir).steps() == [8, 12]
    assert_equal(load_variables(workdir)[0], state.ema)


@pytest.mark.parametrize("at_step", [2, 9])
def test_killed_run_resumes_to_the_same_bits(undisturbed, tmp_path, at_step):
    workdir, expected = undisturbed
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, batches_fn=interrupted(at_step, kill))
    assert store_of(tmp_path).latest_step() == (8 if at_step == 9 else None)
    assert_equal(jax.device_get(run(tmp_path)), expected)
    assert lines_of(tmp_path) == lines_of(workdir)


def test_sigterm_saves_and_leaves(undisturbed, tmp_path):
    _, expected = undisturbed
    before = signal.getsignal(signal.SIGTERM)
    terminate = interrupted(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as leaving:
        run(tmp_path, batches_fn=terminate)
    assert leaving.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert store_of(tmp_path).steps() == [4, 5]
    assert_equal(jax.device_get(run(tmp_path)), expected)


def evaluating(seen):
    """Options of a run that evaluates every four steps; `seen` collects what was evaluated."""

    def evaluate(variables):
        seen.append(jax.device_get(variables))
        return {"error": float(np.sum(np.abs(variables["params"]["w"])))}

    return {"evaluate": evaluate, "eval_every": 4, "select_on": "error", "num_steps": 8}


@pytest.mark.parametrize("at_step", [3, 7])
def test_sigterm_does_not_cost_an_evaluation(tmp_path, at_step):
    """One that falls due in the step of the signal comes later, after the last step at once."""
    expected, seen = [], []
    run(tmp_path / "undisturbed", **evaluating(expected))
    terminate = interrupted(at_step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        run(tmp_path / "terminated", batches_fn=terminate, **evaluating(seen))
    assert len(seen) == (0 if at_step == 3 else 2)
    run(tmp_path / "terminated", **evaluating(seen))
    assert_equal(seen, expected)
    evaluations = [
        [line for line in lines_of(tmp_path / name) if line["split"] == "eval"]
        for name in ("undisturbed", "terminated")
    ]
    assert [line["step"] for line in evaluations[0]] == [4, 8]
    assert evaluations[0] == evaluations[1]
    stores = [store_of(tmp_path / name) for name in ("undisturbed", "terminated")]
    for step in (4, 8):
        assert stores[0].info(step) == stores[1].info(step)


def test_an_evaluation_that_fails_costs_no_step(tmp_path):
    """Nor a kill during one: it is made on resuming, and leaves what an undisturbed run leaves."""
    expected, seen = [], []
    run(tmp_path / "undisturbed", **evaluating(expected))

    def fails(variables):
        raise MemoryError

    with pytest.raises(MemoryError):
        run(tmp_path / "failed", **evaluating(seen) | {"evaluate": fails})
    stores = [store_of(tmp_path / name) for name in ("undisturbed", "failed")]
    assert (stores[1].steps(), stores[1].info(4).metrics) == ([4], {})
    run(tmp_path / "failed", **evaluating(seen))
    assert_equal(seen, expected)
    assert lines_of(tmp_path / "failed") == lines_of(tmp_path / "undisturbed")
    for step in (4, 8):
        assert stores[0].info(step) == stores[1].info(step)


def test_an_evaluation_whose_figures_reached_the_log_alone_is_not_there_twice(tmp_path):
    run(tmp_path, **evaluating([]))
    expected = lines_of(tmp_path)
    state = store_of(tmp_path).restore(8, run(tmp_path, **evaluating([])))
    # As a kill leaves it between the two saves of the step.
    store_of(tmp_path).save(state, config=None, metadata=None)
    run(tmp_path, **evaluating([]))
    assert lines_of(tmp_path) == expected


def test_finished_run_that_was_not_evaluated_is(tmp_path):
    seen = []
    run(tmp_path, num_steps=8)
    for _ in range(2):
        state = run(tmp_path, **evaluating(seen))
        assert len(seen) == 1
        assert_equal(seen[0], jax.device_get(state.ema))
        assert store_of(tmp_path).best_step() == 8


def test_broken_newest_checkpoint_is_replaced(undisturbed, tmp_path):
    workdir, expected = undisturbed
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, batches_fn=interrupted(9, kill))
    damage(next((store_of(tmp_path).directory / "8" / "variables").glob("**/d/*")), "truncated")
    with pytest.warns(RuntimeWarning, match="8/variables/.*falling back"):
        state = run(tmp_path)
    assert_equal(jax.device_get(state), expected)
    assert store_of(tmp_path).steps() == [8, 12]
    assert_equal(store_of(tmp_path).restore(8, state), store_of(workdir).restore(8, state))


def test_finished_run_is_returned_without_touching_the_data(undisturbed):
    workdir, expected = undisturbed

    def refuse(step):
        raise AssertionError("asked for batches")

    assert_equal(jax.device_get(run(workdir, batches_fn=refuse)), expected)


@pytest.mark.parametrize("log_every", [2, 100])
def test_loss_that_is_not_finite_stops_before_anything_broken_is_saved(tmp_path, log_every):
    system = spoil(make_system(), at_step=6)
    with pytest.raises(FloatingPointError) as stop:
        run(tmp_path, system=system, log_every=log_every)
    message = str(stop.value)
    assert "loss is nan at step 7" in message
    assert f"last good checkpoint is {tmp_path / 'checkpoints' / '4'}" in message
    assert "learning_rate" in message
    assert store_of(tmp_path).steps() == [4]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(load_variables(tmp_path)[0]))


def test_loss_that_is_not_finite_without_a_checkpoint():
    system = spoil(make_system(), at_step=0)
    with pytest.raises(FloatingPointError, match="no checkpoint to go back to"):
        run(system=system)


def test_evaluates_averaged_weights_and_keeps_the_best(tmp_path):
    seen = []

    def evaluate(variables):
        seen.append(jax.device_get(variables))
        return {"error": [3.0, 1.0, 2.0][len(seen) - 1], "other": 0.0}

    state = run(
        tmp_path,
        num_steps=5,
        ema=constant_ema(0.5),
        eval_every=2,
        save_every=100,
        evaluate=evaluate,
        select_on="error",
        config={"seed": 1},
        metadata={"skeleton": "h36m_17"},
    )
    assert_equal(seen[-1], jax.device_get(state.ema))
    store = store_of(tmp_path)
    assert store.steps() == [4, 5]
    assert store.best_step() == 4
    assert store.info(4).metrics == {"error": 1.0, "other": 0.0}
    variables, info = load_variables(tmp_path)
    assert_equal(variables, seen[1])
    assert info.config.seed == 1
    evaluations = [line for line in lines_of(tmp_path) if line["split"] == "eval"]
    assert [(line["step"], line["error"]) for line in evaluations] == [(2, 3), (4, 1), (5, 2)]


def test_time_limit_saves_and_returns(tmp_path):
    state = run(tmp_path, max_seconds=0.0)
    assert state.step == 1
    assert store_of(tmp_path).steps() == [1]


def test_traced_once_and_nothing_kept_without_a_workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    traces = []
    run(system=make_system(on_trace=lambda: traces.append(1)), num_steps=3, ema=None)
    assert len(traces) == 1
    assert list(tmp_path.iterdir()) == []


def test_resumed_run_is_traced_once(tmp_path):
    """Restored leaves lie where those of a fresh state do; pmap would trace again otherwise."""
    run(tmp_path, num_steps=4)
    traces = []
    run(tmp_path, system=make_system(on_trace=lambda: traces.append(1)))
    assert len(traces) == 1


def test_progress_goes_to_standard_error(capsys):
    run(num_steps=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("step 2/2")


def test_resuming_with_another_config_or_skeleton(tmp_path):
    config = ConfigDict({"seed": 0, "optimizer": {"learning_rate": 0.05, "betas": (0.9, 0.999)}})
    run(tmp_path, num_steps=1, config=config, metadata={"skeleton": "h36m_17"})
    changed = config.copy_and_resolve_references()
    changed.optimizer.learning_rate = 0.1
    with pytest.warns(
        RuntimeWarning, match=r"another config: optimizer.learning_rate was 0.05, is 0.1$"
    ):
        run(tmp_path, num_steps=1, config=changed)
    with pytest.raises(
        ValueError, match=r"workdir: .* another config \(optimizer.learning_rate was"
    ):
        run(tmp_path, num_steps=1, config=changed, same_config=True)
    allowed = ["optimizer.learning_rate"]
    run(tmp_path, num_steps=1, config=changed, same_config=True, may_differ=allowed)
    # Named even where the recipe differs as well.
    with pytest.raises(ValueError, match="trained on skeleton 'h36m_17'"):
        run(tmp_path, num_steps=2, ema=None, metadata={"skeleton": "h36m_16"})


def test_batches_that_end_are_refused():
    with pytest.raises(ValueError, match="ended before step 3"):
        run(batches_fn=lambda step: itertools.islice(batches()(step), 2))


def test_batch_of_padding_is_refused():
    with pytest.raises(ValueError, match="an unmasked frame in the batch of step 1"):
        run(batches_fn=lambda step: iter([make_batch(step, real=0)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps: expected at least 1, got 0"),
        ({"log_every": 0}, "log_every"),
        ({"save_every": 0}, "save_every"),
        ({"eval_every": -1}, "eval_every"),
        ({"eval_every": 5}, "evaluate: expected a function"),
        ({"select_on": "loss"}, "evaluate: expected a function"),
        ({"evaluate": lambda v: {"a": 0.0}, "select_on": "b"}, r"expected one of \['a'\], got 'b'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"num_steps": 1, **options})
