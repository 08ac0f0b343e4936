"""DDHPose on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/ddhpose_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/ddhpose_cmu
          python -m experiments.evaluate --checkpoint=runs/ddhpose_cmu \
              --num_hypotheses=20 --sampler=num_steps=10
Hardware: `small` takes 0.06 s of one CPU core per update where memory is kept ("Speed on a CPU" in
          experiments/README.md). Without it the published size, for a GPU.
          Sampling one chain of 243 frames at a time (`sampler.max_chains`) takes 1.7 GiB on a CPU.
Expected: see experiments/README.md.

Arguments, joined by commas: `small` (27 frames, width 64, depth 4), `tiny` (seconds, for tests).
Ablations of the paper: `pose_input`, `bone_output` (Table 4), `no_levels`, `no_hrst`, `no_hrtt`
(Table 5), `position_only`, `printed_loss` (Table 6).
"""

from ml_collections import ConfigDict

from configs import windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    return apply_variants(published(), arg, VARIANTS)


def published() -> ConfigDict:
    """The released recipe, on `cmu17`."""
    config = windows.published("ddhpose", learning_rate=1e-4, decay_rate=0.993, epochs=400)
    config.model.update(
        levels=True,
        hrst=True,
        hrtt=True,
        disentangled_input=True,
        disentangled_output=False,
    )
    config.loss = ConfigDict(
        {
            "gradient": "plain",
            "length_weight": 1.0,
            "direction_weight": 1.0,
            "bone_errors": "released",
        }
    )
    return windows.diffusion(config)


VARIANTS = {
    **windows.SIZES,
    "pose_input": lambda config: config.model.update(disentangled_input=False),
    "bone_output": lambda config: config.model.update(disentangled_output=True),
    "no_levels": lambda config: config.model.update(levels=False),
    "no_hrst": lambda config: config.model.update(hrst=False),
    "no_hrtt": lambda config: config.model.update(hrtt=False),
    "position_only": lambda config: config.loss.update(length_weight=0.0, direction_weight=0.0),
    "printed_loss": lambda config: config.loss.update(bone_errors="printed"),
}
