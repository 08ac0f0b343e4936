"""Configs of the window networks: all variants build, the tiny ones train and are scored."""

import importlib.util
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import evaluate, train
from posediff_jax.systems import make_system
from posediff_jax.training import load_variables, make_optimizer
from tests import fakes

ROOT = Path(__file__).parents[2]
SYSTEMS = ("mixste", "d3dp", "ddhpose", "diffhpe_2d", "diffhpe_wrapper")


def module(name):
    """Loads a config's file as the flag does: by its path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"configs/{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def variants():
    for system in SYSTEMS:
        for data in ("cmu", "h36m"):
            name = f"{system}_{data}"
            yield from ((name, arg) for arg in ("", *module(name).VARIANTS))


@pytest.mark.parametrize(("name", "arg"), list(variants()))
def test_every_variant_builds(name, arg):
    config = module(name).get_config(arg)
    make_system(config)
    make_optimizer(config.optimizer, steps_per_epoch=10, num_steps=config.training.num_steps)
    assert config.data.frames == config.model.num_frames
    assert config.optimizer.weight_decay == (1e-6 if "diffhpe" in f"{name}:{arg}" else 0.1)


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"config argument: expected some of .*got 'huge'"):
        module("ddhpose_cmu").get_config("tiny,huge")


@pytest.mark.parametrize("data", ["cmu", "h36m"])
def test_the_published_recipe_of_diffhpe(data):
    flat, wrapped = (module(f"diffhpe_{form}_{data}").get_config() for form in ("2d", "wrapper"))
    for config, rate, dropout in (
        (flat, 8.083464402314577e-4, 0.032),
        (wrapped, 2.701385346296177e-4, 0.2703806090969092),
    ):
        model, optimizer = config.model, config.optimizer
        assert (model.num_frames, model.width, model.num_blocks) == (27, 64, 16)
        assert (config.process.num_timesteps, config.process.beta_end) == (50, 0.5)
        assert (optimizer.learning_rate, optimizer.weight_decay) == (rate, 1e-6)
        assert (model.dropout, config.training.batch_size) == (dropout, 200)
        assert (config.sampler.name, config.evaluation.num_hypotheses) == ("ddpm", 5)
        # Held-out training subjects choose the checkpoint.
        assert config.data.get("heldout_subjects") or config.data.heldout_every
    lifter = module(f"mixste_{data}").get_config("diffhpe").model
    expected = (lifter.num_frames, lifter.width, lifter.depth, lifter.num_heads)
    model = wrapped.model
    sizes = (model.num_frames, model.lifter_width, model.lifter_depth, model.lifter_heads)
    assert sizes == expected
    long = module(f"diffhpe_2d_{data}").get_config("frames243")
    assert long.model.num_frames == 243


def run(name, workdir, num_hypotheses, *, lifter="", **data):
    """Trains the tiny variant on other data, and scores it."""
    config = module(name).get_config("tiny").unlock()
    config.data.update(data)
    if lifter:
        config.frozen.checkpoint = str(lifter)
    state = train.run(config.lock(), workdir)
    assert int(state.step) == config.training.num_steps
    return evaluate.run(workdir, num_hypotheses=num_hypotheses, out=workdir / "figures.json")


MOTION = {"kind": "procedural", "train_clips": 14, "test_clips": 2, "heldout_every": 14}


@pytest.mark.slow
@pytest.mark.parametrize("system", [s for s in SYSTEMS if s != "diffhpe_wrapper"])
def test_tiny_trains_and_is_scored(system, tmp_path):
    several = 1 if system == "mixste" else 3
    summary = run(f"{system}_cmu", tmp_path, several, **MOTION)
    assert summary["system"] == system
    assert (tmp_path / "figures.json").exists()


@pytest.mark.slow
def test_a_wrapper_is_trained_on_a_lifter_and_scored_without_it(tmp_path):
    below, above = tmp_path / "lifter", tmp_path / "wrapper"
    run("mixste_cmu", below, 1, **MOTION)
    trained, _ = load_variables(below)
    (below / "checkpoints").rename(tmp_path / "moved")
    run("diffhpe_wrapper_cmu", above, 3, lifter=tmp_path / "moved", **MOTION)
    held, _ = load_variables(above)
    kept, given = held["frozen"]["lifter"]["trunk"], trained["params"]["trunk"]
    for name in ("frame_positions", "spatial_norm"):
        jax.tree.map(np.testing.assert_array_equal, kept[name], given[name])
    shutil.rmtree(tmp_path / "moved")
    assert evaluate.run(above, num_hypotheses=2, out=tmp_path / "again.json")["num_hypotheses"] == 2


@pytest.mark.slow
def test_tiny_on_files_of_human36m(tmp_path):
    (tmp_path / "data").mkdir()
    fakes.write_fake_human36m(tmp_path / "data")
    summary = run("ddhpose_h36m", tmp_path / "run", 2, root=str(tmp_path / "data"))
    assert summary["protocol"] == "test"
