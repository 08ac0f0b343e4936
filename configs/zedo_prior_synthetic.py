"""ZeDO's pose prior on the embedded procedural motion, small enough for two CPU cores.

Command:  python -m experiments.train --config=configs/zedo_prior_synthetic.py --workdir=DIR
          python -m experiments.plausibility --checkpoint=DIR
          python -m experiments.anchors --config=configs/zedo_prior_synthetic.py --output=FILE
Hardware: 2 CPU cores, 30 minutes.
Expected: see experiments/README.md.

The argument names variants, joined by commas: `configs/zedo_prior_synthetic.py:cmu17,ddpm` (with
`--config.data.root=DIR`). `ddpm` lifts by ancestral steps with their noise, as Table 5 has it; give
`--sampler=noisy=False` to `experiments.evaluate` for the same steps without. `norotation` turns no
pose in training. `tiny` shrinks everything to seconds, for tests. `published` has the published
network (width 1024, embedding 512, dropout 0.25), which had 5000 epochs of batches of 50000 poses
at 2e-4.
"""

from ml_collections import ConfigDict

from configs.variants import apply_variants


def get_config(arg: str = "") -> ConfigDict:
    """The config of a run; `arg` names variants."""
    config = ConfigDict()
    config.system = "zedo"
    config.skeleton = "h36m_17"
    config.seed = 0
    config.model = ConfigDict(
        {"width": 512, "embedding": 256, "num_blocks": 2, "groups": 32, "dropout": 0.0}
    )
    config.process = ConfigDict({"name": "subvp", "num_steps": 1000})
    config.loss = ConfigDict({"flip_prob": 0.5, "rotation_prob": 0.5})
    config.sampler = ConfigDict(
        {"starts": "anchors", "fit_iterations": 500, "num_iterations": 1000, "max_chains": 640}
    )
    config.data = ConfigDict(
        {
            "kind": "procedural",
            "root": "",
            "train_clips": 280,
            "test_clips": 70,
            "frames_per_clip": 60,
            "train_views": 4,
        }
    )
    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup_steps": 200,
            "clip_norm": 1.0,
        }
    )
    # The released ramp, min(beta, (1 + n) / (10 + n)) after update n, for a shorter run.
    config.ema = ConfigDict(
        {
            "beta": 0.999,
            "update_every": 1,
            "update_after_step": -2,
            "inv_gamma": 9.0,
            "power": 1.0,
        }
    )
    config.training = ConfigDict(
        {
            "batch_size": 256,
            "num_steps": 30_000,
            "log_every": 100,
            "save_every": 1000,
            "eval_every": 0,
        }
    )
    config.evaluation = ConfigDict({"num_hypotheses": 5, "train_hypotheses": 1, "batch_size": 128})
    return apply_variants(config, arg, _VARIANTS)


def _tiny(config: ConfigDict) -> None:
    config.model.update(width=32, embedding=8, num_blocks=1, groups=4)
    config.process.num_steps = 25
    config.sampler.update(fit_iterations=5, num_iterations=5)
    config.data.update(train_clips=7, test_clips=7, frames_per_clip=8, train_views=1)
    config.optimizer.warmup_steps = 2
    config.training.update(batch_size=16, num_steps=10, log_every=5, save_every=5)
    config.evaluation.update(num_hypotheses=2, batch_size=16)


def _cmu17(config: ConfigDict) -> None:
    """The same on real motion."""
    config.data.update(kind="cmu17", train_views=4)


def _ddpm(config: ConfigDict) -> None:
    """The noisy backbone of Table 5; the same weights are the other one, DDIM (`zedo_tables`)."""
    config.process.name = "ddpm"
    # What tells DDPM from DDIM; the released loop, of score networks, leaves noise out.
    config.sampler.noisy = True


_VARIANTS = {
    "cmu17": _cmu17,
    "ddpm": _ddpm,
    "norotation": lambda config: config.loss.update(rotation_prob=0.0),
    "published": lambda config: config.model.update(width=1024, embedding=512, dropout=0.25),
    "tiny": _tiny,
}
