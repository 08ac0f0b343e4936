"""MixSTE on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/mixste_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/mixste_cmu
          python -m experiments.evaluate --checkpoint=runs/mixste_cmu
Hardware: `small`: 2 CPU cores, 15 minutes. Without it the published size, for a GPU.
Expected: see experiments/README.md.

Arguments, joined by commas: `small` (27 frames, width 64, depth 4), `tiny` (seconds, for tests).
"""

from ml_collections import ConfigDict

from configs import windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    return apply_variants(published(), arg, VARIANTS)


def published() -> ConfigDict:
    """The released recipe, on `cmu17`."""
    config = windows.published("mixste", learning_rate=4e-5, decay_rate=0.99, epochs=120)
    config.loss = ConfigDict(
        {
            "gradient": "plain",
            "joint_weights": "mixste",
            "smoothness_weight": 0.5,
            "velocity_weight": 2.0,
        }
    )
    config.sampler = ConfigDict({"flip": True, "zero_root": True})
    return config


VARIANTS = windows.SIZES
