"""Variants of the configs of window systems: joints hidden in training and in evaluation.

`occluded_random`, `occluded_leg_and_arm`, `occluded_consecutive_leg`, `occluded_consecutive_frames`
and `occluded_all` hide 2D joints as DiffHPE does (its section 5.3), at the published rates;
`occluded_none` hides none. Fields of `data.Occlusion` are flags, such as
`--config.data.occlusion.draw=bernoulli`. `visibility` shows the network in a third channel which
joints are seen.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

RATES = {
    "none": 0.0,
    "random": 0.2,
    "leg_and_arm": 0.4,
    "consecutive_leg": 0.4,
    "consecutive_frames": 0.2,
    # Has those of the others.
    "all": 0.0,
}


def _hide(pattern: str) -> Callable[[ConfigDict], None]:
    def change(config: ConfigDict) -> None:
        config.data.occlusion = ConfigDict(
            {
                "pattern": pattern,
                "rate": RATES[pattern],
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
    **{f"occluded_{pattern}": _hide(pattern) for pattern in RATES},
    "visibility": _visibility,
}
