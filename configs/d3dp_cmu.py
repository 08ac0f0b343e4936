"""D3DP on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/d3dp_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/d3dp_cmu
          python -m experiments.evaluate --checkpoint=runs/d3dp_cmu \
              --num_hypotheses=20 --sampler=num_steps=10
Hardware: `small` takes 0.06 s of one CPU core per update where memory is kept ("Speed on a CPU" in
          experiments/README.md). Without it the published size, for a GPU.
          Sampling one chain of 243 frames at a time (`sampler.max_chains`) takes 1.7 GiB on a CPU.
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
    config = windows.published("d3dp", learning_rate=6e-5, decay_rate=0.993, epochs=400)
    config.loss = ConfigDict({"gradient": "plain"})
    return windows.diffusion(config)


VARIANTS = windows.SIZES
