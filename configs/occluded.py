"""Variants of the configs of window systems: joints hidden in training and in evaluation.

`occluded_random`, `occluded_leg_and_arm`, `occluded_consecutive_leg`, `occluded_consecutive_frames`
and `occluded_all` hide 2D joints as DiffHPE does (its section 5.2), at the published rates;
`occluded_none` hides none. Fields of `data.Occlusion` are flags, such as
`--config.data.occlusion.draw=bernoulli`. `visibility` shows the network in a third channel which
joints are seen.
"""

from collections.abc import Callable

from ml_collections import ConfigDict, config_dict

PATTERNS = ("none", "random", "leg_and_arm", "consecutive_leg", "consecutive_frames", "all")


def _hide(pattern: str) -> Callable[[ConfigDict], None]:
    def change(config: ConfigDict) -> None:
        config.data.occlusion = ConfigDict(
            {
                "pattern": pattern,
                # The published one of the pattern, whichever a flag names.
                "rate": config_dict.placeholder(float),
                "span": 0,
                "draw": "exact",
                "starts": "official",
                "missing": "zero_screen",
            }
        )

    return change


def _visibility(config: ConfigDict) -> None:
    config.model.visibility = True


VARIANTS = {
    **{f"occluded_{pattern}": _hide(pattern) for pattern in PATTERNS},
    "visibility": _visibility,
}
