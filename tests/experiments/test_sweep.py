"""Random search: drawn by number, resumable, one line for each finished trial."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs import mixste_cmu
from experiments import sweep, train
from posediff_jax.training import MetricsLog

SPACE = {"learning_rate": (1e-4, 1e-2), "dropout": (0.0, 0.4), "dropout_field": "model.drop_path"}


def tiny(**data):
    config = mixste_cmu.get_config("tiny").unlock()
    config.data.update(kind="procedural", train_clips=14, test_clips=2, heldout_every=14, **data)
    return config.lock()


class Trainer:
    """Stands for `train.run`: the figure is known from the fields, the second trial may fail."""

    def __init__(self):
        self.configs, self.fail = [], None

    def __call__(self, config, folder, max_seconds):
        self.configs.append(config)
        if len(self.configs) == 2 and self.fail is not None:
            raise self.fail
        if max_seconds is not None and max_seconds <= 0:
            return SimpleNamespace(step=0)
        with MetricsLog(folder / "metrics.jsonl", keep_until=0) as log:
            for step, error in ((2, 3.0), (4, 1.0), (6, 2.0)):
                log.write(step, "train", {"loss": 0.0})
                log.write(step, "eval", {"mpjpe": error * config.optimizer.learning_rate})
        return SimpleNamespace(step=config.training.num_steps)


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr(train, "run", trainer)
    return trainer


def run(folder, config=None, *, num_trials=3, **options):
    return sweep.run(config or tiny(), folder, num_trials=num_trials, **{**SPACE, **options})


def test_trials_and_lines(trainer, tmp_path, capsys):
    lines = run(tmp_path)
    assert [json.loads(x) for x in (tmp_path / "sweep.jsonl").read_text().splitlines()] == lines
    assert [x["trial"] for x in lines] == [0, 1, 2]
    for line, config in zip(lines, trainer.configs, strict=True):
        assert line["optimizer.learning_rate"] == config.optimizer.learning_rate
        assert line["model.drop_path"] == config.model.drop_path
        assert line["mpjpe"] == config.optimizer.learning_rate
        assert line["step"] == 4
    assert "random search by held-out mpjpe" in capsys.readouterr().out
    assert tiny().optimizer.learning_rate == mixste_cmu.get_config("tiny").optimizer.learning_rate


def test_draws_fill_the_ranges_and_follow_from_the_number(trainer, tmp_path):
    draws = [sweep.draw(0, i, SPACE, "model.drop_path") for i in range(400)]
    rates, dropouts = (np.array([list(d.values())[i] for d in draws]) for i in (0, 1))
    # Even on a logarithmic scale: half of the rates are below the geometric mean.
    assert abs((rates < 1e-3).mean() - 0.5) < 0.1
    assert abs((dropouts < 0.2).mean() - 0.5) < 0.1
    assert 1e-4 <= rates.min() <= rates.max() <= 1e-2
    assert 0 <= dropouts.min() <= dropouts.max() <= 0.4
    assert len(set(rates)) == len(set(dropouts)) == 400
    assert sweep.draw(1, 0, SPACE, "model.drop_path") != draws[0]
    assert [line["optimizer.learning_rate"] for line in run(tmp_path)] == list(rates[:3])


def test_a_killed_search_goes_on_where_it_stopped(trainer, tmp_path):
    expected = run(tmp_path / "undisturbed")
    trainer.configs.clear()
    trainer.fail = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    trainer.fail = None
    assert run(tmp_path / "killed") == expected
    # The finished trial is not repeated, the interrupted one is taken up again.
    assert len(trainer.configs) == 2 + 2
    assert run(tmp_path / "killed", num_trials=4)[:3] == expected
    assert len(trainer.configs) == 2 + 2 + 1


def test_a_run_that_diverges_is_a_result(trainer, tmp_path):
    trainer.fail = FloatingPointError("loss is nan")
    lines = run(tmp_path)
    assert [line["mpjpe"] is None for line in lines] == [False, True, False]


def test_a_search_that_runs_out_of_time_keeps_what_is_done(trainer, tmp_path):
    assert run(tmp_path, max_seconds=0.0) == []
    assert len(run(tmp_path)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_trials": 0}, "num_trials: expected at least 1"),
        ({"learning_rate": (1e-2, 1e-4)}, "learning_rate: expected a least and a largest"),
        ({"learning_rate": (0.0, 1e-4)}, "learning_rate: expected a least and a largest"),
        ({"dropout": (0.0, 1.0)}, "dropout: expected a least and a largest"),
        ({"dropout_field": "model.dropout"}, "no field 'model.dropout'"),
        ({"metric": "pck"}, r"metric: expected one of .*mpjpe.*got 'pck'"),
        ({"metric": "spread"}, "metric: 'spread' needs evaluation.train_hypotheses of at least 2"),
        ({"metric": "loss"}, "metric: 'loss' .* where the schedule watches it, got .*'"),
    ],
)
def test_refusals(trainer, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert not trainer.configs


def test_another_search_or_nothing_held_out_is_refused(trainer, tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="holds another search, of another dropout"):
        run(tmp_path, dropout=(0.0, 0.3))
    with pytest.raises(ValueError, match="holds another search, of another config"):
        run(tmp_path, tiny(frames_per_clip=27))
    config = tiny().unlock()
    config.data.heldout_every = 0
    with pytest.raises(ValueError, match="a search needs held-out data"):
        run(tmp_path / "other", config)


@pytest.mark.slow
def test_two_tiny_trials(tmp_path):
    lines = run(tmp_path, num_trials=2)
    assert all(np.isfinite(line["mpjpe"]) for line in lines)
    assert lines[0]["mpjpe"] != lines[1]["mpjpe"]
