"""What DiffHPE's studies of occlusion train and score: networks, hidden joints, data."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments.evaluate import file_name
from experiments.frozen import check_sizes
from experiments.runs import Model, digest, folder_of, make_config, scored

# Patterns of `data.occlusion` by the paper's names, in its order.
PATTERNS: Mapping[str, str] = {
    "none": "No occlusion",
    "random": "Random",
    "leg_and_arm": "Random leg and arm",
    "consecutive_leg": "Consecutive leg",
    "consecutive_frames": "Consecutive frames",
}
METRICS: Mapping[str, str] = {
    "mpjpe": "MPJPE",
    "symmetry_gap": "symmetry gap",
    "segment_std": "segment std",
}
# Hypotheses of each system, of which the mean is scored.
HYPOTHESES = {"mixste": 1, "diffhpe_2d": 5, "diffhpe_wrapper": 5}


class Setting(NamedTuple):
    """Where the configs of a data set are, and what they are scored on.

    Attributes:
      suffix: Of the configs' files.
      protocol: What is scored.
      variants: Of all configs.
      noise_px: Of the 2D joints in training.
      average: "frames", all alike; or "mean", that of the actions' means, as papers have it.
    """

    suffix: str
    protocol: str
    variants: str = ""
    noise_px: float = 0.0
    average: str = "frames"


DATA: Mapping[str, Setting] = {
    # Training sees the noise of the test.
    "cmu17": Setting("cmu", "cmu17-val-v1:noise5", noise_px=5.0),
    "human36m": Setting("h36m", "test", variants="cpn", average="mean"),
}


class Network(NamedTuple):
    """A network, the joints that are hidden in its training, and the lifter that it is built on."""

    system: str
    pattern: str = "none"
    variants: str = ""
    lifter: "Network | None" = None


def supervised(pattern: str = "none", *, weighted: bool = False) -> Network:
    """MixSTE as DiffHPE retrains it; `weighted` with its own loss, and flipped in the test."""
    return Network("mixste", pattern, "diffhpe,weighted" if weighted else "diffhpe")


def wrapper(pattern: str = "none", lifter: str = "") -> Network:
    """DiffHPE-Wrapper on a MixSTE trained with `lifter` hidden: by default what itself is."""
    return Network("diffhpe_wrapper", pattern, lifter=supervised(lifter or pattern))


@dataclasses.dataclass(frozen=True)
class Study:
    """Networks of one size on one data set; see `occlusion.run`.

    Raises:
      ValueError: An unknown name, or a number out of range.
    """

    data: str
    root: str
    workdir: Path
    size: str = "small"
    seeds: int = 1
    steps: Mapping[str, int] = dataclasses.field(default_factory=dict)
    patterns: tuple[str, ...] = tuple(PATTERNS)
    every: int = 1
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data not in DATA:
            raise ValueError(f"data: expected one of {sorted(DATA)}, got {self.data!r}")
        known = set(self.patterns) <= set(PATTERNS)
        if not known or not self.patterns or len(set(self.patterns)) < len(self.patterns):
            raise ValueError(
                f"patterns: expected some of {tuple(PATTERNS)}, each once, got {self.patterns}"
            )
        for name in ("seeds", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not set(self.steps) <= set(HYPOTHESES):
            raise ValueError(
                f"steps: expected some of {sorted(HYPOTHESES)}, got {sorted(self.steps)}"
            )
        if any(field.startswith("data.occlusion") for field in self.changes):
            raise ValueError(
                "changes: expected no field of data.occlusion, the patterns are the published "
                f"ones, got {sorted(self.changes)}"
            )

    @property
    def options(self) -> dict[str, object]:
        """What the figures depend on, ready for JSON."""
        chosen = {name: getattr(self, name) for name in ("data", "size", "seeds", "every")}
        changes = {"changes": dict(self.changes)} if self.changes else {}
        return {**chosen, "steps": dict(self.steps), "patterns": list(self.patterns), **changes}

    def path(self, name: str) -> Path:
        """A file of the study in its folder: `NAME-HASH.SUFFIX`, the hash of the options."""
        stem, _, suffix = name.partition(".")
        return self.workdir / f"{stem}-{digest(self.options)}.{suffix}"

    def check(self, networks: Iterable[Network]) -> None:
        """Builds all configs before the first run, which may take hours.

        Raises:
          ValueError: A variant or a field that a system does not have, two networks that would be
            the same, or a wrapper that its lifter does not fit.
        """
        both = (n for network in networks for n in (network.lifter, network) if n is not None)
        configs = {network: self.config_of(network, 0) for network in both}
        named: dict[Path, Network] = {}
        for network, config in configs.items():
            other = named.setdefault(folder_of(config, self.workdir), network)
            if other != network:
                raise ValueError(
                    f"size: expected networks that differ, {self.size!r} makes {other} and "
                    f"{network} the same run"
                )
            if network.lifter is not None:
                check_sizes(str(network.lifter), configs[network.lifter].model, config.model)

    def config_of(self, network: Network, seed: int) -> ConfigDict:
        """The config of one run."""
        setting = DATA[self.data]
        variants = (setting.variants, network.variants, f"occluded_{network.pattern}")
        config = make_config(
            Model(network.system, ",".join(filter(None, variants))),
            setting.suffix,
            self.root,
            size=self.size,
            seed=seed,
            steps=self.steps.get(network.system, 0),
        ).unlock()
        if config.data.occlusion.pattern != network.pattern:
            raise ValueError(
                f"size: expected no pattern of its own, the networks have theirs, got {self.size!r}"
            )
        training = config.training
        # A short run is to be resumed too.
        training.save_every = min(training.save_every, max(training.num_steps // 8, 1))
        if setting.noise_px:
            config.data.noise_px = setting.noise_px
        for field, value in self.changes.items():
            _change(config, field, value)
        if network.lifter is not None:
            lifter = folder_of(self.config_of(network.lifter, seed), self.workdir)
            config.frozen.checkpoint = str(lifter)
        return config.lock()

    def figures(self, network: Network, hidden: str) -> dict[str, list[float]]:
        """Figures in millimetres of a network, by metric those of each seed.

        Args:
          network: Trained first where it has not been.
          hidden: What is hidden in the test, whatever was in training.

        Raises:
          ValueError: A metric is not defined on this data, or as `scored`.
        """
        setting, H = DATA[self.data], HYPOTHESES[network.system]
        every = None if self.every == 1 else self.every
        found: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for seed in range(self.seeds):
            below = None if network.lifter is None else self.config_of(network.lifter, seed)
            summary = scored(
                self.config_of(network, seed),
                self.workdir,
                # Not the name that `experiments.evaluate` takes by itself, perhaps half-way.
                "study_" + file_name(setting.protocol, H, {"every": every, "occlusion": hidden}),
                below=below,
                protocol=setting.protocol,
                num_hypotheses=H,
                occlusion=hidden,
                every=self.every,
            )
            for metric, values in found.items():
                value = summary["rules"]["mean"][metric][setting.average]
                if value is None:
                    raise ValueError(
                        f"data: {metric} is not defined on {setting.protocol!r}: no whole window"
                    )
                values.append(value)
        return found


def _change(config: ConfigDict, field: str, value: Any) -> None:
    *parents, name = field.split(".")
    section: Any = config
    for parent in parents:
        section = section.get(parent) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or name not in section:
        raise ValueError(f"changes: {config.system} has no field {field!r}")
    section[name] = value
