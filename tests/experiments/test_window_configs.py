"""Configs of the window networks: all variants build, the tiny ones train and are scored."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import posediff_jax
from experiments import evaluate, train
from experiments.data import complete_occlusion, load_test, load_test_views, load_training
from posediff_jax.calibration import default_camera
from posediff_jax.data import batches
from posediff_jax.systems import make_system
from posediff_jax.training import make_optimizer
from tests import fakes

MOTION = {"kind": "procedural", "train_clips": 14, "test_clips": 2, "heldout_every": 14}
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
    yield from (("ddhpose_3dhp", arg) for arg in ("", *module("ddhpose_3dhp").VARIANTS))


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


@pytest.mark.parametrize("size", ["", "small,", "tiny,"])
@pytest.mark.parametrize("data", ["cmu", "h36m"])
def test_a_lifter_and_what_is_built_on_it_are_trained_on_the_same_windows(data, size):
    plain, weighted = (
        module(f"mixste_{data}").get_config(f"{size}{arg}occluded_random")
        for arg in ("diffhpe,", "diffhpe,weighted,")
    )
    for form in ("2d", "wrapper"):
        above = module(f"diffhpe_{form}_{data}").get_config(f"{size}occluded_random")
        assert above.data == plain.data
    # The loss and the test, and nothing else.
    assert weighted.loss.to_dict() == module("mixste_cmu").get_config().loss.to_dict()
    assert (plain.loss.position, plain.sampler.flip, weighted.sampler.flip) == (
        *("squared", False),
        True,
    )
    same = [{**c.to_dict(), "loss": {}, "sampler": {}} for c in (plain, weighted)]
    assert same[0] == same[1]


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
@pytest.mark.parametrize("system", [s for s in SYSTEMS if s != "diffhpe_wrapper"])
def test_tiny_trains_and_is_scored(system, tmp_path):
    several = 1 if system == "mixste" else 3
    how = {"mixste": "causal", "d3dp": "blend"}.get(system, "side")
    summary = run(f"{system}_cmu", tmp_path, several, windows=how, **MOTION)
    assert summary["system"] == system
    assert summary["windows"] == how
    assert len(summary["levels"]["mean"]) == 5
    # Scored every 12th frame, causal windows ask for the one before too.
    assert summary["rules"]["mean"]["mpjve"]["frames"] > 0
    assert (tmp_path / "figures.json").exists()


def hiding(pattern):
    config = module("mixste_cmu").get_config(f"tiny,occluded_{pattern},visibility").unlock()
    config.data.update(MOTION)
    return config.lock()


@pytest.mark.parametrize("pattern", ["random", "consecutive_frames", "none"])
def test_a_config_hides_joints_in_training_and_in_scoring(pattern):
    """Of 9 frames `consecutive_frames` hides one; held-out frames look like those of the test."""
    config = hiding(pattern)
    data = load_training(config)
    trained = next(batches(data.train, batch_size=40))
    (scored, _), (heldout, _) = (next(i.batches(8)) for i in (load_test(config), data.heldout))
    for found in (trained, scored, heldout):
        hidden = found.confidence == 0
        expected = {"none": 0, "random": 0.2, "consecutive_frames": 1 / 9}[pattern]
        assert abs(hidden.mean() - expected) < 0.1
        assert (found.keypoints[hidden] == 0).all()


def test_a_config_is_completed_for_the_checkpoint():
    section = complete_occlusion(hiding("random")).data.occlusion
    assert section.to_dict() == {
        "pattern": "random",
        "rate": 0.2,
        "span": 0,
        "draw": "exact",
        "starts": "official",
        "missing": "zero_screen",
    }
    plain = module("mixste_cmu").get_config("tiny")
    assert complete_occlusion(plain) is plain


@pytest.mark.parametrize(
    ("stored", "pattern", "expected"),
    [
        ({"pattern": "random", "rate": 0.3}, "", {"pattern": "random", "rate": 0.3}),
        (None, "random", 0.2),
        ({"pattern": "random", "rate": 0.3}, "consecutive_leg", 0.4),
        ({"pattern": "random"}, "none", 0.0),
        (
            {"pattern": "random"},
            "leg_and_arm,draw=bernoulli,rate=0.3",
            {
                **{"pattern": "leg_and_arm", "rate": 0.3, "span": 0, "draw": "bernoulli"},
                **{"starts": "official", "missing": "zero_screen"},
            },
        ),
        (None, "none", None),
    ],
)
def test_a_checkpoint_may_be_scored_with_other_joints_hidden(stored, pattern, expected):
    data = ConfigDict({"frames": 9} | ({} if stored is None else {"occlusion": stored}))
    found = evaluate.hide(data, pattern).get("occlusion")
    if isinstance(expected, float):
        assert (found.pattern, found.rate, found.missing) == (pattern, expected, "zero_screen")
    else:
        assert (None if found is None else found.to_dict()) == expected
    assert data.get("occlusion") == (None if stored is None else ConfigDict(stored))


@pytest.mark.parametrize("pattern", ["", "random"])
def test_a_checkpoint_of_another_convention_is_not_scored(pattern):
    data = ConfigDict({"occlusion": {"pattern": "random", "missing": "mean_pose"}})
    with pytest.raises(ValueError, match=r"occlusion\.missing: expected one of .*'mean_pose'"):
        evaluate.hide(data, pattern)


@pytest.mark.slow
def test_trained_with_hidden_joints_scored_and_used(tmp_path):
    train.run(hiding("random"), tmp_path)
    summaries = [evaluate.run(tmp_path, occlusion=o) for o in ("", "none", "consecutive_frames")]
    hidden = [s["data"]["occlusion"]["pattern"] for s in summaries]
    assert hidden == ["random", "none", "consecutive_frames"]
    errors = [s["rules"]["mean"]["mpjpe"]["frames"] for s in summaries]
    assert len(set(errors)) == 3
    assert summaries[0]["rules"]["mean"]["segment_std"]["mean"] > 0
    assert (tmp_path / "evaluation_unseen_H1_occlusion-none.json").is_file()
    lifter = posediff_jax.load(tmp_path)
    keypoints = np.random.default_rng(0).uniform(100, 900, (12, 17, 2))
    confidence = np.ones((12, 17))
    confidence[4:7, 3] = 0
    lifted = lifter(
        keypoints,
        camera=default_camera((1000, 1000)),
        key=jax.random.key(0),
        confidence=confidence,
        num_hypotheses=1,
    )
    assert np.isfinite(lifted.pose).all()


def heads(printed, title):
    """The heads of a printed table's columns."""
    lines = printed[printed.index(title) :].splitlines()
    line = next(line for line in lines if line.startswith("┃"))
    return [head.strip() for head in line.strip("┃").split("┃")]


@pytest.mark.slow
@pytest.mark.parametrize(("system", "several"), [("mixste", 1), ("d3dp", 2), ("ddhpose", 2)])
def test_tiny_on_files_of_human36m(system, several, tmp_path, capsys):
    """The columns of the papers' tables 1 and 7, which are the plain mean of 15 actions."""
    (tmp_path / "data").mkdir()
    fakes.write_fake_human36m(tmp_path / "data", frames=20)
    how = {"windows": "shift_twice", "root": str(tmp_path / "data")}
    summary = run(f"{system}_h36m", tmp_path / "run", several, **how)
    assert summary["protocol"] == "test"
    printed = capsys.readouterr().out
    columns = "Dir. Disc. Eat Greet Phone Photo Pose Pur. Sit SitD. Smoke Wait WalkD. Walk WalkT."
    for title in (": MPJPE (mm)", ": P-MPJPE (mm)"):
        assert heads(printed, title) == ["rule", *columns.split(), "mean", "frames"]
    for found in summary["rules"]["mean"].values():
        if found["mean"] is not None:
            assert found["mean"] == pytest.approx(np.mean(list(found["groups"].values())))
            assert len(found["groups"]) == 15
    # Of two subjects and four cameras two takes of each action, but for one of S11; three windows
    # of nine frames, the last one moved back, so that seven of the 20 frames count twice.
    assert summary["num_frames"] == (30 + 29) * 4 * 3 * 9


def write_3dhp_originals(folder):
    """`annot.mat` of version 5 to train on, `annot_data.mat` of version 7.3 to score."""
    names = [[f"{kind}{n}" for n in range(1, last + 1)] for kind, last in (("S", 8), ("TS", 6))]
    fakes.write_fake_3dhp_mat(folder, subjects=names[0], tests=names[1], frames=12)


@pytest.mark.slow
@pytest.mark.parametrize("write", [fakes.write_fake_3dhp_npz, write_3dhp_originals])
def test_tiny_on_files_of_mpi_inf_3dhp(tmp_path, capsys, write):
    """Table 3: PCK, AUC and MPJPE, of each sequence, their plain mean and that of all frames."""
    write(tmp_path / "data")
    summary = run("ddhpose_3dhp", tmp_path / "run", 1, windows="shift", root=str(tmp_path / "data"))
    assert summary["protocol"] == "test:annot3"
    # Of 12 frames all but 2 and 5 are valid.
    assert summary["num_frames"] == 6 * 10
    found = summary["rules"]["mean"]["pck"]
    assert list(found["groups"]) == [f"TS{i}" for i in range(1, 7)]
    assert found["mean"] == pytest.approx(sum(found["groups"].values()) / 6)
    printed = capsys.readouterr().out
    sequences = [f"TS{n}" for n in range(1, 7)]
    for title in ("MPJPE (mm)", "PCK (%)", "AUC (%)"):
        assert heads(printed, f": {title}") == ["rule", *sequences, "mean", "frames"]
    other = evaluate.run(tmp_path / "run", protocol="test:univ_annot3", windows="shift")
    assert "TRAINED ON annot3" in capsys.readouterr().out
    assert [s["shared"] for s in (summary, other)] == [2, 2]


def test_what_was_trained_on_an_annotation_is_scored_by_it(tmp_path):
    fakes.write_fake_3dhp_npz(tmp_path)
    poses = []
    for arg in ("tiny", "tiny,universal"):
        config = module("ddhpose_3dhp").get_config(arg).unlock()
        config.data.root = str(tmp_path)
        poses.append(load_test_views(config).views.sequences[0].pose)
    np.testing.assert_allclose(poses[1], fakes.UNIVERSAL * poses[0], atol=1e-5)
