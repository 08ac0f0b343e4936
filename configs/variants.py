"""Variants of a config, named after the colon: `--config=configs/ddhpose_cmu.py:small,no_hrst`."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict


def select_on_test(config: ConfigDict) -> None:
    """Chooses the checkpoint by the test set, as released; all training subjects are trained on."""
    config.evaluation.select_on = "test"
    for name in ("heldout_every", "heldout_subjects"):
        if name in config.data:
            config.data[name] = type(config.data[name])()


def apply_variants(
    config: ConfigDict, arg: str, variants: Mapping[str, Callable[[ConfigDict], object]]
) -> ConfigDict:
    """Applies the variants that `arg` names, in the order of the table, and locks the config."""
    names = list(filter(None, arg.split(",")))
    for name in names:
        if name not in variants:
            raise ValueError(f"config argument: expected some of {sorted(variants)}, got {name!r}")
    for name, change in variants.items():
        if name in names:
            change(config)
    return config.lock()
