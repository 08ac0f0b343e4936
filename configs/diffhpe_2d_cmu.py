"""DiffHPE-2D on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/diffhpe_2d_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/diffhpe_2d_cmu
          python -m experiments.evaluate --checkpoint=runs/diffhpe_2d_cmu
Hardware: `small`: 10 minutes of one CPU core. Without it the published size, for a GPU.
Expected: see experiments/README.md.

The paper's recipe (Table 1), with the rules of the release; but training clips that are held out
choose the checkpoint and halve the learning rate, where the paper takes the test set for both, and
windows begin at multiples of their length, where the release draws their starts.

Arguments, joined by commas: `frames243` (the long windows of Table 3), `small` (4 blocks), `tiny`
(seconds, for tests); and those of `configs/occluded.py`, which hide joints (Table 4) and show which
are seen.
"""

from ml_collections import ConfigDict

from configs import occluded, windows
from configs.variants import apply_variants, select_on_test


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    return apply_variants(published(), arg, VARIANTS)


def published() -> ConfigDict:
    """The published recipe, on `cmu17`."""
    config = ConfigDict()
    config.system = "diffhpe_2d"
    config.skeleton = "h36m_17"
    config.seed = 0
    config.model = ConfigDict(
        {
            "num_frames": 27,
            "width": 64,
            "num_blocks": 16,
            "step_width": 128,
            "dropout": 0.032,
            "condition": "keypoints",
            "grouping": "official",
            # What guidance is told less of, and what share of it.
            "dropped": "condition",
            "dropped_share": 1.0,
            "dtype": "float32",
        }
    )
    config.process = ConfigDict({"schedule": "cosine", "num_timesteps": 50, "beta_end": 0.5})
    config.loss = ConfigDict({"time_weight": 0.0, "side_weight": 0.0, "unconditional": 0.0})
    config.sampler = ConfigDict(
        {"name": "ddpm", "num_steps": 10, "eta": 1.0, "guidance": 0.0, "max_chains": 320}
    )
    config.data = windows.cmu17(frames=27)
    config.data.mirrored = False
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 8.083464402314577e-4,
            "weight_decay": 1e-6,
            # Halved after 12 evaluations, 60 epochs, without a gain of a tenth.
            "schedule": "plateau",
            "patience": 11,
            "threshold": 0.1,
            "warmup_steps": 0,
        }
    )
    config.training = ConfigDict(
        {
            "batch_size": 200,
            # 1000 epochs of about 80 batches, an evaluation after each fifth.
            "num_steps": 80_000,
            "log_every": 100,
            "save_every": 2000,
            "eval_every": 400,
        }
    )
    config.evaluation = ConfigDict({"num_hypotheses": 5, "train_hypotheses": 1, "batch_size": 64})
    return config


def _frames243(config: ConfigDict) -> None:
    config.model.num_frames = config.data.frames = 243
    config.training.batch_size = 22
    config.sampler.max_chains = 40
    config.evaluation.batch_size = 8


def _small(config: ConfigDict) -> None:
    config.model.num_blocks = 4
    config.optimizer.update(learning_rate=2e-3, schedule="cosine", warmup_steps=100)
    config.data.mirrored = True
    if config.data.kind == "cmu17":
        # As of the other networks over windows: cameras that follow shorter pieces.
        config.data.frames_per_clip = max(81, config.data.frames)
    if config.data.frames == 27:
        config.sampler.max_chains, config.training.batch_size = 512, 8
    config.training.update(num_steps=9500, eval_every=3000)


def _tiny(config: ConfigDict) -> None:
    config.model.update(num_frames=9, width=8, num_blocks=2, step_width=16)
    config.process.num_timesteps = 6
    config.sampler.update(name="ddpm", num_steps=3, max_chains=0)
    config.data.frames = 9
    if config.data.kind == "cmu17":
        config.data.update(frames_per_clip=18, train_views=1)
    config.training.update(batch_size=8, num_steps=4, log_every=2, save_every=2, eval_every=2)
    config.evaluation.batch_size = 8


VARIANTS = {
    "frames243": _frames243,
    "small": _small,
    "tiny": _tiny,
    **occluded.VARIANTS,
    "select_on_test": select_on_test,
}
