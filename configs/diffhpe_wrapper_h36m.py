"""DiffHPE-Wrapper on Human3.6M: the published recipe, for those who hold the files of VideoPose3D.

Command:  python -m experiments.train --config=configs/diffhpe_wrapper_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/diffhpe_wrapper_h36m \
              --config.frozen.checkpoint=FOLDER
          python -m experiments.evaluate --checkpoint=runs/diffhpe_wrapper_h36m
Hardware: one GPU; not run by us.
Expected: the authors report 51.2 mm (CPN keypoints, H = 5), with a symmetry gap and a deviation
          of segment lengths of 12.4 mm and 3.2 mm.

FOLDER is a run of `mixste_h36m.py:cpn,diffhpe` (of the same keypoints), or an `.npz` file, see
`diffhpe_wrapper_cmu`.

Subject S8 chooses the checkpoint; the release trains on all five subjects and chooses by the test
subjects (`select_on_test`). Arguments as of `diffhpe_wrapper_cmu`, and `cpn` or `gt` (keypoints),
`all_subjects` (nothing held out, so the newest checkpoint is the one to use).
"""

from ml_collections import ConfigDict

from configs import diffhpe_2d_h36m, diffhpe_wrapper_cmu, windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = diffhpe_2d_h36m.human36m(diffhpe_wrapper_cmu.published())
    return apply_variants(config, arg, VARIANTS)


VARIANTS = {
    **windows.HUMAN36M,
    **diffhpe_wrapper_cmu.VARIANTS,
    "all_subjects": diffhpe_2d_h36m.all_subjects,
}
