"""Studies of occlusion: what is trained on what, each once; tables, matrices, heat maps."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments import evaluate, occlusion
from experiments.occlusion_study import PATTERNS, Study, supervised, wrapper
from experiments.runs import folder_of
from posediff_jax.data.occlusion import RATES, read_occlusion
from posediff_jax.training import load_variables
from tests.fakes import write_fake_human36m


def run(tmp_path, **options):
    given = {"size": "tiny", **options}
    return occlusion.run("cmu17", "somewhere", tmp_path, **given)


@pytest.fixture
def drawn(monkeypatch):
    """Empty pictures: drawing them takes longer than all the rest."""
    monkeypatch.setattr(occlusion, "plot_matrices", lambda path, *_, **__: path.touch())


def files(tmp_path):
    return {path.name.partition("-")[0] for path in tmp_path.glob("*.*")}


@pytest.mark.usefixtures("drawn")
def test_each_network_is_trained_once_after_its_lifter(calls, tmp_path, capsys):
    found = run(tmp_path)
    runs = [config for kind, config in calls if kind == "train"]
    # Five patterns of MixSTE and of the wrapper, four wrappers on a MixSTE that saw all joints,
    # the weighted MixSTE, DiffHPE-2D.
    assert len(runs) == 5 + 5 + 4 + 2
    names = [f.name for f in tmp_path.iterdir() if f.is_dir()]
    assert len(names) == 16
    # MixSTE and wrapper with every pattern in the test; the others with one.
    assert calls.count_of("evaluate") == 2 * 25 + 4 + 2
    assert all(c.data.noise_px == 5 and c.data.root == "somewhere" for c in runs)
    for _, asked in (call for call in calls if call[0] == "evaluate"):
        assert asked["protocol"] == "cmu17-val-v1:noise5"
        assert asked["every"] == 1
    # The mean of five where there is anything to average.
    assert sorted(a["num_hypotheses"] for k, a in calls if k == "evaluate") == [1] * 26 + [5] * 30
    study = Study("cmu17", "somewhere", tmp_path, "tiny")
    lifters = []
    for number, config in enumerate(runs):
        if config.system == "diffhpe_wrapper":
            before = [study.config_of(supervised(p), 0) for p in PATTERNS]
            (lifter,) = [
                c for c in before if config.frozen.checkpoint == str(folder_of(c, tmp_path))
            ]
            assert lifter in runs[:number]
            lifters.append((config.data.occlusion.pattern, lifter.data.occlusion.pattern))
    assert sorted(lifters) == sorted({(p, q) for p in PATTERNS for q in ("none", p)})
    count = len(calls)
    assert run(tmp_path) == found
    assert len(calls) == count
    printed = capsys.readouterr().out
    for text in ("54.8", "12.4", "60.3", "Figure 5: segment std", "44.0 (53.2)", "25 of 25"):
        assert text in printed


def test_tables_by_hand(calls, tmp_path):
    """The made-up errors: 50 for MixSTE, 45 for DiffHPE-2D, 44 for the wrapper."""
    found = run(tmp_path, seeds=2, patterns=("none", "random"))
    rows = {row["name"]: row for row in found["2"]["rows"]}
    assert [row["H"] for row in rows.values()] == [1, 1, 5, 5]
    assert rows["DiffHPE-2D"]["mpjpe"] == [45.0, 45.25]
    assert rows["DiffHPE-Wrapper"]["symmetry_gap"] == [8.8, 8.85]
    assert rows["DiffHPE-Wrapper"]["paper"]["segment_std"] == 3.2
    (_, random) = found["4"]["rows"]
    assert random["MixSTE"] == [50.0, 50.25]
    assert random["paper"]["Wrapper on vanilla MixSTE"] == 60.3
    matrix = found["matrices"]["mpjpe"]
    assert matrix["MixSTE"] == [[[50, 50.25], [52, 52.25]], [[52.5, 52.75], [50, 50.25]]]
    assert matrix["difference"] == [[6, 6], [6, 6]]
    assert matrix["paper"]["DiffHPE-Wrapper"] == [[51.2, None], [None, 53.2]]
    paper = found["matrices"]["symmetry_gap"]["paper"]
    assert paper["MixSTE"] == [[18.2, None], [None, None]]
    assert files(tmp_path) >= {"table_2", "table_4", "matrices", "mpjpe", "symmetry_gap"}
    (path,) = tmp_path.glob("table_4-*.json")
    assert json.loads(path.read_text("utf-8")) == {
        **json.loads(json.dumps(found["4"])),
        "protocol": "cmu17-val-v1:noise5",
        "options": {
            "data": "cmu17",
            "size": "tiny",
            "seeds": 2,
            "every": 1,
            "steps": {},
            "patterns": ["none", "random"],
        },
    }


@pytest.mark.usefixtures("drawn")
def test_a_killed_command_leaves_whole_tables_only_and_goes_on(calls, tmp_path):
    options = {"patterns": ("none", "random")}
    calls.fail_after = 6
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **options)
    assert files(tmp_path) == {"table_2"}
    calls.fail_after = None
    found = run(tmp_path, **options)
    assert calls.count_of("evaluate") == 2 * 4 + 1 + 2
    assert len({str(c) for kind, c in calls if kind == "train"}) == calls.count_of("train")
    # What an earlier command wrote does not pass for what a killed one would have.
    for path in tmp_path.glob("*/study_*random.json"):
        path.unlink()
    calls.fail_after = 0
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **options)
    assert files(tmp_path) == {"table_2"}
    calls.fail_after = None
    assert run(tmp_path, **options) == found


def test_networks_differ_in_what_their_table_is_about(tmp_path):
    study = Study("cmu17", "", tmp_path, "small", steps={"mixste": 7})
    plain, weighted = (study.config_of(supervised(weighted=w), 0) for w in (False, True))
    assert (plain.training.num_steps, plain.loss.position) == (7, "squared")
    assert plain.training.save_every == 1
    assert (weighted.sampler.flip, weighted.loss.joint_weights) == (True, "mixste")
    vanilla, own = (study.config_of(wrapper("random", lifter), 1) for lifter in ("none", ""))
    assert vanilla.frozen.checkpoint != own.frozen.checkpoint
    assert (own.seed, own.training.num_steps) == (1, 6500)
    assert read_occlusion(own.data.occlusion).rate == 0.2
    assert own.data == study.config_of(supervised("random"), 1).data
    assert tuple(PATTERNS) == tuple(RATES)


def test_heat_maps_show_the_gain_with_its_sign(calls, tmp_path, monkeypatch):
    shown = {}

    def draw(path, panels, *_, title, **options):
        shown[title] = {**panels, **options}

    monkeypatch.setattr(occlusion, "plot_matrices", draw)
    run(tmp_path, tables=("matrices",), patterns=("none", "random"))
    errors = shown["Figure 3: MPJPE (mm)"]
    (gain,) = errors["signed"]
    np.testing.assert_array_equal(errors[gain], [[6, 6], [6, 6]])
    np.testing.assert_array_equal(errors["MixSTE"], [[50, 52], [52.5, 50]])


def test_only_a_lead_counts_as_one(calls, tmp_path, monkeypatch, capsys):
    """However small it is: a table rounds it to +0.0."""
    figures = Study.figures

    def level(self, network, hidden):
        found = figures(self, network, hidden)
        ahead = 0.001 * (hidden == "none") * (network.lifter is not None)
        return {metric: [50.0 - ahead] for metric in found}

    monkeypatch.setattr(Study, "figures", level)
    run(tmp_path, tables=("matrices",), patterns=("none", "random"))
    assert "the wrapper is ahead in 2 of 4" in capsys.readouterr().out


def test_frames_without_an_answer_are_not_passed_over(calls, tmp_path):
    study = Study("cmu17", "", tmp_path, "tiny")
    study.figures(supervised(), "random")
    (path,) = tmp_path.glob("*/study_*.json")
    summary = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(summary | {"num_failed": {"mean": 3}}), "utf-8")
    with pytest.raises(ValueError, match=r"random.json: expected a finite answer .* for 3 of 9"):
        study.figures(supervised(), "random")


def test_fields_of_all_configs_may_be_changed(calls, tmp_path):
    options = {"tables": ("4",), "patterns": ("random",)}
    run(tmp_path, **options)
    run(tmp_path, changes={"optimizer.learning_rate": 0.25}, **options)
    rates = {config.optimizer.learning_rate == 0.25 for kind, config in calls if kind == "train"}
    assert rates == {True, False}
    assert len(list(tmp_path.glob("table_4-*.json"))) == 2


def test_networks_that_are_the_same_run_are_refused(tmp_path):
    study = Study("cmu17", "", tmp_path, "tiny")
    study.check([supervised(), supervised(weighted=True), wrapper()])
    study = Study("cmu17", "", tmp_path, "tiny,weighted")
    with pytest.raises(ValueError, match="size: expected networks that differ, 'tiny,weighted'"):
        study.check([supervised(), supervised(weighted=True)])


def test_one_seed_is_said_to_be_one(calls, tmp_path, capsys):
    options = {"patterns": ("random",), "tables": ("2", "4", "matrices")}
    for seeds, count in ((1, 5), (2, 0)):
        run(tmp_path, seeds=seeds, **options)
        assert " ".join(capsys.readouterr().out.split()).count("one seed: how far") == count


def test_how_often_a_run_is_saved_does_not_make_it_another(tmp_path):
    study = Study("cmu17", "", tmp_path, "tiny")
    config = study.config_of(supervised(), 0)
    other = config.copy_and_resolve_references().unlock()
    other.training.update(log_every=7, save_every=7)
    assert folder_of(other, tmp_path) == folder_of(config, tmp_path)
    other.training.batch_size += 1
    assert folder_of(other, tmp_path) != folder_of(config, tmp_path)


def test_steps_for_all_or_for_some():
    all_three = ("mixste", "diffhpe_2d", "diffhpe_wrapper")
    assert occlusion.read_steps(["300"]) == dict.fromkeys(all_three, 300)
    assert occlusion.read_steps([]) == {}
    for bad in (["d3dp=3"], ["mixste=0"], ["mixste=many"], ["mixste=True"], ["0"]):
        with pytest.raises(ValueError, match="steps: expected a number of updates"):
            occlusion.read_steps(bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tables": ("3",)}, r"tables: expected some of \['2', '4', 'matrices'\], got \('3',\)"),
        ({"patterns": ("fog",)}, r"patterns: expected some of .*'random'.*, got \('fog',\)"),
        ({"patterns": ("random", "random")}, "patterns: expected some of .*, each once"),
        ({"patterns": ()}, "patterns: expected some of"),
        ({"seeds": 0}, "seeds: expected at least 1, got 0"),
        ({"every": 0}, "every: expected at least 1, got 0"),
        ({"size": "tiny,occluded_all"}, "size: expected no pattern of its own, .*occluded_all"),
        ({"steps": {"d3dp": 3}}, r"steps: expected some of .*, got \['d3dp'\]"),
        ({"size": "huge"}, "config argument: expected some of .*got 'huge'"),
        # Of the last network only: MixSTE has that variant.
        ({"size": "tiny,weighted", "tables": ("matrices",)}, "config argument: .*got 'weighted'"),
        ({"size": "small,frames243"}, r"frozen\.checkpoint: .* does not fit: .*num_frames is 243"),
        ({"changes": {"data.noise": 1.0}}, "changes: mixste has no field 'data.noise'"),
        ({"changes": {"system.name": 1}}, "changes: mixste has no field 'system.name'"),
        ({"changes": {"data.occlusion.rate": 0.3}}, "changes: expected no field of data.occlus"),
    ],
)
def test_what_is_not_known_is_refused_at_once(calls, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **options)
    assert not calls
    with pytest.raises(ValueError, match="data: expected one of"):
        occlusion.run("imagenet", "", tmp_path)


@pytest.mark.slow
def test_the_whole_command_on_files_of_human36m(tmp_path):
    (tmp_path / "data").mkdir()
    write_fake_human36m(tmp_path / "data", actions=("Walking",), frames=18)
    options = {"size": "tiny", "tables": ("matrices",), "patterns": ("random",)}
    root, runs = str(tmp_path / "data"), tmp_path / "runs"
    found = occlusion.run("human36m", root, runs, **options)["matrices"]
    weights = []
    for system, method in (("mixste", "MixSTE"), ("diffhpe_wrapper", "DiffHPE-Wrapper")):
        (folder,) = runs.glob(f"{system}-*")
        (path,) = folder.glob("study_evaluation_test_H*_occlusion-random.json")
        summary = json.loads(path.read_text("utf-8"))
        assert summary["data"]["occlusion"]["pattern"] == "random"
        for metric in ("mpjpe", "symmetry_gap", "segment_std"):
            (((figure,),),) = found[metric][method]
            assert figure == summary["rules"]["mean"][metric]["mean"] > 0
        weights.append(load_variables(folder)[0])
    given, kept = weights[0]["params"]["trunk"], weights[1]["frozen"]["lifter"]["trunk"]
    for name in ("frame_positions", "spatial_norm"):
        jax.tree.map(np.testing.assert_array_equal, kept[name], given[name])
    assert len(list(runs.glob("*.png"))) == 3
    # The wrapper's checkpoints hold the lifter.
    shutil.rmtree(next(runs.glob("mixste-*")))
    summary = evaluate.run(folder, num_hypotheses=2, data=root, out=tmp_path / "again.json")
    assert summary["num_hypotheses"] == 2
