"""Training and evaluation by the commands' own functions, on small files of each layout."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import (
    ddhpose_cmu,
    ddhpose_h36m,
    diffupose_cmu,
    diffupose_h36m,
    diffupose_humaneva,
)
from experiments import baselines, evaluate, train
from experiments.data import PROTOCOLS, load_test, load_training
from posediff_jax.data import procedural_motion
from posediff_jax.training import CheckpointStore, load_variables, read_metrics
from tests.fakes import HUMAN36M_ACTIONS, write_fake_human36m, write_fake_humaneva

CLIPS = procedural_motion(0, num_clips=6, frames=30)


def tiny(arg="tiny", **changes):
    config = diffupose_cmu.get_config(arg).unlock()
    config.data.update(heldout_every=3, kind="procedural", train_clips=6, frames_per_clip=12)
    config.data.test_clips = 4
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    train.run(tiny(), folder)
    return folder


def test_a_run_leaves_checkpoints_metrics_curves_and_config(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    assert [(x["step"], x["split"]) for x in lines] == [
        (step, split) for step in (5, 10) for split in ("train", "eval")
    ]
    assert lines[-1]["p_mpjpe"] <= lines[-1]["mpjpe"]
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workdir / "config.json").read_text())["system"] == "diffupose"
    best = CheckpointStore(workdir / "checkpoints").best_step()
    errors = {x["step"]: x["mpjpe"] for x in lines if x["split"] == "eval"}
    assert best == min(errors, key=errors.get)


def test_a_stopped_run_goes_on_as_if_it_had_not(workdir, tmp_path):
    stopped = train.run(tiny(), tmp_path, max_seconds=0)
    assert 0 < int(stopped.step) < 10
    train.run(tiny(), tmp_path)
    for a, b in zip(
        *(jax.tree.leaves(load_variables(f, step=10)[0]) for f in (workdir, tmp_path)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_windows_that_cannot_be_are_refused(workdir):
    with pytest.raises(ValueError, match=r"windows: expected one of .*, got 'half'"):
        evaluate.run(workdir, windows="half")
    with pytest.raises(ValueError, match="overlap: expected windows='blend' with it, got 'side'"):
        evaluate.run(workdir, overlap=3)
    with pytest.raises(ValueError, match="windows: expected 'side' where joints are hidden"):
        evaluate.run(workdir, windows="causal", occlusion="random")


def test_evaluation_prints_tables_and_writes_json(workdir, capsys):
    summary = evaluate.run(workdir, num_hypotheses=3)
    path = workdir / "evaluation_unseen_H3.json"
    assert json.loads(path.read_text()) == summary
    assert summary["num_hypotheses"] == 3
    assert summary["num_frames"] == 4
    text = capsys.readouterr().out
    assert "p_best (ORACLE: ground truth)" in text
    assert "diffupose on unseen" in text
    # The title says which set chose, where that makes figures too good.
    assert summary["selected_on"] == "heldout"
    assert "TEST SET" not in text
    title = evaluate.make_title({**summary, "selected_on": "test"})
    assert title == "diffupose on unseen, CHECKPOINT CHOSEN ON THE TEST SET"
    rules = summary["rules"]
    assert rules["p_best"]["mpjpe"]["mean"] <= rules["first"]["mpjpe"]["mean"]


def test_the_sampler_may_be_changed(workdir, tmp_path):
    out = tmp_path / "ddpm.json"
    summary = evaluate.run(workdir, sampler={"name": "ddpm", "flip": False}, out=out)
    assert (summary["sampler"]["name"], summary["num_hypotheses"]) == ("ddpm", 2)
    assert out.is_file()
    with pytest.raises(ValueError, match=r"sampler\.steps: unknown field"):
        evaluate.run(workdir, sampler={"steps": 3})


def test_protocols_belong_to_their_data(workdir):
    with pytest.raises(ValueError, match=r"protocol: expected one of .*unseen.* on procedural"):
        evaluate.run(workdir, protocol="cmu17-val-v1")


@pytest.mark.parametrize("name", ["mlp", pytest.param("modgcn", marks=pytest.mark.slow)])
def test_regression_trains_by_the_same_loop(name, tmp_path):
    train.run(tiny(f"tiny,{name}"), tmp_path)
    summary = evaluate.run(tmp_path)
    assert summary["num_hypotheses"] == 1
    assert summary["calibration"]["spread"] == 0
    assert summary["calibration"]["coverage_error"] is None
    with pytest.raises(ValueError, match="num_hypotheses: expected 1"):
        evaluate.run(tmp_path, num_hypotheses=2)


def test_variants_may_be_written_in_any_order():
    get = diffupose_cmu.get_config
    for names in ("tiny,mlp", "tiny,unet", "width64,linear,tiny"):
        backwards = ",".join(reversed(names.split(",")))
        assert get(names).to_dict() == get(backwards).to_dict()
    for names in ("mlp,linear", "unet,vanilla", "tiny,huge"):
        with pytest.raises(ValueError, match="config argument: "):
            get(names)


@pytest.mark.parametrize("name", ["train_hypotheses", "num_hypotheses", "batch_size"])
def test_evaluation_is_checked_before_anything_is_read(name, tmp_path):
    config = tiny(data={"kind": "cmu17", "root": "nowhere", "frames": 1})
    config.evaluation[name] = 0
    with pytest.raises(ValueError, match=rf"evaluation\.{name}: expected at least 1, got 0"):
        train.run(config, tmp_path)


class TestSelection:
    def test_the_test_set_chooses_only_where_it_is_named(self, capsys):
        config = tiny()
        heldout = load_training(config).heldout
        assert train.selection(config, heldout) is heldout
        assert train.selection(config, None) is None
        config.evaluation.select_on = "test"
        items = train.selection(config, None)
        np.testing.assert_array_equal(items.table.pose, load_test(config).table.pose)
        assert "4 frames of the TEST SET choose" in capsys.readouterr().out
        with pytest.raises(ValueError, match=r"evaluation\.select_on: .* got 2 frames"):
            train.selection(config, heldout)
        config.evaluation.select_on = "validation"
        with pytest.raises(ValueError, match=r"evaluation\.select_on: expected one of"):
            train.check_evaluation(config)

    def test_the_variant_trains_on_everybody(self):
        config = ddhpose_h36m.get_config("heldout,select_on_test")
        assert (config.evaluation.select_on, config.data.heldout_subjects) == ("test", ())
        assert ddhpose_cmu.get_config("select_on_test").data.heldout_every == 0


def test_evaluation_does_not_replace_other_figures(workdir):
    summary = evaluate.run(workdir, sampler={"num_steps": 1}, step=10)
    assert summary["selected_on"] == "step"
    assert (workdir / "evaluation_unseen_H2_step-10_num_steps-1.json").is_file()
    with pytest.raises(ValueError, match="out: expected a file, got the folder"):
        evaluate.run(workdir, out=workdir)


def test_baselines(capsys):
    rows = baselines.run(tiny())
    assert set(rows) == {"mean pose", "nearest of 96 views"}
    text = capsys.readouterr().out
    assert all(f"{figures['mpjpe']:.1f}" in text for figures in rows.values())


class TestData:
    def test_heldout_clips_are_not_trained_on(self):
        data = load_training(tiny())
        assert data.heldout.num_frames == 2
        assert data.train.num_items == 2 * 4 * 12
        assert load_training(tiny(data={"heldout_every": 0})).heldout is None

    def test_windows_of_several_frames(self):
        data = load_training(tiny(data={"frames": 5, "stride": 2}))
        assert data.train.length == 5
        assert load_test(tiny(data={"frames": 5})).frames.shape[1] == 5

    def test_cmu17_folders(self, tmp_path):
        entries = {f"asf/0{i}/0{i}_01": clip.poses for i, clip in enumerate(CLIPS)}
        np.savez(tmp_path / "train.npz", **entries)
        np.savez(tmp_path / "val.npz", **entries)
        config = tiny(data={"kind": "cmu17", "root": str(tmp_path)})
        data = load_training(config)
        # Every third clip is held out; pieces of 12 frames, plain and mirrored.
        assert data.train.num_items == 2 * 4 * 30
        assert data.heldout.num_frames == 2 * 3
        with pytest.raises(ValueError, match="does not give the arrays of cmu17-val-v1"):
            load_test(config)
        assert 0 < load_test(config, "val").num_frames <= 6 * 4 * 3
        with pytest.raises(ValueError, match="skeleton: cmu17-val-v1 has 'h36m_17'"):
            load_test(tiny(skeleton="h36m_16", data={"kind": "cmu17", "root": str(tmp_path)}))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"kind": "imagenet"}, r"data\.kind: expected one of"),
            ({"kind": "cmu17"}, "data.root: expected the folder of the cmu17 files"),
            ({"frames": 0}, "data.frames: expected at least 1"),
            ({"heldout_every": 1}, r"data\.heldout_every: expected 0 or at least 2"),
            ({"heldout_every": 9}, r"data\.heldout_every: expected at most 6 clips, got 9"),
            ({"heldout_every": -1}, "data.heldout_every: expected at least 0"),
            ({"views": 3}, "data.views: unknown field"),
        ],
    )
    def test_errors(self, changes, message):
        with pytest.raises(ValueError, match=message):
            load_training(tiny(data=changes))

    def test_held_out_subjects_leave_somebody_to_train_on(self):
        config = tiny(
            data={"kind": "human36m", "root": "x", "heldout_subjects": ("S1", "S9"), "frames": 1}
        )
        with pytest.raises(ValueError, match=r"data\.heldout_subjects: expected some but not all"):
            load_training(config)

    def test_each_kind_has_a_protocol(self):
        kinds = {"procedural", "cmu17", "human36m", "humaneva", "mpi_inf_3dhp"}
        assert set(PROTOCOLS) == kinds


@pytest.mark.slow
@pytest.mark.parametrize("keypoints", ["gt", "hrnet", "cpn"])
def test_the_published_recipe_on_human36m_files(keypoints, tmp_path, capsys):
    write_fake_human36m(tmp_path, frames=2)
    config = diffupose_h36m.get_config(f"{keypoints},heldout,tiny")
    run_recipe(config, tmp_path)
    summary = evaluate.run(tmp_path / "run")
    assert list(summary["rules"]["mean"]["mpjpe"]["groups"]) == list(HUMAN36M_ACTIONS)
    text = capsys.readouterr().out
    columns = "Dir. Disc. Eat Greet Phone Photo Pose Pur. Sit SitD. Smoke Wait WalkD. Walk WalkT."
    positions = [text.index(f" {name} ") for name in columns.split()]
    assert positions == sorted(positions)
    assert summary["rules"]["mean"]["mpjve"]["mean"] is not None
    official = evaluate.run(tmp_path / "run", protocol="diffupose_official")
    assert official["protocol_needs"] == ["camera", "root trajectory (ground-truth depth)"]
    assert "USES camera, root trajectory (ground-truth depth)" in capsys.readouterr().out
    better = official["rules"]["mean"]["mpjpe"]["mean"]
    assert better < summary["rules"]["mean"]["mpjpe"]["mean"]


@pytest.mark.slow
def test_the_papers_recipe_on_humaneva_files(tmp_path, capsys):
    write_fake_humaneva(tmp_path, frames=3)
    run_recipe(diffupose_humaneva.get_config("tiny"), tmp_path)
    summary = evaluate.run(tmp_path / "run")
    expected = {f"{action} S{i}" for action in ("Walking", "Jog", "Box") for i in (1, 2, 3)}
    assert set(summary["rules"]["mean"]["p_mpjpe"]["groups"]) == expected
    assert "Box S1" in capsys.readouterr().out


def run_recipe(config, folder):
    config = ConfigDict(config.to_dict())
    config.data.root = str(folder)
    train.run(config, folder / "run")
