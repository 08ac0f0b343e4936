"""DiffHPE-2D on Human3.6M: the published recipe, for those who hold the files of VideoPose3D.

Command:  python -m experiments.train --config=configs/diffhpe_2d_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/diffhpe_2d_h36m
          python -m experiments.evaluate --checkpoint=runs/diffhpe_2d_h36m
Hardware: one GPU; not run by us.
Expected: the authors report 51.8 mm (CPN keypoints, H = 5), with a symmetry gap and a deviation
          of segment lengths of 7.0 mm and 2.1 mm.

Subject S8 chooses the checkpoint; the release trains on all five subjects and chooses by the test
subjects (`select_on_test`). Arguments as of `diffhpe_2d_cmu`, and `cpn` or `gt` (keypoints),
`all_subjects` (nothing held out, so the newest checkpoint is the one to use).
"""

from ml_collections import ConfigDict

from configs import diffhpe_2d_cmu, windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    return apply_variants(human36m(diffhpe_2d_cmu.published()), arg, VARIANTS)


def human36m(config: ConfigDict) -> ConfigDict:
    """DiffHPE's recipe on Human3.6M: 1000 epochs of about 300 batches."""
    windows.human36m(config, num_steps=300_000)
    config.data.update(mirrored=False, heldout_subjects=("S8",))
    # An evaluation after each fifth epoch.
    config.training.eval_every = 1500
    return config


def all_subjects(config: ConfigDict) -> None:
    """Trains on all five, as the release does."""
    config.data.heldout_subjects = ()
    if config.optimizer.schedule == "plateau" and config.evaluation.get("select_on") != "test":
        # Nothing is evaluated that a plateau could be seen in.
        config.optimizer.schedule = "constant"


VARIANTS = {
    **windows.HUMAN36M,
    **diffhpe_2d_cmu.VARIANTS,
    # After what chooses schedule and selection.
    "all_subjects": all_subjects,
}
