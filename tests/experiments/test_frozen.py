"""The frozen lifter by its path: ours, the authors', and those that do not fit."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.frozen import load_lifter
from posediff_jax.systems import make_system
from posediff_jax.training import create_state, make_optimizer
from posediff_jax.training.checkpoints import FOLDER, CheckpointStore
from tests.interop.test_ddhpose import d3dp_layout, fill

SIZE = {"num_frames": 5, "width": 16, "depth": 2, "num_heads": 2}
LIFTER = {
    "system": "mixste",
    "skeleton": "h36m_17",
    "model": SIZE,
    "loss": {},
    "sampler": {},
}


def config(path, **model):
    sizes = {"num_frames": 5, "lifter_width": 16, "lifter_depth": 2, "lifter_heads": 2}
    return ConfigDict(
        {
            "system": "diffhpe_wrapper",
            "skeleton": "h36m_17",
            "frozen": {"checkpoint": str(path)},
            "model": {"width": 8, "num_blocks": 1, **sizes, **model},
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has just begun."""
    folder = tmp_path_factory.mktemp("lifter")
    system = make_system(LIFTER)
    state = create_state(jax.random.key(0), system, make_optimizer({"name": "adam"}))
    store = CheckpointStore(folder / FOLDER)
    store.save(state, config=LIFTER, metadata={"skeleton": "h36m_17"})
    return folder


def test_a_run_of_ours(run):
    lifter = load_lifter(config(run))
    assert lifter["params"]["joint_positions"].shape == (17, 16)
    shapes = jax.eval_shape(make_system(config(run), lifter).init, jax.random.key(0))
    assert set(shapes["frozen"]) == {"lifter"}


def test_weights_of_the_authors(tmp_path):
    weights = fill(d3dp_layout(channels=2))
    np.savez(tmp_path / "lifter.npz", **{f"model.{k}": v for k, v in weights.items()})
    lifter = load_lifter(config(tmp_path / "lifter.npz"))
    np.testing.assert_array_equal(
        lifter["params"]["embed"]["kernel"].T, weights["Spatial_patch_to_embedding.weight"]
    )
    with pytest.raises(ValueError, match="depth: 2 in the weights, 3 in the model"):
        load_lifter(config(tmp_path / "lifter.npz", lifter_depth=3))


def test_none_is_named():
    assert load_lifter(config("")) is None
    assert load_lifter(ConfigDict({"system": "d3dp"})) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lifter_width": 64}, "model.lifter_width is 64, the lifter's width 16"),
        ({"num_frames": 27}, "model.num_frames is 27, the lifter's num_frames 5"),
        # What no shape would tell.
        ({"lifter_heads": 4}, "model.lifter_heads is 4, the lifter's num_heads 2"),
        ({"visibility": True}, "model.visibility is True, the lifter's visibility False"),
    ],
)
def test_a_lifter_of_another_size(run, changes, message):
    with pytest.raises(ValueError, match=f"frozen.checkpoint: .*does not fit: {message}"):
        load_lifter(config(run, **changes))


def test_a_lifter_of_another_skeleton(run):
    other = config(run)
    other.skeleton = "mpi_inf_3dhp_17"
    with pytest.raises(ValueError, match="trained on skeleton 'h36m_17', cannot be used with"):
        load_lifter(other)


def test_a_run_of_another_system(run, tmp_path):
    system = make_system(LIFTER)
    state = create_state(jax.random.key(0), system, make_optimizer({"name": "adam"}))
    CheckpointStore(tmp_path / FOLDER).save(state, config={**LIFTER, "system": "d3dp"})
    with pytest.raises(ValueError, match=r"expected a run of 'mixste', .* is one of 'd3dp'"):
        load_lifter(config(tmp_path))


def test_a_run_of_another_convention_of_missing_joints(tmp_path):
    state = create_state(jax.random.key(0), make_system(LIFTER), make_optimizer({"name": "adam"}))
    hidden = {"occlusion": {"pattern": "random", "missing": "mean_pose"}}
    CheckpointStore(tmp_path / FOLDER).save(state, config={**LIFTER, "data": hidden})
    with pytest.raises(ValueError, match=r"frozen.checkpoint: .*occlusion\.missing: .*'mean_pose'"):
        load_lifter(config(tmp_path))


def test_no_such_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder with checkpoints"):
        load_lifter(config(tmp_path / "nothing"))
