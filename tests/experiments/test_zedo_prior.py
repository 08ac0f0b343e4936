"""ZeDO's prior in miniature: trained by the shared loop, resumed, sampled from, lifted with."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import posediff_jax
from configs.zedo_prior_synthetic import get_config
from experiments import plausibility
from experiments.data import load_test, load_training
from posediff_jax.calibration import make_camera
from posediff_jax.data import endless_batches
from posediff_jax.inference import make_sampler
from posediff_jax.systems import make_system
from posediff_jax.training import eval_variables, load_variables, make_ema, make_optimizer, train

ROOT = Path(__file__).parents[2]


CONFIG = get_config("tiny")


@functools.cache
def training_items():
    return load_training(CONFIG).train


def run(workdir=None, num_steps=10):
    options = CONFIG.training
    return train(
        make_system(CONFIG),
        make_optimizer(CONFIG.optimizer, num_steps=options.num_steps),
        lambda step: endless_batches(
            training_items(), batch_size=options.batch_size, start_step=step
        ),
        num_steps=num_steps,
        ema=make_ema(CONFIG.ema),
        workdir=workdir,
        config=CONFIG.to_dict(),
        metadata={"skeleton": CONFIG.skeleton},
        save_every=options.save_every,
        progress=False,
        devices=jax.devices()[:1],
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run that stopped halfway and was resumed."""
    folder = tmp_path_factory.mktemp("prior")
    run(folder, num_steps=5)
    assert int(run(folder).step) == 10
    return folder


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(workdir):
    whole = eval_variables(run())
    resumed, info = load_variables(workdir)
    assert info.has_ema
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), resumed)


@pytest.mark.slow
def test_plausibility_is_measured_in_millimetres(workdir, capsys):
    figures = plausibility.run(workdir, num=20)
    assert all(np.isfinite(value) for value in figures.values())
    # Ten steps make noise of the prior's size, not people of a person's.
    assert figures["asymmetry"] > 10 * figures["asymmetry_real"]
    assert 200 < figures["size_real"] < 500
    assert "size_real" in capsys.readouterr().out
    assert (workdir / "plausibility.json").is_file()


def test_generated_poses_do_not_depend_on_chunks(workdir, monkeypatch):
    variables, _ = load_variables(workdir)
    whole = plausibility.generate(CONFIG, variables, num=7)
    monkeypatch.setattr(plausibility, "_CHUNK", 3)
    np.testing.assert_allclose(plausibility.generate(CONFIG, variables, num=7), whole, atol=1e-4)


def test_the_trained_prior_lifts(workdir):
    """From anchors that the app loads, by the sampler that all systems share."""
    items = load_test(CONFIG)
    anchors = training_items().pose[:: len(training_items().pose) // 4][:2]
    system = make_system(CONFIG, {"anchors": anchors})
    variables, _ = load_variables(workdir)
    sampler = make_sampler(system, variables, num_hypotheses=2)
    batch = items.table.gather(items.items[:3])
    assert sampler(jax.random.key(0), batch).samples.shape == (3, 2, 1, 17, 3)


def test_a_loaded_checkpoint_lifts_from_given_anchors(workdir):
    camera = make_camera(1100.0, (500.0, 480.0), (1000, 1000))
    keypoints = load_test(CONFIG).table.keypoints_px[:2]
    lifter = posediff_jax.load(workdir, frozen={"anchors": training_items().pose[:3]}, batch_size=2)
    lifted = lifter(keypoints, camera=camera, key=jax.random.key(0), num_hypotheses=3)
    assert lifted.poses.shape == (3, 2, 17, 3)
    # Without the pelvis, which the first fit begins with, it takes what is seen.
    seen = np.ones((2, 17))
    seen[1, 0] = 0
    repaired = lifter(
        keypoints, camera=camera, key=jax.random.key(0), num_hypotheses=3, confidence=seen
    )
    assert np.isfinite(repaired.poses).all()
    with pytest.raises(ValueError, match="frozen: expected anchors to start from"):
        posediff_jax.load(workdir)(keypoints, camera=camera, key=jax.random.key(0))


@pytest.mark.slow
def test_the_commands_evaluate_from_an_anchor_file(workdir, tmp_path):
    """Anchors of the config's own data, then the papers' tables."""
    file = tmp_path / "anchors.npz"
    for command in (
        ["anchors", "--config=configs/zedo_prior_synthetic.py:tiny", "--num=2", f"--output={file}"],
        ["evaluate", f"--checkpoint={workdir}", f"--anchors={file}", f"--out={tmp_path}/e.json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"experiments.{command[0]}", *command[1:]],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "e.json").is_file()


@pytest.mark.parametrize("arg", ["", "cmu17", "ddpm", "norotation", "published"])
def test_every_variant_builds(arg):
    make_system(get_config(arg))


def test_the_noisy_backbone_is_noisy():
    """Table 5: what tells DDPM from DDIM; the released loop has no noise."""
    assert get_config("ddpm").sampler.noisy
    assert not get_config("").sampler.get("noisy", False)


def test_a_bad_config_argument_is_named():
    with pytest.raises(ValueError, match=r"config argument: expected some of .* got 'huge'"):
        get_config("tiny,huge")
