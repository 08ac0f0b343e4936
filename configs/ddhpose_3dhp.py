"""DDHPose on MPI-INF-3DHP, for those who hold its `.mat` files or the npz files of D3DP.

Command:  python -m experiments.train --config=configs/ddhpose_3dhp.py \
              --config.data.root=DIR --workdir=runs/ddhpose_3dhp
          python -m experiments.evaluate --checkpoint=runs/ddhpose_3dhp --windows=shift
Hardware: one GPU; not run by us.
          Sampling 4 chains of 243 frames at a time (`sampler.max_chains`) takes 3.5 GiB on a CPU.
Expected: the authors report PCK 98.5, AUC 78.1, MPJPE 29.2 mm at H = W = 1 (2D ground truth,
          annot3, the plain mean of the six sequences).

The loss is taken in millimetres, as released for this data set: the term of bone lengths then
outweighs the others.

Arguments, joined by commas: `heldout` (subject S8 chooses the checkpoint instead of being trained
on; the release trains on all eight and chooses by the test sequences: `select_on_test`),
`universal` (trains on univ_annot3, all bodies scaled to one skeleton, and is scored by it),
`metres` (the loss as on Human3.6M), `small` (27 frames, width 64, depth 4), `tiny`.
Ablations of the paper: `pose_input`, `bone_output` (Table 4), `no_levels`, `no_hrst`, `no_hrtt`
(Table 5), `position_only`, `printed_loss` (Table 6).
"""

from ml_collections import ConfigDict

from configs import ddhpose_cmu, windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = windows.mpi_inf_3dhp(
        ddhpose_cmu.published(), num_steps=400 * windows.MPI_INF_3DHP_EPOCH
    )
    config.loss.loss_unit = 1000.0
    return apply_variants(config, arg, VARIANTS)


VARIANTS = {
    "heldout": lambda config: config.data.update(heldout_subjects=("S8",)),
    "universal": lambda config: config.data.update(annotation="univ_annot3"),
    "metres": lambda config: config.loss.update(loss_unit=1.0),
    **ddhpose_cmu.VARIANTS,
}
