"""The training command against kills, a full disk and bad sectors.

Whatever happens to it, the same command in the end leaves what an undisturbed run leaves, bit for
bit: weights, average, state of the optimiser, metrics. On failure the output shows all faults.
"""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from posediff_jax.data import procedural_motion
from posediff_jax.systems import make_system
from posediff_jax.training import create_state, load_variables, make_optimizer, read_metrics
from posediff_jax.training.checkpoints import CheckpointStore
from tests.training.children import finish, start
from tests.training.test_checkpoints import assert_equal, damage

pytestmark = pytest.mark.fault

NUM_STEPS, SAVE_EVERY, EVAL_EVERY = 48, 8, 24
KILLS = 10
# Of the things done to files in one save there are about a hundred.
EVENTS = 150


class Trainer:
    """The training command on a folder of motion, with one compilation cache for all runs."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "data").mkdir()
        clips = procedural_motion(3, num_clips=3, frames=7)
        motion = {f"asf/{i:02d}/{i:02d}_01": clip.poses for i, clip in enumerate(clips)}
        np.savez(folder / "data" / "train.npz", **motion)

    def __call__(self, workdir, fault=None):
        """Exit status and output of the command in `workdir`, under a fault of `faulty`."""
        options = {
            "data.root": self.folder / "data",
            "data.heldout_every": 3,
            "training.num_steps": NUM_STEPS,
            "training.log_every": 1,
            "training.save_every": SAVE_EVERY,
            "training.eval_every": EVAL_EVERY,
        }
        program = ["experiments.train"]
        if fault is not None:
            program = ["tests.training.faulty", json.dumps(fault)]
        child = start(
            "-m",
            *program,
            "--config=configs/diffupose_cmu.py:tiny",
            *(f"--config.{name}={value}" for name, value in options.items()),
            f"--workdir={workdir}",
            JAX_NUM_CPU_DEVICES="2",
            JAX_COMPILATION_CACHE_DIR=str(self.folder / "xla"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        )
        return finish(child)[0]

    def to_the_end(self, workdir):
        """The output of a run that nothing happens to."""
        status, output = self(workdir)
        assert status == 0
        return output


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return Trainer(tmp_path_factory.mktemp("trainer"))


@pytest.fixture(scope="module")
def undisturbed(trainer, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    trainer.to_the_end(workdir)
    return workdir


def store_of(workdir):
    return CheckpointStore(workdir / "checkpoints")


def recipe_of(workdir):
    """The structure of a run's state."""
    config = store_of(workdir).latest_info().config
    optimizer = make_optimizer(config.optimizer, num_steps=NUM_STEPS)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = jax.eval_shape(
        lambda: create_state(jax.random.key(0), make_system(config), optimizer, ema=True)
    )
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state)


def lines_of(workdir):
    clock = ("time", "steps_per_second")
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def assert_same_run(workdir, undisturbed):
    """Same checkpoints, array by array, and same metrics, each step once."""
    stores = store_of(workdir), store_of(undisturbed)
    assert stores[0].steps() == stores[1].steps()
    assert stores[0].best_step() == stores[1].best_step()
    recipe = recipe_of(undisturbed)
    for step in stores[1].steps():
        assert stores[0].info(step) == stores[1].info(step)
        assert_equal(*(jax.device_get(store.restore(step, recipe)) for store in stores))
    lines = lines_of(workdir)
    trained = [line["step"] for line in lines if line["split"] == "train"]
    assert trained == list(range(1, NUM_STEPS + 1))
    assert lines == lines_of(undisturbed)
    names = {path.name for path in workdir.iterdir()}
    assert names == {".lock", "checkpoints", "config.json", "curves.png", "metrics.jsonl"}


def kill_points(seed):
    """Half of the kills fall within saves, the others anywhere in two saves' worth of training."""
    rng = np.random.default_rng(seed)
    for number in range(KILLS):
        if number % 2:
            yield {"signal": 9, "event": int(rng.integers(1, EVENTS))}
        else:
            step, after = rng.integers(1, 2 * SAVE_EVERY), rng.uniform(0.0, 0.03)
            yield {"signal": 9, "step": int(step), "after": round(after, 4)}


def test_killed_at_ten_points(trainer, undisturbed, tmp_path):
    torn = 0
    for fault in kill_points(seed=0):
        status, _ = trainer(tmp_path, fault)
        assert status == -signal.SIGKILL
        steps = store_of(tmp_path).steps()
        unfinished = [path.name for path in (tmp_path / "checkpoints").glob("*[a-z]*")]
        print(f"{fault}: left checkpoints {steps}, {unfinished}")
        torn += bool(unfinished)
    assert torn >= KILLS // 2
    trainer.to_the_end(tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_terminated(trainer, undisturbed, tmp_path):
    status, output = trainer(tmp_path, {"signal": 15, "step": 20, "after": 0.01})
    assert status == 128 + signal.SIGTERM
    newest = store_of(tmp_path).latest_step()
    assert newest >= 20
    assert f"SIGTERM: saved step {newest}" in output
    trainer.to_the_end(tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_full_disk(trainer, undisturbed, tmp_path):
    """Files may not grow beyond what the metrics need; the checkpoints' are larger."""
    for fault in (
        {"file_size": 30_000, "step": 20, "late": True},
        {"file_size": 30_000, "step": 1},
    ):
        status, output = trainer(tmp_path, fault)
        assert status == 1
        *_, message = output.strip().splitlines()
        assert "24: could not write the checkpoint" in message
        assert "newest one on disk is 16. Free some space and run the same command" in message
        assert ("Orbax" in output or "orbax" in output) == ("late" in fault)
        assert load_variables(tmp_path, step=16)[1].step == 16
        assert {path.name for path in store_of(tmp_path).directory.iterdir()} == {"8", "16"}
    trainer.to_the_end(tmp_path)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(("part", "how"), [("variables", "truncated"), ("optimizer", "changed")])
def test_bad_sector(trainer, undisturbed, tmp_path, part, how):
    """The newest checkpoint of a finished run is damaged; the one before is gone on from."""
    workdir = shutil.copytree(undisturbed, tmp_path / "run")
    files = (store_of(workdir).directory / str(NUM_STEPS) / part).glob("**/d/*")
    damage(max(files, key=lambda path: path.stat().st_size), how)
    output = trainer.to_the_end(workdir)
    assert f"{NUM_STEPS}/{part}" in output
    assert "is missing, truncated or changed; falling back to the checkpoint before" in output
    assert_same_run(workdir, undisturbed)
