"""Runs by their hash: the same wherever data and folders are, another by any other field."""

import pytest

from experiments.runs import Model, difference, folder_of, make_config, scored, spread, trained


def config_of(root="somewhere", seed=0, variants="no_hrst", steps=5):
    model = Model("ddhpose", variants)
    return make_config(model, "cmu", root, size="tiny", seed=seed, steps=steps)


def test_moved_data_are_the_same_run_and_another_seed_is_not(tmp_path):
    config = config_of()
    assert (config.training.num_steps, config.model.hrst) == (5, False)
    folder = folder_of(config, tmp_path)
    assert folder_of(config_of(root="elsewhere"), tmp_path) == folder
    others = config_of(seed=1), config_of(variants=""), config_of(steps=0)
    assert len({folder, *(folder_of(other, tmp_path) for other in others)}) == 4


def test_a_run_is_named_by_the_run_that_it_is_built_on_and_not_by_where_that_is(tmp_path):
    config = make_config(Model("diffhpe_wrapper"), "cmu", "", size="tiny", seed=0, steps=0)

    def folder(checkpoint):
        with config.unlocked():
            config.frozen.checkpoint = checkpoint
        return folder_of(config, tmp_path)

    assert folder("a/mixste-123") == folder("b/c/mixste-123")
    assert len({folder(""), folder("a/mixste-123"), folder("a/mixste-124")}) == 3


def test_what_is_below_is_trained_first_and_only_if_needed(calls, tmp_path):
    below, above = config_of(seed=1), config_of(seed=2)
    trained(above, tmp_path, below=below)
    assert [config.seed for _, config in calls] == [1, 2]
    scored(above, tmp_path, "figures.json", below=config_of(seed=3))
    assert calls.count_of("train") == 2


def test_a_run_that_was_killed_is_trained_again(calls, tmp_path, monkeypatch):
    def killed(config, folder):
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("experiments.train.run", killed)
        with pytest.raises(KeyboardInterrupt):
            scored(config_of(), tmp_path, "figures.json")
    assert not list(tmp_path.glob("*/*.json"))
    scored(config_of(), tmp_path, "figures.json")
    assert [kind for kind, _ in calls] == ["train", "evaluate"]


def test_data_that_cannot_be_scored_are_not_trained_on(calls, tmp_path, monkeypatch):
    """Of other files than the protocol's one would learn so after hours."""
    read = []

    def refused(config, protocol):
        read.append(protocol)
        raise ValueError("not the protocol's")

    monkeypatch.setattr("experiments.runs.load_test", refused)
    for options, protocol in (({}, ""), ({"protocol": "cmu17-val-v1"}, "cmu17-val-v1")):
        with pytest.raises(ValueError, match="not the protocol's"):
            scored(config_of(), tmp_path, "figures.json", **options)
        assert read.pop() == protocol
    assert not calls


def test_spreads_and_differences():
    assert spread([40.0, 41.0]) == "40.50 ± 0.50"
    assert spread([40.25], 1) == "40.2"
    assert difference([41.2, 41.3], [40.0, 41.0]) == "none"
    assert difference([42.0, 42.0], [40.0, 41.0]) == "+1.50"
    assert difference([40.0], [41.0], 1) == "-1.0"


def test_steps_below_0_are_refused():
    with pytest.raises(ValueError, match="steps: expected at least 0, got -1"):
        config_of(steps=-1)


def test_the_rate_that_a_pattern_has_by_default_makes_no_other_run(tmp_path):
    config = make_config(
        Model("mixste", "occluded_random"), "cmu", "", size="tiny", seed=0, steps=0
    )
    given = config.copy_and_resolve_references().unlock()
    given.data.occlusion.rate = 0.2
    assert folder_of(given, tmp_path) == folder_of(config, tmp_path)
    given.data.occlusion.rate = 0.3
    assert folder_of(given, tmp_path) != folder_of(config, tmp_path)
