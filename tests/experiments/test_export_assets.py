"""From a training run to the files of the package, and back by the functions that users call."""

import numpy as np
import pytest

import posediff_jax
from configs.zedo_prior_cmu import get_config
from experiments import example_keypoints, export_assets
from experiments.data import load_training
from posediff_jax import assets
from posediff_jax.data import Anchors, read_keypoints, write_anchors
from posediff_jax.prior_file import read_prior
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system
from posediff_jax.training import CheckpointStore, create_state, load_variables, make_optimizer
from tests.lifting import standing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of the tiny config, and anchors for each number of hypotheses."""
    import jax

    folder = tmp_path_factory.mktemp("run")
    config = get_config("tiny")
    state = create_state(jax.random.key(0), make_system(config), make_optimizer({}))
    CheckpointStore(folder / "checkpoints").save(state, config=config.to_dict())
    poses = standing(50)
    files = []
    for size in (1, 10, 50):
        files.append(folder / f"anchors_{size}.npz")
        found = Anchors(poses[:size], H36M_17.joints, np.ones(size, int), f"{size} poses")
        write_anchors(files[-1], found)
    return folder, files


def test_what_is_exported_is_what_lift_uses(run, tmp_path, monkeypatch, capsys):
    folder, anchors = run
    files = export_assets.run(folder, anchors, output=tmp_path, sampler={"num_iterations": 4})
    assert sorted(f.name for f in files) == sorted([assets.PRIOR, *assets.ANCHORS.values()])
    assert "half precision changes energies by" in capsys.readouterr().out
    prior = read_prior(tmp_path / assets.PRIOR)
    assert prior.config.sampler.num_iterations == 4
    assert "data" not in prior.config
    exact = load_variables(folder)[0]["params"]["out"]["kernel"]
    np.testing.assert_array_equal(
        prior.variables["params"]["out"]["kernel"], np.float16(exact).astype(np.float32)
    )
    monkeypatch.setattr(assets.resources, "files", lambda package: tmp_path)
    assert len(assets.load_anchors(7).poses) == 10
    people = posediff_jax.lift(
        example_keypoints.run(tmp_path / "example.json"),
        image_size=example_keypoints.IMAGE_SIZE,
        hypotheses=2,
        progress=False,
    )
    assert [p.track for p in people] == ["1", "2"]
    assert all(p.weights_from.startswith("posediff_jax.assets: cmu17") for p in people)
    assert np.mean([p.valid.mean() for p in people]) > 0.95


def test_all_sizes_of_anchors_are_needed(run, tmp_path):
    folder, anchors = run
    with pytest.raises(ValueError, match=r"anchors: expected one file for each of \[1, 10, 50\]"):
        export_assets.run(folder, anchors[:2], output=tmp_path)


def test_a_prior_may_not_be_large(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export_assets, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="expected at most 100 bytes of weights"):
        export_assets.run(*run, output=tmp_path)
    assert not (tmp_path / assets.PRIOR).exists()


def test_the_example_of_the_repository_is_what_the_script_writes(tmp_path):
    from pathlib import Path

    here = Path(__file__).parents[2] / "experiments/examples/two_people_alphapose.json"
    size = example_keypoints.IMAGE_SIZE
    old, new = (
        read_keypoints(f, image_size=size)
        for f in (here, example_keypoints.run(tmp_path / "k.json"))
    )
    for a, b in zip(old.people, new.people, strict=True):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=0.02)
        # Left is left: a walker who faces the camera has the left side on the right of the image.
        assert np.median(a.keypoints[:, 11, 0] - a.keypoints[:, 14, 0]) > 0


class TestConfig:
    def write_cmu17(self, folder):
        walk = standing(6).astype(np.float32) * np.float32([1, -1, -1])
        clips = {f"asf/{n}/0{n}": np.repeat(walk, 3, axis=0) for n in (1, 2)}
        np.savez(folder / "train.npz", **clips)

    def test_procedural_people_are_among_the_training_poses(self, tmp_path):
        self.write_cmu17(tmp_path)
        counts = []
        for variant in ("tiny", "tiny,cmuonly"):
            config = get_config(variant).unlock()
            config.data.root = str(tmp_path)
            table = load_training(config.lock()).train
            counts.append(len(table.pose))
            # Level cameras: who stands has the head straight above, whatever the azimuth.
            if variant != "tiny":
                assert np.median(table.pose[:, 10, 1]) < -0.4
        assert counts[0] - counts[1] == 5 * config.data.frames_per_clip

    @pytest.mark.parametrize("arg", ["", "cmuonly", "norotation"])
    def test_variants_build(self, arg):
        make_system(get_config(arg))

    def test_a_bad_argument_is_named(self):
        with pytest.raises(ValueError, match=r"config argument: expected some of .* got 'huge'"):
            get_config("tiny,huge")
