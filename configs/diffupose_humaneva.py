"""DiffuPose on HumanEva-I by the paper's recipe; the released code cannot run this data set.

Command:  python -m experiments.train --config=configs/diffupose_humaneva.py \
              --config.data.root=DIR --workdir=runs/diffupose_humaneva
          python -m experiments.evaluate --checkpoint=runs/diffupose_humaneva --num_hypotheses=30
Hardware: not run by us.
Expected: the authors report P-MPJPE between 10.4 and 23.0 mm by subject and action (N = 30).

Train and validation sequences of S1 to S3, ground-truth 2D; Walking, Jog and Box are scored, each
subject by itself. The steps are those of Human3.6M: for the paper's 1000 epochs give
`--config.training.num_steps`, 1000 times the training items over 128. `occluded_random` hides
joints (see `configs/occluded.py`), `tiny` shrinks everything to seconds, for tests.
"""

from ml_collections import ConfigDict

from configs import diffupose_h36m


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    names = list(filter(None, arg.split(",")))
    if not set(names) <= {"occluded_random", "tiny"}:
        raise ValueError(
            f"config argument: expected some of ['occluded_random', 'tiny'], got {arg!r}"
        )
    config = diffupose_h36m.get_config(arg)
    with config.unlocked():
        config.skeleton = "humaneva_15"
        config.data.kind = "humaneva"
        config.data.test_actions = ("Walking", "Jog", "Box")
        config.optimizer.accumulate_steps = 1
        if "tiny" not in names:
            # The paper trains 1000 epochs; its files' number of frames says how many steps that is.
            config.training.batch_size = 128
            config.evaluation.num_hypotheses = 30
    return config.lock()
