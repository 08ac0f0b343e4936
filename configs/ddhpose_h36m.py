"""DDHPose on Human3.6M: the released recipe, for those who hold the files of VideoPose3D.

But for the gradient: the release's is `--config.loss.gradient=loss_times`.

Command:  python -m experiments.train --config=configs/ddhpose_h36m.py:cpn \
              --config.data.root=DIR --workdir=runs/ddhpose_h36m
          python -m experiments.evaluate --checkpoint=runs/ddhpose_h36m \
              --num_hypotheses=20 --sampler=num_steps=10 --windows=shift_twice
Hardware: one GPU; not run by us.
          Sampling one chain of 243 frames at a time (`sampler.max_chains`) takes 1.7 GiB on a CPU.
Expected: the authors report 39.7 mm at H = W = 1 and 39.0 mm at H = 20, W = 10 (CPN keypoints; the
          latter by J-Agg at the true root).

Arguments, joined by commas: `cpn` or `gt` (keypoints), `heldout` (subject S8 chooses the
checkpoint instead of being trained on; the release trains on all five and chooses by the test
subjects: `select_on_test`), `small` (27 frames, width 64, depth 4), `tiny`.
Ablations of the paper: `pose_input`, `bone_output` (Table 4), `no_levels`, `no_hrst`, `no_hrtt`
(Table 5), `position_only`, `printed_loss` (Table 6).
"""

from ml_collections import ConfigDict

from configs import ddhpose_cmu, windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = windows.human36m(ddhpose_cmu.published(), num_steps=400 * windows.HUMAN36M_EPOCH)
    return apply_variants(config, arg, VARIANTS)


VARIANTS = {**windows.HUMAN36M, **ddhpose_cmu.VARIANTS}
