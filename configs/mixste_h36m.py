"""MixSTE on Human3.6M: the released recipe, for those who hold the files of VideoPose3D.

But for the gradient: the release's is `--config.loss.gradient=loss_times`.

Command:  python -m experiments.train --config=configs/mixste_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/mixste_h36m
          python -m experiments.evaluate --checkpoint=runs/mixste_h36m --windows=shift_twice
Hardware: one GPU; not run by us.
Expected: the authors report 40.9 mm (CPN keypoints).

Arguments, joined by commas: `cpn` or `gt` (keypoints), `heldout` (subject S8 chooses the
checkpoint instead of being trained on; the release trains on all five and chooses by the test
subjects: `select_on_test`), `small` (27 frames, width 64, depth 4), `tiny`, and `diffhpe`, see
`mixste_cmu`.
"""

from ml_collections import ConfigDict

from configs import mixste_cmu, windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = windows.human36m(mixste_cmu.published(), num_steps=120 * windows.HUMAN36M_EPOCH)
    return apply_variants(config, arg, VARIANTS)


VARIANTS = {**windows.HUMAN36M, **mixste_cmu.VARIANTS}
