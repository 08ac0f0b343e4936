"""DiffHPE-Wrapper on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/mixste_cmu.py:diffhpe,small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/mixste_l27
          python -m experiments.train --config=configs/diffhpe_wrapper_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/diffhpe_wrapper_cmu \
              --config.frozen.checkpoint=runs/mixste_l27
          python -m experiments.evaluate --checkpoint=runs/diffhpe_wrapper_cmu
Hardware: `small`: 10 minutes of one CPU core. Without it the published size, for a GPU.
Expected: see experiments/README.md.

`frozen.checkpoint` is the folder of a run of `mixste` with the frames and the size of
`model.lifter_*`, or an `.npz` file with a state dict of the authors (`np.savez(FILE, **weights)`).
The run's checkpoints hold the lifter, so it is needed for training only. Of the published size the
lifter is `mixste_cmu.py:diffhpe`, of the long windows `mixste_cmu.py:diffhpe,frames243`.

Arguments as of `diffhpe_2d_cmu`.
"""

from ml_collections import ConfigDict

from configs import diffhpe_2d_cmu
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    return apply_variants(published(), arg, VARIANTS)


def published() -> ConfigDict:
    """The published recipe, on `cmu17`."""
    return wrapped(diffhpe_2d_cmu.published())


def wrapped(config: ConfigDict) -> ConfigDict:
    """The recipe of DiffHPE-2D, told the features of a frozen lifter instead of keypoints."""
    config.system = "diffhpe_wrapper"
    config.frozen = ConfigDict({"checkpoint": ""})
    config.model.update(
        dropout=0.2703806090969092,
        condition="features",
        mix="concat",
        encode_pose=True,
        lifter="frozen",
        lifter_width=64,
        lifter_depth=8,
        lifter_heads=8,
    )
    config.optimizer.learning_rate = 2.701385346296177e-4
    return config


def _tiny(config: ConfigDict) -> None:
    diffhpe_2d_cmu.VARIANTS["tiny"](config)
    config.model.update(lifter_width=16, lifter_depth=2, lifter_heads=2)


def _small(config: ConfigDict) -> None:
    diffhpe_2d_cmu.VARIANTS["small"](config)
    # Of the lifter that `mixste_cmu:small` trains.
    config.model.lifter_depth = 4
    # With its lifter an update takes 1.4 times one of DiffHPE-2D.
    config.training.num_steps = 6500


VARIANTS = {**diffhpe_2d_cmu.VARIANTS, "small": _small, "tiny": _tiny}
