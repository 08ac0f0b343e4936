"""DiffuPose on Human3.6M: the released recipe, for those who hold the files of VideoPose3D.

Command:  python -m experiments.train --config=configs/diffupose_h36m.py:hrnet \
              --config.data.root=DIR --workdir=runs/diffupose_h36m
          python -m experiments.evaluate --checkpoint=runs/diffupose_h36m
          python -m experiments.evaluate --checkpoint=runs/diffupose_h36m \
              --protocol=diffupose_official
Hardware: the authors name 12 hours on one RTX A5000; not run by us.
Expected: the authors report 49.4 mm (HRNet, N = 10), 37.3 mm (ground-truth 2D), both with the true
          depth of the root (`diffupose_official`).

Arguments, joined by commas: `hrnet` (16 joints), `cpn` or `gt` (17 joints), `heldout` (subject S8
chooses the checkpoint instead of being trained on; the release trains on all five and takes the
last), `occluded_random` (see `configs/occluded.py`), `tiny`.
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
    config.model = ConfigDict(
        {"network": "gcn", "width": 384, "num_blocks": 4, "modulated": True, "dtype": "float32"}
    )
    config.process = ConfigDict({"schedule": "cosine", "num_timesteps": 100})
    config.loss = ConfigDict({"joint_weights": "diffupose", "condition_weight": 0.8})
    config.sampler = ConfigDict({"name": "ddpm", "flip": True, "max_chains": 4096})
    config.data = ConfigDict(
        {
            "kind": "human36m",
            "root": "",
            "keypoints": "gt",
            "heldout_subjects": (),
            "test_actions": (),
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 4e-5,
            "schedule": "constant",
            "accumulate_steps": 2,
        }
    )
    config.ema = ConfigDict({"beta": 0.995, "update_every": 10, "update_after_step": 100})
    config.training = ConfigDict(
        {
            "batch_size": 1024,
            # 310,000 updates of two batches.
            "num_steps": 620_000,
            "log_every": 200,
            "save_every": 2000,
            "eval_every": 20_000,
        }
    )
    config.evaluation = ConfigDict(
        {"num_hypotheses": 10, "train_hypotheses": 1, "batch_size": 1024}
    )
    return apply_variants(config, arg, _VARIANTS)


def _hrnet(config: ConfigDict) -> None:
    config.skeleton = "h36m_16"
    config.data.keypoints = "hrnet"


def _cpn(config: ConfigDict) -> None:
    config.data.keypoints = "cpn"


def _heldout(config: ConfigDict) -> None:
    config.data.heldout_subjects = ("S8",)


def _tiny(config: ConfigDict) -> None:
    config.model.update(width=32, num_blocks=1)
    config.process.num_timesteps = 4
    config.training.update(batch_size=64, num_steps=4, log_every=2, save_every=2, eval_every=2)
    config.evaluation.update(num_hypotheses=2, batch_size=64)


_VARIANTS = {
    "gt": lambda config: None,
    "hrnet": _hrnet,
    "cpn": _cpn,
    "heldout": _heldout,
    # Of one frame there is nothing else to hide.
    "occluded_random": occluded.VARIANTS["occluded_random"],
    "tiny": _tiny,
}
