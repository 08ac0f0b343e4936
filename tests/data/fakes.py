"""Small data sets for the tests of this folder."""

import numpy as np

from posediff_jax.calibration import make_camera
from posediff_jax.data.sequences import PoseSequence, PoseSequences
from posediff_jax.skeleton import H36M_17


def sequence(name="walk", frames=4, *, seed=0, skeleton=H36M_17, **changes):
    """A person of random joints about 5 m from a camera with all of its parameters set."""
    rng = np.random.default_rng(seed)
    joints = skeleton.num_joints
    pose = rng.normal(0.0, 0.4, (frames, joints, 3)).astype(np.float32)
    pose -= pose[:, skeleton.root : skeleton.root + 1]
    fields = {
        "name": name,
        "subject": "anna",
        "action": "walk",
        "fps": 50.0,
        "keypoints_px": rng.uniform(0, 900, (frames, joints, 2)).astype(np.float32),
        "confidence": rng.uniform(0, 1, (frames, joints)).astype(np.float32),
        "camera": make_camera(
            np.float32([1100, 1110]),
            np.float32([480, 530]),
            (900, 1000),
            radial=np.float32([-0.2, 0.1, 0.01]),
            tangential=np.float32([0.002, -0.003]),
            orientation=np.float32([0.5, 0.5, -0.5, 0.5]),
            position=np.float32([1, 2, 3]),
        ),
        "pose": pose,
        "root": np.float32([0.1, 0.2, 5.0]) + rng.normal(0, 0.1, (frames, 3)).astype(np.float32),
    }
    return PoseSequence(**(fields | changes))


def sequences():
    """Three sequences of 5, 3 and 4 frames, two subjects, two actions."""
    return PoseSequences(
        (
            sequence("a", 5, seed=1, subject="zoe"),
            sequence("b", 3, seed=2, action="jump"),
            sequence("c", 4, seed=3),
        ),
        H36M_17,
    )
