"""MixSTE on Human3.6M: the released recipe, for those who hold the files of VideoPose3D.

Command:  python -m experiments.train --config=configs/mixste_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/mixste_h36m
          python -m experiments.evaluate --checkpoint=runs/mixste_h36m
Hardware: one GPU; not run by us.
Expected: the authors report 40.9 mm (CPN keypoints).

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
            # 120 epochs of about 3,360 batches.
            "num_steps": 403_200,
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
