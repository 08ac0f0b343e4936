"""What the configs of MixSTE, D3DP and DDHPose share: networks of the published size over windows.

A config adds its system, its loss and its learning rate; `human36m` and `mpi_inf_3dhp` change the
data set. All take the variants of `configs/occluded.py`, which hide joints, and `select_on_test`:
the test set chooses the checkpoint, as in the releases, and figures on it are too good for that.
"""

from ml_collections import ConfigDict

from configs import occluded
from configs.variants import select_on_test

# Batches of an epoch, about: four windows of 243 frames each.
HUMAN36M_EPOCH = 3360
MPI_INF_3DHP_EPOCH = 2340


def published(system: str, *, learning_rate: float, decay_rate: float, epochs: int) -> ConfigDict:
    """243 frames, 8 layers of width 512, on `cmu17`; lacks loss and sampler."""
    config = ConfigDict()
    config.system = system
    config.skeleton = "h36m_17"
    config.seed = 0
    config.model = ConfigDict(
        {
            "num_frames": 243,
            "width": 512,
            "depth": 8,
            "num_heads": 8,
            "drop_path": 0.1,
            "dtype": "float32",
        }
    )
    config.data = cmu17(frames=243)
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": learning_rate,
            "weight_decay": 0.1,
            "schedule": "exponential",
            "decay_rate": decay_rate,
            "warmup_steps": 0,
        }
    )
    config.training = ConfigDict(
        {
            "batch_size": 4,
            # Epochs of about 900 batches.
            "num_steps": 900 * epochs,
            "log_every": 200,
            "save_every": 2000,
            "eval_every": 20_000,
        }
    )
    config.evaluation = ConfigDict({"num_hypotheses": 1, "train_hypotheses": 1, "batch_size": 4})
    return config


def cmu17(*, frames: int) -> ConfigDict:
    """Windows of `cmu17` seen by virtual cameras; every 12th clip is held out."""
    return ConfigDict(
        {
            "kind": "cmu17",
            "root": "",
            "frames": frames,
            "heldout_every": 12,
            "frames_per_clip": 243,
            "train_views": 12,
            "body_spread": 0.0,
            "noise_px": 0.0,
        }
    )


def diffusion(config: ConfigDict) -> ConfigDict:
    """Adds the process and the sampler of D3DP and DDHPose (H = W = 1)."""
    config.process = ConfigDict({"schedule": "cosine", "num_timesteps": 1000, "clip": 1.1})
    config.sampler = ConfigDict({"num_steps": 1, "eta": 1.0, "flip": True, "max_chains": 1})
    return config


def human36m(config: ConfigDict, *, num_steps: int) -> ConfigDict:
    """The same on Human3.6M."""
    config.data = ConfigDict(
        {
            "kind": "human36m",
            "root": "",
            "frames": config.data.frames,
            "keypoints": "gt",
            "heldout_subjects": (),
            "test_actions": (),
        }
    )
    config.training.num_steps = num_steps
    return config


def mpi_inf_3dhp(config: ConfigDict, *, num_steps: int) -> ConfigDict:
    """The same on MPI-INF-3DHP."""
    config.skeleton = "mpi_inf_3dhp_17"
    config.data = ConfigDict(
        {
            "kind": "mpi_inf_3dhp",
            "root": "",
            "frames": config.data.frames,
            "annotation": "annot3",
            "heldout_subjects": (),
        }
    )
    config.training.num_steps = num_steps
    return config


def _small(config: ConfigDict) -> None:
    config.model.update(num_frames=27, width=64, depth=4)
    _frames(config, 27, frames_per_clip=81)
    # Few windows and a high rate: what a quarter of an hour on a core lacks is updates.
    config.optimizer.update(learning_rate=5e-3, schedule="cosine", warmup_steps=100)
    config.training.update(batch_size=4, num_steps=7500, log_every=100, eval_every=2500)
    config.evaluation.batch_size = 64
    if "process" in config:
        config.sampler.max_chains = 512


def _tiny(config: ConfigDict) -> None:
    config.model.update(num_frames=9, width=16, depth=2, num_heads=2)
    _frames(config, 9, frames_per_clip=18, train_views=1)
    config.training.update(batch_size=8, num_steps=4, log_every=2, save_every=2, eval_every=2)
    config.evaluation.batch_size = 8
    if "process" in config:
        config.process.num_timesteps = 10
        config.sampler.max_chains = 0


def _frames(config: ConfigDict, frames: int, **of_virtual_cameras: int) -> None:
    config.data.frames = frames
    if config.data.kind == "cmu17":
        config.data.update(of_virtual_cameras)


# And which joints are hidden, and what chooses the checkpoint.
SIZES = {
    "small": _small,
    "tiny": _tiny,
    **occluded.VARIANTS,
    "select_on_test": select_on_test,
}
HUMAN36M = {
    "gt": lambda config: config.data.update(keypoints="gt"),
    "cpn": lambda config: config.data.update(keypoints="cpn"),
    "heldout": lambda config: config.data.update(heldout_subjects=("S8",)),
}
