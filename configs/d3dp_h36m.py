"""D3DP on Human3.6M: the released recipe, for those who hold the files of VideoPose3D.

But for the gradient: the release's is `--config.loss.gradient=loss_times`.

Command:  python -m experiments.train --config=configs/d3dp_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/d3dp_h36m
          python -m experiments.evaluate --checkpoint=runs/d3dp_h36m \
              --num_hypotheses=20 --sampler=num_steps=10 --windows=shift_twice
Hardware: one GPU; not run by us.
          Sampling one chain of 243 frames at a time (`sampler.max_chains`) takes 1.7 GiB on a CPU.
Expected: DDHPose's paper reports 39.5 mm at H = 20, W = 10 (CPN keypoints; by J-Agg at the true
          root).

Arguments, joined by commas: `cpn` or `gt` (keypoints), `heldout` (subject S8 chooses the
checkpoint instead of being trained on; the release trains on all five and chooses by the test
subjects: `select_on_test`), `small` (27 frames, width 64, depth 4), `tiny`.
"""

from ml_collections import ConfigDict

from configs import d3dp_cmu, windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = windows.human36m(d3dp_cmu.published(), num_steps=400 * windows.HUMAN36M_EPOCH)
    return apply_variants(config, arg, VARIANTS)


VARIANTS = {**windows.HUMAN36M, **d3dp_cmu.VARIANTS}
