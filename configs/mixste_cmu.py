"""MixSTE on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/mixste_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/mixste_cmu
          python -m experiments.evaluate --checkpoint=runs/mixste_cmu
Hardware: `small`: 2 CPU cores, 15 minutes. Without it the published size, for a GPU.
Expected: see experiments/README.md.

Arguments, joined by commas: `small` (27 frames, width 64, depth 4), `tiny` (seconds, for tests).
Also those of `configs/occluded.py`, which hide joints.
"""

from ml_collections import ConfigDict

from configs import occluded


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = ConfigDict()
    config.system = "mixste"
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
    config.loss = ConfigDict(
        {
            "gradient": "plain",
            "joint_weights": "mixste",
            "smoothness_weight": 0.5,
            "velocity_weight": 2.0,
        }
    )
    config.sampler = ConfigDict({"flip": True, "zero_root": True})
    config.data = ConfigDict(
        {
            "kind": "cmu17",
            "root": "",
            "frames": 243,
            "heldout_every": 12,
            "frames_per_clip": 243,
            "train_views": 12,
            "body_spread": 0.0,
            "noise_px": 0.0,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 4e-5,
            "weight_decay": 0.1,
            "schedule": "exponential",
            "decay_rate": 0.99,
            "warmup_steps": 0,
        }
    )
    config.training = ConfigDict(
        {
            "batch_size": 4,
            # 120 epochs of about 900 batches.
            "num_steps": 108_000,
            "log_every": 200,
            "save_every": 2000,
            "eval_every": 20_000,
        }
    )
    config.evaluation = ConfigDict({"num_hypotheses": 1, "train_hypotheses": 1, "batch_size": 4})
    for name in filter(None, arg.split(",")):
        if name not in _VARIANTS:
            raise ValueError(f"config argument: expected some of {sorted(_VARIANTS)}, got {name!r}")
        _VARIANTS[name](config)
    return config.lock()


def _small(config: ConfigDict) -> None:
    config.model.update(num_frames=27, width=64, depth=4)
    config.data.update(frames=27, frames_per_clip=81)
    config.optimizer.update(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    config.training.update(batch_size=32, num_steps=6000, eval_every=2000)
    config.evaluation.batch_size = 64


def _tiny(config: ConfigDict) -> None:
    config.model.update(num_frames=9, width=16, depth=2, num_heads=2)
    config.data.update(frames=9, frames_per_clip=18, train_views=1)
    config.training.update(batch_size=8, num_steps=4, log_every=2, save_every=2, eval_every=2)
    config.evaluation.batch_size = 8


_VARIANTS = {
    "small": _small,
    "tiny": _tiny,
    **occluded.VARIANTS,
}
