"""From the section `data` of a config to training items and items to score."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from posediff_jax.config import read_options
from posediff_jax.data import (
    MOTIONS,
    ItemTable,
    MotionClip,
    Occlusion,
    PoseSequences,
    ScoredItems,
    ScoredViews,
    all_frames,
    cmu17_val_v1,
    item_table,
    load_cmu17,
    load_human36m,
    load_humaneva,
    load_mpi_inf_3dhp_test,
    load_mpi_inf_3dhp_train,
    procedural_motion,
    random_bodies,
    read_occlusion,
    scored_items,
    virtual_views,
)
from posediff_jax.data.cmu17_val import photograph
from posediff_jax.data.occlusion import check_clips
from posediff_jax.skeleton import Skeleton, get_skeleton

_SCORED_EVERY = 12  # frames, of what chooses checkpoints and of procedural motion


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The section `data` of a config, but for its own section `occlusion` (`data.Occlusion`).

    Attributes:
      kind: "procedural", "cmu17", "human36m", "humaneva" or "mpi_inf_3dhp".
      root: Folder of the files; procedural motion has none.
      frames: Frames per item.
      stride: Frames between training items; 0 means `frames`.
      mirrored: Train on the mirror image of each item too.
      keypoints: 2D joints of Human3.6M and HumanEva files, see their readers.
      annotation: Which 3D joints of MPI-INF-3DHP training is on, see their reader; a protocol names
        those that are scored.
      heldout_subjects: Training subjects that choose the best checkpoint instead; of Human3.6M,
        HumanEva and MPI-INF-3DHP.
      heldout_every: Every so many clips one does so instead of being trained on; 0 for none; of
        motion that virtual cameras see.
      test_actions: Actions that are scored; empty for all; of Human3.6M and HumanEva.
      train_clips: Clips of procedural motion.
      test_clips: Likewise.
      frames_per_clip: Training motion is cut into pieces of so many frames with cameras of their
        own.
      train_views: Cameras per piece.
      pitch_degrees: Least and greatest pitch of the cameras of training motion.
      procedural_clips: Clips of procedural motion that `cmu17` is trained on beside its own.
      procedural_kinds: Kinds of those and of the clips that are scored, see `procedural_motion`;
        empty for all usual ones.
      body_spread: Bodies of the training motion, see `random_bodies`; 0 for those recorded.
      noise_px: Of the 2D joints, in training.
      detector: See `virtual_views`.
    """

    kind: str = "procedural"
    root: str = ""
    frames: int = 1
    stride: int = 0
    mirrored: bool = True
    keypoints: str = "gt"
    annotation: Literal["annot3", "univ_annot3"] = "annot3"
    heldout_subjects: tuple[str, ...] = ()
    heldout_every: int = 0
    test_actions: tuple[str, ...] = ()
    train_clips: int = 280
    test_clips: int = 70
    frames_per_clip: int = 60
    train_views: int = 4
    pitch_degrees: tuple[float, float] = (-10.0, 30.0)
    procedural_clips: int = 0
    procedural_kinds: tuple[str, ...] = ()
    body_spread: float = 0.0
    noise_px: float = 0.0
    detector: bool = False

    def __post_init__(self) -> None:
        for name in ("stride", "heldout_every", "procedural_clips"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name}: expected at least 0, got {getattr(self, name)}")
        if self.heldout_every == 1:
            raise ValueError("data.heldout_every: expected 0 or at least 2, got 1: all clips")
        if self.frames < 1:
            raise ValueError(f"data.frames: expected at least 1, got {self.frames}")


class Split(NamedTuple):
    """A data set as an experiment uses it.

    Attributes:
      train: Plain and mirrored training items.
      heldout: What the best checkpoint is chosen on, or None.
    """

    train: ItemTable
    heldout: ScoredItems | None


def load_training(config: ConfigDict) -> Split:
    """Reads or makes the training data that a config describes.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: An unknown field or value, or data that cannot be read.
      TypeError: A field of the wrong type.
    """
    options, occlusion = _read(config)
    skeleton = get_skeleton(config.skeleton)
    train, heldout = _pick(_TRAINING, options)(options, config.seed, skeleton)
    stride = options.stride or options.frames
    return Split(
        train=item_table(
            train,
            length=options.frames,
            stride=stride,
            augment=options.mirrored,
            occlusion=occlusion,
        ),
        heldout=None
        if heldout is None
        else scored_items(heldout, length=options.frames, occlusion=occlusion),
    )


def load_test(config: ConfigDict, protocol: str = "", *, cut: str = "side") -> ScoredItems:
    """Reads or makes what a protocol scores.

    Args:
      config: An experiment's config.
      protocol: One of `PROTOCOLS[config.data.kind]`; empty for `default_protocol`.
      cut: How sequences become windows, see `scored_items`.

    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A protocol that the data does not have, an unknown field or value, or data that
        cannot be read.
      TypeError: A field of the wrong type.
    """
    options, occlusion = _read(config)
    views = load_test_views(config, protocol)
    items = scored_items(views, length=options.frames, cut=cut, occlusion=occlusion)
    return items._replace(shared=_SHARED.get(options.kind, items.shared))


def load_test_views(config: ConfigDict, protocol: str = "") -> ScoredViews:
    """The whole sequences behind `load_test`, before they are cut; errors as there."""
    options, _ = _read(config)
    known = _pick(PROTOCOLS, options)
    protocol = protocol or default_protocol(config)
    if protocol not in known:
        raise ValueError(f"protocol: expected one of {known} on {options.kind}, got {protocol!r}")
    return _TEST[options.kind](options, config.seed, get_skeleton(config.skeleton), protocol)


def default_protocol(config: ConfigDict) -> str:
    """The first protocol of the data, but of MPI-INF-3DHP that of the config's annotation."""
    options, _ = _read(config)
    known = _pick(PROTOCOLS, options)
    return f"test:{options.annotation}" if options.kind == "mpi_inf_3dhp" else known[0]


def complete_occlusion(config: ConfigDict) -> ConfigDict:
    """The config with every field of `data.occlusion` written out, for a checkpoint to hold.

    Without that section, as it is: nothing was hidden.

    Raises:
      ValueError: As `read_occlusion`.
      TypeError: Likewise.
    """
    if "occlusion" not in config.data:
        return config
    occlusion = read_occlusion(config.data.occlusion)
    completed = ConfigDict(config.to_dict())
    completed.data.occlusion = ConfigDict(dataclasses.asdict(occlusion))
    return completed.lock()


def _read(config: ConfigDict) -> tuple[DataOptions, Occlusion | None]:
    fields = dict(config.data)
    section = fields.pop("occlusion", None)
    occlusion = None if section is None else read_occlusion(section)
    options = read_options(DataOptions, fields, where="data")
    if occlusion is not None:
        # Before files are read, which may take long.
        check_clips(occlusion, options.frames, get_skeleton(config.skeleton))
    return options, occlusion


# The first one is the default, see `default_protocol`.
PROTOCOLS: dict[str, tuple[str, ...]] = {
    "procedural": ("unseen",),
    "cmu17": (
        "cmu17-val-v1",
        "cmu17-val-v1:noise5",
        "cmu17-val-v1:scaled",
        "cmu17-val-v1:scaled-noise5",
        "cmu17-val-v1:bvh",
        "cmu17-val-v1:bvh-noise5",
        # The val.npz of any folder, with the same cameras; figures compare with no others.
        "val",
        "val:noise5",
    ),
    "human36m": ("test", "diffupose_official"),
    "humaneva": ("test", "diffupose_official"),
    "mpi_inf_3dhp": ("test:annot3", "test:univ_annot3"),
}

# Windows that the released evaluations score at once, where they are not four.
_SHARED = {"mpi_inf_3dhp": 2}


def _pick(table: dict[str, Any], options: DataOptions) -> Any:
    if options.kind not in table:
        raise ValueError(f"data.kind: expected one of {sorted(table)}, got {options.kind!r}")
    if options.kind != "procedural" and not options.root:
        raise ValueError(f"data.root: expected the folder of the {options.kind} files, got ''")
    return table[options.kind]


_Pair = tuple[PoseSequences, ScoredViews | None]


def _cmu17_training(options: DataOptions, seed: int, skeleton: Skeleton) -> _Pair:
    clips = list(load_cmu17(options.root, "train"))
    if options.procedural_clips:
        clips += procedural_motion(
            seed,
            num_clips=options.procedural_clips,
            frames=options.frames_per_clip,
            kinds=options.procedural_kinds or MOTIONS,
        )
    return _seen_training(options, seed, skeleton, clips)


def _procedural_training(options: DataOptions, seed: int, skeleton: Skeleton) -> _Pair:
    frames = options.frames_per_clip
    clips = procedural_motion(seed, num_clips=options.train_clips, frames=frames)
    return _seen_training(options, seed, skeleton, clips)


def _seen_training(
    options: DataOptions, seed: int, skeleton: Skeleton, clips: Sequence[MotionClip]
) -> _Pair:
    """Motion seen by virtual cameras; held-out clips look as the recorded bodies do."""
    every = options.heldout_every
    heldout = list(clips[every - 1 :: every]) if every else []
    if every and not heldout:
        raise ValueError(f"data.heldout_every: expected at most {len(clips)} clips, got {every}")
    names = {clip.name for clip in heldout}
    pieces = [p for c in clips if c.name not in names for p in c.split(options.frames_per_clip)]
    if options.body_spread:
        pieces = random_bodies(seed, pieces, spread=options.body_spread)
    noise: dict[str, Any] = {"noise_px": options.noise_px, "detector": options.detector}
    train = virtual_views(
        seed,
        pieces,
        skeleton,
        views_per_clip=options.train_views,
        pitch_degrees=options.pitch_degrees,
        **noise,
    )
    if not heldout:
        return train, None
    pieces = [p for c in heldout for p in c.split(options.frames_per_clip)]
    return train, _every_few(virtual_views(seed + 1, pieces, skeleton, **noise))


def _procedural_test(
    options: DataOptions, seed: int, skeleton: Skeleton, protocol: str
) -> ScoredViews:
    del protocol
    clips = procedural_motion(
        seed + 1,
        num_clips=options.test_clips,
        frames=options.frames_per_clip,
        kinds=options.procedural_kinds or MOTIONS,
    )
    return _every_few(virtual_views(seed + 1, clips, skeleton, noise_px=options.noise_px))


def _cmu17_test(options: DataOptions, seed: int, skeleton: Skeleton, protocol: str) -> ScoredViews:
    del seed
    if skeleton.name != "h36m_17":
        raise ValueError(f"skeleton: {protocol} has 'h36m_17', got {skeleton.name!r}")
    variant = protocol.partition(":")[2]
    bodies = variant.removesuffix("noise5").removesuffix("-") or "own"
    noise_px = 5.0 if variant.endswith("noise5") else 0.0
    if protocol.startswith("val"):
        return photograph(load_cmu17(options.root, "val"), noise_px=noise_px)
    return cmu17_val_v1(options.root, noise_px=noise_px, bodies=bodies)


def _every_few(views: PoseSequences) -> ScoredViews:
    return ScoredViews(
        views, tuple(np.arange(s.num_frames) % _SCORED_EVERY == 0 for s in views.sequences)
    )


def _human36m_training(options: DataOptions, seed: int, skeleton: Skeleton) -> _Pair:
    del seed
    return _recorded_training(
        options,
        ("S1", "S5", "S6", "S7", "S8"),
        lambda subjects: load_human36m(
            options.root, keypoints=options.keypoints, subjects=subjects, skeleton=skeleton
        ),
    )


def _humaneva_training(options: DataOptions, seed: int, skeleton: Skeleton) -> _Pair:
    del seed, skeleton
    return _recorded_training(
        options,
        ("S1", "S2", "S3"),
        lambda subjects: load_humaneva(
            options.root, "train", keypoints=options.keypoints, subjects=subjects
        ),
    )


def _mpi_inf_3dhp_training(options: DataOptions, seed: int, skeleton: Skeleton) -> _Pair:
    del seed
    _check_3dhp(skeleton)
    return _recorded_training(
        options,
        tuple(f"S{i}" for i in range(1, 9)),
        lambda subjects: load_mpi_inf_3dhp_train(
            options.root, annotation=options.annotation, subjects=subjects
        ),
    )


def _mpi_inf_3dhp_test(
    options: DataOptions, seed: int, skeleton: Skeleton, protocol: str
) -> ScoredViews:
    del seed
    _check_3dhp(skeleton)
    return load_mpi_inf_3dhp_test(options.root, annotation=protocol.partition(":")[2])


def _check_3dhp(skeleton: Skeleton) -> None:
    if skeleton.name != "mpi_inf_3dhp_17":
        raise ValueError(f"skeleton: MPI-INF-3DHP has 'mpi_inf_3dhp_17', got {skeleton.name!r}")


def _recorded_training(
    options: DataOptions,
    subjects: Sequence[str],
    load: Callable[[Sequence[str]], PoseSequences],
) -> _Pair:
    heldout = options.heldout_subjects
    rest = [s for s in subjects if s not in heldout]
    if not rest or not set(heldout) <= set(subjects):
        raise ValueError(
            f"data.heldout_subjects: expected some but not all of {tuple(subjects)}, got {heldout}"
        )
    return load(rest), _every_few(load(heldout)) if heldout else None


def _human36m_test(
    options: DataOptions, seed: int, skeleton: Skeleton, protocol: str
) -> ScoredViews:
    del seed, protocol
    views = load_human36m(
        options.root,
        "test",
        keypoints=options.keypoints,
        actions=options.test_actions or None,
        skeleton=skeleton,
    )
    return all_frames(views)


def _humaneva_test(
    options: DataOptions, seed: int, skeleton: Skeleton, protocol: str
) -> ScoredViews:
    del seed, skeleton, protocol
    views = load_humaneva(
        options.root,
        "validate",
        keypoints=options.keypoints,
        actions=options.test_actions or None,
    )
    return all_frames(views)


_TRAINING = {
    "procedural": _procedural_training,
    "cmu17": _cmu17_training,
    "human36m": _human36m_training,
    "humaneva": _humaneva_training,
    "mpi_inf_3dhp": _mpi_inf_3dhp_training,
}
_TEST = {
    "procedural": _procedural_test,
    "cmu17": _cmu17_test,
    "human36m": _human36m_test,
    "humaneva": _humaneva_test,
    "mpi_inf_3dhp": _mpi_inf_3dhp_test,
}
