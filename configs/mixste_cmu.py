"""MixSTE on real motion: CMU motion capture seen by virtual cameras.

Command:  python -m experiments.train --config=configs/mixste_cmu.py:small \
              --config.data.root=../shared/data/cmu17 --workdir=runs/mixste_cmu
          python -m experiments.evaluate --checkpoint=runs/mixste_cmu
Hardware: `small` takes 0.06 s of one CPU core per update where memory is kept ("Speed on a CPU" in
          experiments/README.md). Without it the published size, for a GPU.
Expected: see experiments/README.md.

Arguments, joined by commas: `small` (27 frames, width 64, depth 4), `tiny` (seconds, for tests),
`diffhpe` (27 frames, width 64, depth 8, and the plain loss, without flipping: the lifter that
DiffHPE-Wrapper is built on, on batches of 25 windows), `diffhpe,weighted` (that, with the loss of
MixSTE and its flipping in the test), `frames243` (either, on DiffHPE's long windows); and those of
`configs/occluded.py`.
"""

from ml_collections import ConfigDict

from configs import windows
from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    return apply_variants(published(), arg, VARIANTS)


def published() -> ConfigDict:
    """The released recipe, on `cmu17`."""
    config = windows.published("mixste", learning_rate=4e-5, decay_rate=0.99, epochs=120)
    config.loss = ConfigDict(
        {
            "gradient": "plain",
            "joint_weights": "mixste",
            "smoothness_weight": 0.5,
            "velocity_weight": 2.0,
        }
    )
    config.sampler = ConfigDict({"flip": True, "zero_root": True})
    return config


def _diffhpe(config: ConfigDict) -> None:
    config.model.update(num_frames=27, width=64)
    config.data.update(frames=27, mirrored=False)
    config.loss.update(
        joint_weights="uniform", position="squared", smoothness_weight=0.0, velocity_weight=0.0
    )
    config.sampler.update(flip=False, zero_root=False)
    config.optimizer.update(name="adam", weight_decay=1e-6, schedule="plateau")
    # 500 epochs, not 120, of windows a ninth as long and not mirrored.
    num_steps = config.training.num_steps * 4 * 9 * 500 // (25 * 120 * 2)
    # An evaluation after each fifth epoch, by which the rate is halved.
    config.training.update(batch_size=25, num_steps=num_steps, eval_every=num_steps // 100)
    if config.data.kind == "human36m":
        config.data.heldout_subjects = ("S8",)
    config.evaluation.batch_size = 64


def _frames243(config: ConfigDict) -> None:
    config.model.num_frames = config.data.frames = 243
    config.training.batch_size = 3
    config.evaluation.batch_size = 8


def _weighted(config: ConfigDict) -> None:
    plain = published()
    config.loss, config.sampler.flip = plain.loss, plain.sampler.flip


def _small(config: ConfigDict) -> None:
    windows.SIZES["small"](config)
    if "mirrored" in config.data:
        # As `diffhpe_2d_cmu:small`, so that a lifter and what is built on it see the same windows.
        config.data.mirrored = True


# The sizes come last, and change what they change of it.
VARIANTS = {
    "diffhpe": _diffhpe,
    "weighted": _weighted,
    "frames243": _frames243,
    **windows.SIZES,
    "small": _small,
}
