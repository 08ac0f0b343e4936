"""A prior without opinions, people who stand like its anchors, and files of both, for `lift`."""

import jax
import numpy as np
from ml_collections import ConfigDict

from posediff_jax.calibration import make_camera
from posediff_jax.camera import project
from posediff_jax.data import Anchors, procedural_motion, write_anchors
from posediff_jax.prior_file import write_prior
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems import make_system

SIZE = (1000, 900)
CAMERA = make_camera(1100.0, (500.0, 460.0), SIZE)
CONFIG = ConfigDict(
    {
        "system": "zedo",
        "skeleton": "h36m_17",
        "model": {"width": 32, "embedding": 8, "num_blocks": 1, "groups": 4},
        "process": {},
        "loss": {},
        "sampler": {"fit_iterations": 30, "num_iterations": 10, "fit_learning_rate": 0.02},
    }
)


def standing(count, *, seed=5):
    """Poses seen by an upright camera, root at the origin."""
    clips = procedural_motion(seed, num_clips=count, frames=1, kinds=("reaching",))
    poses = np.concatenate([clip.poses for clip in clips]) * np.float32([1, -1, -1])
    return poses - poses[:, :1]


ANCHORS = standing(3)


def frames(pose, count=4):
    """Keypoints of a pose that moves to the right, and where its root is."""
    root = np.float32([0.1, 0.05, 4.0]) + np.arange(count)[:, None] * np.float32([0.02, 0, 0])
    return np.array(project(CAMERA, pose + root[:, None])), root


def write_files(folder, config=CONFIG):
    """Writes prior.npz, whose network says that there is no noise, and anchors.npz."""
    system = make_system(config, {"anchors": ANCHORS})
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "out" in str(path) else x,
        jax.jit(system.init)(jax.random.key(0)),
    )
    write_prior(folder / "prior.npz", variables, config, source="a test")
    anchors = Anchors(ANCHORS, H36M_17.joints, np.ones(len(ANCHORS), int), "a test")
    write_anchors(folder / "anchors.npz", anchors)
    return {"checkpoint": folder / "prior.npz", "anchors": folder / "anchors.npz"}
