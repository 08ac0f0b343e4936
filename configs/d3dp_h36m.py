"""D3DP on Human3.6M: the released recipe, for those who hold the files of VideoPose3D.

Command:  python -m experiments.train --config=configs/d3dp_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/d3dp_h36m
          python -m experiments.evaluate --checkpoint=runs/d3dp_h36m \
              --num_hypotheses=20 --sampler=num_steps=10
Hardware: one GPU; not run by us.
          Sampling 4 chains of 243 frames at a time (`sampler.max_chains`) takes 3.5 GiB on a CPU.
Expected: DDHPose's paper reports 39.5 mm at H = 20, W = 10 (CPN keypoints; by J-Agg at the true
          root).

Arguments, joined by commas: `cpn` or `gt` (keypoints), `heldout` (subject S8 chooses the
checkpoint instead of being trained on; the release trains on all five and chooses by the test
subjects), `small` (27 frames, width 64, depth 4), `tiny`.
Also those of `configs/occluded.py`, which hide joints.
"""

from ml_collections import ConfigDict

from configs import occluded


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = ConfigDict()
    config.system = "d3dp"
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
    config.process = ConfigDict({"schedule": "cosine", "num_timesteps": 1000, "clip": 1.1})
    config.loss = ConfigDict({"gradient": "plain"})
    config.sampler = ConfigDict({"num_steps": 1, "eta": 1.0, "flip": True, "max_chains": 4})
    config.data = ConfigDict(
        {
            "kind": "human36m",
            "root": "",
            "frames": 243,
            "keypoints": "gt",
            "heldout_subjects": (),
            "test_actions": (),
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 6e-5,
            "weight_decay": 0.1,
            "schedule": "exponential",
            "decay_rate": 0.993,
            "warmup_steps": 0,
        }
    )
    config.training = ConfigDict(
        {
            "batch_size": 4,
            # 400 epochs of about 3,360 batches.
            "num_steps": 1_344_000,
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
    config.sampler.max_chains = 512
    config.data.frames = 27
    config.optimizer.update(learning_rate=1e-3, schedule="cosine", warmup_steps=100)
    config.training.update(batch_size=32, num_steps=6000, eval_every=2000)
    config.evaluation.batch_size = 64


def _cpn(config: ConfigDict) -> None:
    config.data.keypoints = "cpn"


def _heldout(config: ConfigDict) -> None:
    config.data.heldout_subjects = ("S8",)


def _tiny(config: ConfigDict) -> None:
    config.model.update(num_frames=9, width=16, depth=2, num_heads=2)
    config.process.num_timesteps = 10
    config.sampler.max_chains = 0
    config.data.frames = 9
    config.training.update(batch_size=8, num_steps=4, log_every=2, save_every=2, eval_every=2)
    config.evaluation.batch_size = 8


_VARIANTS = {
    "gt": lambda config: None,
    "cpn": _cpn,
    "heldout": _heldout,
    "small": _small,
    "tiny": _tiny,
    **occluded.VARIANTS,
}
