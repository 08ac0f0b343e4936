"""DiffuPose small enough for two CPU cores: the config of `experiments.quickstart`.

Command:  python -m experiments.quickstart [--data=DIR]
Hardware: 2 CPU cores, at most 6 minutes for the whole command.
Expected: see the tables in README.md.

`get_config("tiny")` shrinks everything to seconds, for tests.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The quickstart's config; `arg` is "" or "tiny"."""
    if arg not in ("", "tiny"):
        raise ValueError(f"config argument: expected '' or 'tiny', got {arg!r}")
    tiny = arg == "tiny"
    config = ConfigDict()
    config.system = "diffupose"
    config.skeleton = "h36m_17"
    config.seed = 0
    config.model = ConfigDict({"width": 32 if tiny else 64, "num_blocks": 1 if tiny else 2})
    config.process = ConfigDict({"schedule": "cosine", "num_timesteps": 100})
    config.loss = ConfigDict({"joint_weights": "diffupose", "condition_weight": 0.8})
    config.sampler = ConfigDict(
        {"name": "ddim", "num_steps": 2 if tiny else 10, "flip": True, "max_chains": 512}
    )
    config.data = ConfigDict(
        {
            # Of the embedded procedural motion; with --data the clips of the folder are used.
            "train_clips": 7 if tiny else 280,
            "val_clips": 7 if tiny else 70,
            "frames_per_clip": 8 if tiny else 60,
            "train_views": 1 if tiny else 4,
            "noise_px": 0.0,
            # Poses that are scored, evenly spread over the unseen clips.
            "scored_poses": 16 if tiny else 512,
        }
    )
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 3e-3, "schedule": "cosine", "warmup_steps": 0}
    )
    # DiffuPose's average over a shorter run: every update from the start.
    config.ema = ConfigDict({"beta": 0.995, "update_every": 1, "update_after_step": 100})
    config.training = ConfigDict(
        {
            "batch_size": 16 if tiny else 128,
            "num_steps": 10 if tiny else 6000,
            "log_every": 5 if tiny else 100,
            "save_every": 10 if tiny else 1000,
        }
    )
    config.num_hypotheses = 10
    return config.lock()
