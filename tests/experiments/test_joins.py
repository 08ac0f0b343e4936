"""Joins of long clips: where they are, and what they are compared with, by hand."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import d3dp_cmu
from experiments import joins
from posediff_jax.data import all_frames
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.data.windows import plan_clip
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from posediff_jax.training import CheckpointStore, create_state, make_optimizer
from tests.data.fakes import sequence

FRAMES, LENGTH = 13, 5


def steps(**options):
    found = joins.places(plan_clip(FRAMES, length=LENGTH, **options))
    assert (sum(found.values()) == 1).all(), "every step is in one place"
    return {place: np.flatnonzero(flags).tolist() for place, flags in found.items()}


def test_a_step_joins_where_a_window_begins_or_ends_to_speak():
    # Windows at 0, 5 and 8, moved back: from frame 7 to 8 one begins, from 9 to 10 one ends.
    assert steps(overlap=0) == {
        "joins": [4, 7, 9],
        "blended": [8],
        "inside": [0, 1, 2, 3, 5, 6, 10, 11],
    }
    # At 0, 3, 6 and 8.
    assert steps(overlap=2)["joins"] == [2, 4, 5, 7, 10]
    assert steps(overlap=0, causal=True)["joins"] == list(range(FRAMES - 1))
    assert joins.places(plan_clip(3, length=LENGTH))["inside"].tolist() == [True, True]


@pytest.fixture
def views():
    people = tuple(sequence(str(n), FRAMES, seed=n) for n in range(3))
    return all_frames(PoseSequences(people, H36M_17))


def jumping(views, **options):
    """The truth, moved in each window by as many millimetres as windows came before; two poses."""
    plan = plan_clip(FRAMES, length=LENGTH, **options)
    shift = np.zeros(FRAMES)
    for number, (index, weight) in enumerate(zip(plan.index, plan.weight, strict=True)):
        np.add.at(shift, index, 0.001 * number * weight)

    def clip_of(number):
        pose = views.views.sequences[number].pose.astype(float)
        moved = pose + shift[:, None, None] * np.array([1.0, 0.0, 0.0])
        return np.stack([moved, 2 * pose - moved])

    return joins.measure(
        clip_of, views, [0, 2], lambda frames: plan_clip(frames, length=LENGTH, **options)
    )


def test_jumps_between_windows_are_errors_at_joins_alone(views):
    found = {
        "side by side": jumping(views, overlap=0),
        "overlap 2": jumping(views, overlap=2),
        "causal": jumping(views, causal=True),
    }
    rows = {(row["windows"], row["pose"]): row for row in joins.compare(found)}
    assert set(rows) == {(w, p) for w in found for p in ("mean", "first")}
    side = rows["side by side", "first"]
    # A jump of 1, and one in three equal steps whose middle one is blended.
    assert side["joins"] == pytest.approx(5 / 9, abs=1e-3)
    assert side["blended"] == pytest.approx(1 / 3, abs=1e-3)
    assert side["inside"] == pytest.approx(0, abs=1e-3)
    assert side["num_joins"] == 2 * 3
    assert side["difference"] == pytest.approx(side["joins"], abs=1e-3)
    assert rows["overlap 2", "first"]["joins"] < side["joins"]
    assert rows["causal", "first"]["joins"] == pytest.approx(1, abs=1e-3)
    assert rows["causal", "first"]["inside"] is None
    # The two hypotheses jump apart: their mean stays.
    assert rows["causal", "mean"]["all"] == pytest.approx(0, abs=1e-3)
    assert rows["causal", "first"]["mpjpe"] == pytest.approx(6, abs=1e-3)


def test_views_of_a_clip_are_one_sample(views):
    named = tuple(
        dataclasses.replace(s, name=name)
        for s, name in zip(
            views.views.sequences, ("walk/view0", "run/view0", "walk/view1"), strict=True
        )
    )
    found = jumping(views._replace(views=PoseSequences(named, H36M_17)), overlap=0)
    assert [len(x) for x in found["first"]["joins"]] == [2 * 3]
    (row,) = (r for r in joins.compare({"side by side": found}) if r["pose"] == "first")
    assert row["standard_error"] is None


def test_frames_whose_pose_is_not_known_are_left_out(views):
    known = tuple(np.arange(FRAMES) != 4 for _ in range(3))
    found = jumping(views._replace(known=known), overlap=0)
    # The join from 4 to 5 is one of three.
    assert [len(x) for x in found["first"]["joins"]] == [2, 2]
    assert [len(x) for x in found["first"]["mpjpe"]] == [FRAMES - 1] * 2


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [
        (0.3, 0.2, "+0.30 ± 0.20 (none)"),
        (-0.5, 0.2, "-0.50 ± 0.20"),
        (0.5, None, "+0.50"),
        (None, None, "-"),
    ],
)
def test_a_difference_within_two_standard_errors_is_none(difference, error, expected):
    row = {"difference": difference, "standard_error": error}
    assert joins.difference_text(row) == expected


def test_the_standard_error_is_over_clips():
    def errors(*values):
        empty = [np.zeros(0)] * 3
        inside = [np.full(4, 0.001)] * 3
        found = {"joins": [np.array([v, v]) for v in values], "blended": empty, "inside": inside}
        return {"mean": found | {"mpjpe": inside}}

    (row,) = joins.compare({"side by side": errors(0.002, 0.003, 0.004)})
    assert row["difference"] == pytest.approx(2)
    assert row["standard_error"] == pytest.approx(1 / 3**0.5)


def test_plans_and_sequences():
    assert joins.plans(27, (), causal=True) == {
        "side by side": {"overlap": 0},
        "overlap 13": {"overlap": 13},
        "causal": {"causal": True},
    }
    assert list(joins.plans(27, (4,), causal=False)) == ["side by side", "overlap 4"]
    assert joins.spread(9, 3) == [0, 4, 8]
    assert joins.spread(3, 0) == [0, 1, 2]
    with pytest.raises(ValueError, match="sequences: expected 0 to 3, got 4"):
        joins.spread(3, 4)


@pytest.mark.slow
def test_tiny(tmp_path, capsys):
    """All kinds of windows over the same sequences, of a checkpoint that nobody trained."""
    config = d3dp_cmu.get_config("tiny").unlock()
    config.data.update(kind="procedural", train_clips=2, test_clips=2)
    state = create_state(jax.random.key(0), make_system(config), make_optimizer({}))
    CheckpointStore(tmp_path / "checkpoints").save(state, config=config.to_dict())
    result = joins.run(tmp_path, num_hypotheses=2)
    assert json.loads((tmp_path / "joins.json").read_text()) == result
    kinds = ("side by side", "overlap 4", "causal")
    assert [(row["windows"], row["pose"]) for row in result["rows"]] == [
        (windows, pose) for windows in kinds for pose in ("mean", "first")
    ]
    assert "velocity errors" in capsys.readouterr().out
    side, half, causal = (row for row in result["rows"] if row["pose"] == "first")
    assert side["inside"] > 0
    # Windows side by side leave nothing to blend but where the last one is moved back.
    assert half["blended"] > 0
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", "joins.json"}
    assert 0 < side["num_joins"] < half["num_joins"] < causal["num_joins"]
    assert causal["num_joins"] == result["frames"] - result["sequences"]
    assert (causal["inside"], causal["blended"]) == (None, None)
