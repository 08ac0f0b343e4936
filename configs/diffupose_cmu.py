"""DiffuPose on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/diffupose_cmu.py \
              --config.data.root=../shared/data/cmu17 --workdir=runs/diffupose_cmu
          python -m experiments.evaluate --checkpoint=runs/diffupose_cmu
Hardware: 2 CPU cores, 30 minutes.
Expected: see experiments/README.md.

The argument names variants, joined by commas: `configs/diffupose_cmu.py:width256,linear`. Networks:
`width64`, `width128`, `width256`, `width384`, `vanilla` (graph convolution), `unet`, `modgcn` and
`mlp` (regression). `linear` (schedule), `constant` (learning rate), `occluded_random` (see
`configs/occluded.py`). `tiny` shrinks everything to seconds, for tests.
"""

from ml_collections import ConfigDict

from configs import occluded
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = ConfigDict()
    config.system = "diffupose"
    config.skeleton = "h36m_17"
    config.seed = 0
    config.model = ConfigDict({"network": "gcn", "width": 128, "num_blocks": 4, "modulated": True})
    config.process = ConfigDict({"schedule": "cosine", "num_timesteps": 100})
    config.loss = ConfigDict({"joint_weights": "diffupose", "condition_weight": 0.8})
    config.sampler = ConfigDict({"name": "ddim", "num_steps": 10, "flip": True, "max_chains": 512})
    config.data = ConfigDict(
        {
            "kind": "cmu17",
            "root": "",
            "frames": 1,
            "heldout_every": 12,
            # Four seconds under one camera: people walk away from the middle of the image.
            "frames_per_clip": 240,
            "train_views": 24,
            "body_spread": 0.0,
            "noise_px": 0.0,
            "detector": False,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "warmup_steps": 500,
            "clip_norm": 0.0,
        }
    )
    config.ema = ConfigDict({"beta": 0.999, "update_every": 1, "update_after_step": 100})
    config.training = ConfigDict(
        {
            "batch_size": 64,
            "num_steps": 54_000,
            "log_every": 200,
            "save_every": 3000,
            "eval_every": 6000,
        }
    )
    config.evaluation = ConfigDict({"num_hypotheses": 10, "train_hypotheses": 1, "batch_size": 128})
    names = set(filter(None, arg.split(",")))
    if names & {"mlp", "modgcn", "unet"} and "vanilla" in names:
        raise ValueError(f"config argument: 'vanilla' is a variant of DiffuPose's GCN, got {arg!r}")
    if names & {"mlp", "modgcn"} and "linear" in names:
        raise ValueError(f"config argument: regression has no schedule 'linear', got {arg!r}")
    # The table has networks first and `tiny` last.
    return apply_variants(config, arg, _VARIANTS)


def _tiny(config: ConfigDict) -> None:
    if config.model.get("network") != "unet":
        config.model.update(width=32, num_blocks=1)
    if "num_steps" in config.sampler:
        config.sampler.num_steps = 2
    config.data.update(train_views=1)
    config.optimizer.warmup_steps = 2
    config.training.update(batch_size=16, num_steps=10, log_every=5, save_every=5, eval_every=5)
    config.evaluation.batch_size = 16
    config.evaluation.num_hypotheses = min(2, config.evaluation.num_hypotheses)


def _mlp(config: ConfigDict) -> None:
    """Residual MLP regression."""
    config.system = "residual_mlp"
    config.model = ConfigDict({"width": 1024, "num_blocks": 2})
    _regression(config)


def _modgcn(config: ConfigDict) -> None:
    """Modulated-GCN regression of equal width."""
    config.system = "modgcn"
    config.model = ConfigDict({"variant": "gt", "width": 128, "num_blocks": 4})
    _regression(config)


def _unet(config: ConfigDict) -> None:
    """Our own baseline, of one size."""
    config.model = ConfigDict({"network": "unet"})


def _regression(config: ConfigDict) -> None:
    config.loss = ConfigDict({"mse": 0.0, "l1": 0.01, "mpjpe": 0.99})
    config.sampler = ConfigDict({"flip": True, "center": True})
    del config.process
    config.evaluation.update(num_hypotheses=1, train_hypotheses=1)


_VARIANTS = {
    "mlp": _mlp,
    "modgcn": _modgcn,
    "unet": _unet,
    "width64": lambda config: config.model.update(width=64),
    "width128": lambda config: config.model.update(width=128),
    "width256": lambda config: config.model.update(width=256),
    "width384": lambda config: config.model.update(width=384),
    "linear": lambda config: config.process.update(schedule="linear"),
    "vanilla": lambda config: config.model.update(modulated=False),
    # Of one frame there is nothing else to hide.
    "occluded_random": occluded.VARIANTS["occluded_random"],
    "constant": lambda config: config.optimizer.update(schedule="constant"),
    "tiny": _tiny,
}
