"""Checkpoints: round trips, what is kept, and every way a file can be damaged."""

import resource
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from posediff_jax.parallel import replicate
from posediff_jax.training import checkpoints
from posediff_jax.training.checkpoint_files import BrokenCheckpointError
from posediff_jax.training.checkpoints import CheckpointStore, check_skeleton, load_variables
from posediff_jax.training.optimizers import make_optimizer
from posediff_jax.training.state import create_state
from tests.training.fakes import make_system

CONFIG = ConfigDict(
    {"name": "fake", "betas": (0.9, 0.999), "none": None, "model": {"width": 8, "sizes": ((1, 2),)}}
)


def make_state(step=0, *, seed=0, ema=True, config=None, num_devices=1):
    state = create_state(jax.random.key(seed), make_system(), make_optimizer(config or {}), ema=ema)
    state = state.replace(step=jnp.asarray(step, jnp.int32))
    if ema:
        state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    return replicate(state, jax.devices()[:num_devices])


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def damage(path, how):
    """Damages a file as a crash, a full disk or a bad sector would."""
    data = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Checkpoints of steps 10, 20 and 30; copy before damaging."""
    folder = tmp_path_factory.mktemp("run")
    store = CheckpointStore(folder / "checkpoints", keep=3)
    for step in (10, 20, 30):
        store.save(make_state(step, seed=step), config=CONFIG, metadata={"skeleton": "h36m_17"})
    return folder


@pytest.fixture
def run_copy(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


@pytest.mark.parametrize("config", [{}, {"accumulate_steps": 2, "clip_norm": 1.0}])
def test_round_trip_onto_another_number_of_devices(tmp_path, config):
    store = CheckpointStore(tmp_path)
    saved = make_state(7, config=config)
    store.save(saved)
    like = make_state(0, seed=1, config=config, num_devices=8)
    restored = store.restore(7, like)
    assert_equal(restored, saved)
    assert restored.params["w"].sharding == like.params["w"].sharding
    assert len(restored.params["w"].devices()) == 8


def test_keeps_the_latest_two_and_the_best(tmp_path):
    store = CheckpointStore(tmp_path)
    for step, score in ((1, 5.0), (2, 3.0), (3, None), (4, 4.0), (5, float("nan")), (6, None)):
        store.save(make_state(step), score=score)
    assert store.steps() == [2, 5, 6]
    assert store.best_step() == 2
    assert store.latest_step() == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6"]


def test_description_comes_back_with_tuples(tmp_path):
    store = CheckpointStore(tmp_path)
    metadata = {"skeleton": "h36m_16", "normalisation": "screen"}
    metrics = {"mpjpe": np.float32(50.0), "failed": np.nan}
    store.save(make_state(3), config=CONFIG, metadata=metadata, metrics=metrics, score=50.0)
    info = store.info(3)
    assert info.config == CONFIG
    assert info.metadata == metadata
    assert info.metrics == {"mpjpe": 50.0, "failed": None}
    assert (info.step, info.score, info.has_ema) == (3, 50.0, True)


@pytest.mark.parametrize("how", ["gone", "truncated", "changed"])
@pytest.mark.parametrize(
    "pattern", ["about.json", "manifest.json", "variables/**/d/*", "optimizer/_METADATA"]
)
def test_broken_newest_falls_back_to_the_one_before(run_copy, pattern, how):
    store = CheckpointStore(run_copy / "checkpoints")
    path = sorted((store.directory / "30").glob(pattern))[-1]
    damage(path, how)
    with pytest.warns(RuntimeWarning, match=r"30/.*; falling back"):
        restored, info = store.restore_latest(make_state())
    assert info.step == 20
    assert_equal(restored, make_state(20, seed=20))


def test_newer_ones_can_be_discarded(run_copy, capsys):
    store = CheckpointStore(run_copy / "checkpoints")
    store.discard_after(10)
    assert "20: put aside as 20.broken\n" in capsys.readouterr().err
    assert store.steps() == [10]
    # Put aside: perhaps it was the disk that could not be read for a moment.
    aside = {"20.broken", "30.broken"}
    assert {path.name for path in store.directory.iterdir()} == {"10", *aside}
    store.save(make_state(20))
    store.discard_after(10)
    assert {path.name for path in store.directory.iterdir()} == {"10", "20.broken1", *aside}


def test_all_broken_is_an_error_and_deletes_nothing(run_copy):
    store = CheckpointStore(run_copy / "checkpoints")
    for step in store.steps():
        damage(store.directory / str(step) / "manifest.json", "truncated")
    with (
        pytest.warns(RuntimeWarning, match="manifest.json"),
        pytest.raises(BrokenCheckpointError, match=r"none of the checkpoints \[10, 20, 30\]"),
    ):
        store.restore_latest(make_state())
    assert store.steps() == [10, 20, 30]


def test_nothing_to_restore(tmp_path):
    assert CheckpointStore(tmp_path / "absent").restore_latest(make_state()) is None
    with pytest.raises(FileNotFoundError, match=r"no such checkpoint; found steps \[\]"):
        CheckpointStore(tmp_path).restore(5, make_state())


def test_another_recipe_is_refused_without_fallback(run_folder):
    store = CheckpointStore(run_folder / "checkpoints")
    with pytest.raises(ValueError, match="another recipe"):
        store.restore_latest(make_state(config={"accumulate_steps": 2}))
    with pytest.raises(ValueError, match="expected no average of the weights, found one"):
        store.restore_latest(make_state(ema=False))
    wide = make_state()
    wide = wide.replace(params={**wide.params, "w": jnp.zeros((5, 3))})
    with pytest.raises(ValueError, match=r"another recipe.*\(5, 3\)"):
        store.restore_latest(wide)


def test_state_that_is_not_finite_is_never_written(tmp_path):
    store = CheckpointStore(tmp_path)
    state = make_state(1)
    broken = state.replace(params={**state.params, "b": state.params["b"].at[1].set(jnp.nan)})
    with pytest.raises(FloatingPointError, match=r"params\['b'\] is not finite after step 1"):
        store.save(broken)
    assert store.steps() == []


def test_failed_save_leaves_the_one_before_as_newest(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(make_state(1))

    def full(path, about):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "seal", full)
        with pytest.raises(OSError, match=r"No space left.*newest one on disk is 1"):
            store.save(make_state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    store.save(make_state(2))
    assert store.steps() == [1, 2]


def test_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(make_state(1))
    monkeypatch.setattr(checkpoints, "_write_part", None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(
            OSError, match=r"2: could not write .*\(OSError: .* too large\); the new"
        ):
            store.save(make_state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_leftovers_of_a_killed_save_are_ignored_and_cleared(tmp_path):
    store = CheckpointStore(tmp_path)
    for name in ("5.partial", "3.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text("{")
    assert store.steps() == []
    store.save(make_state(6))
    assert [path.name for path in tmp_path.iterdir()] == ["6"]


def test_same_step_can_be_saved_again(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(make_state(4, seed=0))
    store.save(make_state(4, seed=1))
    assert_equal(store.restore(4, make_state()), make_state(4, seed=1))


def test_a_step_that_was_being_saved_again_is_not_lost(tmp_path):
    """A kill between the two renames: the old one has gone, the new one is not there."""
    store = CheckpointStore(tmp_path)
    store.save(make_state(4, seed=1))
    shutil.copytree(tmp_path / "4", tmp_path / "4.removed")
    (tmp_path / "4").rename(tmp_path / "4.partial")
    store.recover()
    assert [path.name for path in tmp_path.iterdir()] == ["4"]
    assert_equal(store.restore(4, make_state()), make_state(4, seed=1))
    # Where the new one was not written to its end, the old one comes back: here by saving another.
    (tmp_path / "4").rename(tmp_path / "4.removed")
    (tmp_path / "4.partial").mkdir()
    store.save(make_state(5))
    assert {path.name for path in tmp_path.iterdir()} == {"4", "5"}
    assert_equal(store.restore(4, make_state()), make_state(4, seed=1))


def test_what_was_no_longer_kept_does_not_come_back(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (4, 5):
        store.save(make_state(step))
    (tmp_path / "4").rename(tmp_path / "4.removed")
    store.recover()
    assert store.steps() == [5]


def test_a_step_is_not_lost_where_a_rename_fails(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(make_state(4, seed=1))
    rename = Path.rename

    def failing(path, target):
        if path.name == "4.partial":
            raise OSError("no")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="could not write the checkpoint"):
            store.save(make_state(4, seed=2))
    assert [path.name for path in tmp_path.iterdir()] == ["4"]
    assert_equal(store.restore(4, make_state()), make_state(4, seed=1))


def test_variables_for_inference(run_folder):
    state = make_state(30, seed=30)
    for which, expected in (("auto", state.ema), ("ema", state.ema), ("raw", state.variables)):
        variables, info = load_variables(run_folder, which=which)
        assert_equal(variables, jax.device_get(expected))
        assert isinstance(variables["params"]["w"], np.ndarray)
        assert info.step == 30
        assert info.metadata["skeleton"] == "h36m_17"
        assert info.config == CONFIG
    older, info = load_variables(run_folder / "checkpoints", step=10)
    assert info.step == 10
    assert_equal(older, jax.device_get(make_state(10, seed=10).ema))


def test_variables_do_not_need_the_optimizer(run_copy):
    shutil.rmtree(run_copy / "checkpoints" / "30" / "ema")
    shutil.rmtree(run_copy / "checkpoints" / "20" / "optimizer")
    with pytest.warns(RuntimeWarning, match="30/ema.*falling back"):
        _, info = load_variables(run_copy)
    assert info.step == 20


def test_variables_come_from_the_best_checkpoint_where_one_was_chosen(tmp_path):
    store = CheckpointStore(tmp_path)
    for step, score in ((1, 2.0), (2, 1.0), (3, 3.0)):
        store.save(make_state(step, ema=False), score=score)
    assert load_variables(tmp_path)[1].step == 2
    with pytest.raises(ValueError, match="which='ema', but the recipe"):
        load_variables(tmp_path, which="ema")
    with pytest.raises(ValueError, match="which: expected"):
        load_variables(tmp_path, which="best")


def test_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}: expected a folder with"):
        load_variables(tmp_path)


def test_skeletons_are_compared_by_name():
    check_skeleton("h36m_17", "h36m_17")
    with pytest.raises(ValueError, match=r"trained on skeleton 'h36m_16'.*'h36m_17'"):
        check_skeleton("h36m_16", "h36m_17")
