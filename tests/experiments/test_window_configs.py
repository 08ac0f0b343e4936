"""Configs of MixSTE, D3DP and DDHPose: all variants build, the tiny ones train and are scored."""

import importlib.util
from pathlib import Path

import pytest

from experiments import evaluate, train
from posediff_jax.systems import make_system
from posediff_jax.training import make_optimizer
from tests import fakes

ROOT = Path(__file__).parents[2]
SYSTEMS = ("mixste", "d3dp", "ddhpose")


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
    yield from (("ddhpose_3dhp", arg) for arg in ("", *module("ddhpose_3dhp").VARIANTS))


@pytest.mark.parametrize(("name", "arg"), list(variants()))
def test_every_variant_builds(name, arg):
    config = module(name).get_config(arg)
    make_system(config)
    make_optimizer(config.optimizer, steps_per_epoch=10, num_steps=config.training.num_steps)
    assert config.data.frames == config.model.num_frames
    assert config.optimizer.weight_decay == 0.1


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match=r"config argument: expected some of .*got 'huge'"):
        module("ddhpose_cmu").get_config("tiny,huge")


def run(name, workdir, num_hypotheses, *, windows="side", **data):
    """Trains the tiny variant on other data, and scores it."""
    config = module(name).get_config("tiny").unlock()
    config.data.update(data)
    state = train.run(config.lock(), workdir)
    assert int(state.step) == config.training.num_steps
    return evaluate.run(
        workdir, num_hypotheses=num_hypotheses, windows=windows, out=workdir / "figures.json"
    )


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_tiny_trains_and_is_scored(system, tmp_path):
    several = 1 if system == "mixste" else 3
    motion = {"kind": "procedural", "train_clips": 14, "test_clips": 2, "heldout_every": 14}
    how = {"mixste": "causal", "d3dp": "blend"}.get(system, "side")
    summary = run(f"{system}_cmu", tmp_path, several, windows=how, **motion)
    assert summary["system"] == system
    assert summary["windows"] == how
    assert len(summary["levels"]["mean"]) == 5
    # Scored every 12th frame, causal windows ask for the one before too.
    assert summary["rules"]["mean"]["mpjve"]["frames"] > 0
    assert (tmp_path / "figures.json").exists()


@pytest.mark.slow
def test_tiny_on_files_of_human36m(tmp_path):
    (tmp_path / "data").mkdir()
    fakes.write_fake_human36m(tmp_path / "data")
    summary = run("ddhpose_h36m", tmp_path / "run", 2, root=str(tmp_path / "data"))
    assert summary["protocol"] == "test"


@pytest.mark.slow
def test_tiny_on_files_of_mpi_inf_3dhp(tmp_path, capsys):
    fakes.write_fake_3dhp_npz(tmp_path / "data")
    summary = run("ddhpose_3dhp", tmp_path / "run", 1, windows="shift", root=str(tmp_path / "data"))
    assert summary["protocol"] == "test:annot3"
    found = summary["rules"]["mean"]["pck"]
    assert list(found["groups"]) == [f"TS{i}" for i in range(1, 7)]
    assert found["mean"] == pytest.approx(sum(found["groups"].values()) / 6)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("PCK (%)", "AUC (%)", "TS6", "frames"))
