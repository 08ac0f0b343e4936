"""The work of `lift`: weights and options bound once, people lifted in batches of one shape.

Memory is that of one batch and of the result, however long the video is.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray
from rich.progress import Progress

from posediff_jax._version import __version__
from posediff_jax.data.keypoints import PersonKeypoints
from posediff_jax.data.windows import plan_clip
from posediff_jax.inference import SampleBatch, make_sampler
from posediff_jax.lifted_person import LiftedPerson
from posediff_jax.lifter import clip_batch
from posediff_jax.prior_file import PriorFile
from posediff_jax.samplers.aggregate import joint_spread
from posediff_jax.samplers.body_size import SKELETON_SHARE, skeleton_height
from posediff_jax.samplers.choose import (
    choose_least,
    most_agreed,
    nearest_to_mean,
    reprojection_and_energy,
    reprojection_error,
)
from posediff_jax.skeleton import get_skeleton
from posediff_jax.systems import make_system
from posediff_jax.systems.zedo import make_energy
from posediff_jax.types import Camera, PoseBatch, Variables

RULES = (
    *("nearest_to_mean", "most_agreed", "reprojection_error", "denoising_energy"),
    *("reprojection_and_energy", "mean", "first"),
)
SCALES = ("sequence", "pose", "off")

_CHAINS = 640  # in memory at a time where the user does not say
_SEGMENT = 50  # frames that follow each other in a warm start; segments run beside each other
_CHUNK = 512  # frames at a time in what is done after lifting
_UNDISTORT = 6
_FEWEST_JOINTS = 6  # of a frame that says something about a pose


@dataclasses.dataclass(frozen=True)
class LiftOptions:
    """How keypoints are lifted; `lift` says what the fields mean."""

    hypotheses: int = 10
    height: float | None = None
    scale: str = "sequence"
    rule: str = "reprojection_and_energy"
    warm_start: bool = False
    seed: int = 0
    batch_size: int = 0

    def __post_init__(self) -> None:
        if self.hypotheses < 1:
            raise ValueError(f"hypotheses: expected at least 1, got {self.hypotheses}")
        if self.height is not None and not 0.3 <= self.height <= 3.0:
            raise ValueError(f"height: expected metres, 0.3 to 3, got {self.height}")
        for name, choices in (("scale", SCALES), ("rule", RULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        if self.batch_size < 0:
            raise ValueError(f"batch_size: expected at least 0, got {self.batch_size}")


class _Batch(NamedTuple):
    """Rows of a person's arrays: which ones, how many of them are real, those one frame before."""

    rows: NDArray
    real: int
    before: NDArray | None


class LiftEngine:
    """Weights, anchors and options bound once; lifts one person after the other."""

    def __init__(
        self,
        prior: PriorFile,
        options: LiftOptions,
        camera: Camera,
        *,
        anchors: Mapping[str, Any] | None,
        camera_from: str,
        sampler: Mapping[str, Any] | None = None,
    ) -> None:
        """Binds all that people share.

        Args:
          prior: Of the system "zedo" with the skeleton "h36m_17".
          options: See `lift`.
          camera: Without leading axes.
          anchors: The frozen part of the system, see `zedo.from_config`.
          camera_from: Where the focal length is from, in words.
          sampler: Fields of the config's section `sampler` to change.

        Raises:
          ValueError: Another system or skeleton, or options that the system refuses.
        """
        config = prior.config.copy_and_resolve_references().unlock()
        for name, expected in (("system", "zedo"), ("skeleton", "h36m_17")):
            if config[name] != expected:
                raise ValueError(
                    f"checkpoint: expected the {name} {expected!r}, got {config[name]!r}"
                )
        # The root is where the pose says, and a hip that a detector missed costs no frame: what
        # users expect, and what the published figures do not have.
        wanted = {"recenter": True, "fit_missing": "extent"}
        config.sampler = {**config.get("sampler", {}), **wanted, **(sampler or {})}
        bent = np.any(np.asarray(camera.radial)) or np.any(np.asarray(camera.tangential))
        if bent and not config.sampler.get("undistort_iterations", 0):
            config.sampler.undistort_iterations = _UNDISTORT
        self._body_height = float(config.sampler.get("body_height", 0.0))
        if options.height is not None and self._body_height:
            self._body_height = SKELETON_SHARE * options.height
            config.sampler.body_height = self._body_height
        self._options, self._camera, self._camera_from = options, camera, camera_from
        self._skeleton = get_skeleton(config.skeleton)
        self._variables, self._weights_from = prior.variables, prior.source
        self._draw: SampleBatch = make_sampler(
            make_system(config, anchors), prior.variables, num_hypotheses=options.hypotheses
        )
        self._choose = jax.jit(partial(_choose, config, options.rule))
        self._settings = _digest(
            config.to_json(sort_keys=True),
            json.dumps(dataclasses.asdict(options) | {"batch_size": 0}),
            __version__,
            *(np.asarray(leaf) for leaf in jax.tree.leaves(camera)),
            *(np.asarray(leaf) for leaf in jax.tree.leaves(prior.variables)),
            np.asarray((anchors or {}).get("anchors", ())),
        )

    def fingerprint(self, person: PersonKeypoints) -> str:
        """Equal for equal results."""
        arrays = (person.frames, person.keypoints, person.confidence, person.bad)
        return _digest(self._settings, *arrays)

    def lift(self, person: PersonKeypoints, bar: Progress) -> LiftedPerson:
        """Lifts one person."""
        num, H, J = person.num_frames, self._options.hypotheses, self._skeleton.num_joints
        poses = np.full((H, num, J, 3), np.nan, np.float32)
        translations = np.full((H, num, 3), np.nan, np.float32)
        pose, root = np.full((num, J, 3), np.nan, np.float32), np.full((num, 3), np.nan, np.float32)
        chosen, error = np.zeros(num, np.int64), np.full((H, num), np.nan, np.float32)
        key = jax.random.key(self._options.seed)
        confidence = self._confidence(person)
        seen = np.flatnonzero((confidence > 0).sum(axis=1) >= _FEWEST_JOINTS)
        task = bar.add_task(f"person {person.track}", total=num, completed=num - len(seen))
        for batch in _batches(seen, num, self._frames_at_once(len(seen)), self._options.warm_start):
            inputs = self._batch(person, confidence, batch, pose)
            result = self._draw(key, inputs)
            best = self._choose(
                key, self._variables, result.samples, result.records["translation"], inputs
            )
            rows, some = batch.rows[: batch.real], slice(batch.real)
            poses[:, rows] = np.moveaxis(result.samples[some, :, 0], 0, 1)
            translations[:, rows] = np.moveaxis(result.records["translation"][some, :, 0], 0, 1)
            pose[rows], root[rows], chosen[rows] = (np.asarray(x[some]) for x in best[:3])
            error[:, rows] = np.asarray(best[3][some]).T
            bar.advance(task, batch.real)
        scale_from = self._resize(poses, translations, pose, root)
        return LiftedPerson(
            track=person.track,
            frames=person.frames,
            poses=poses,
            translations=translations,
            pose=pose,
            root=root,
            chosen=chosen,
            spread=_spread(poses),
            reprojection_error=error,
            valid=np.isfinite(pose).all(axis=(1, 2)) & ~person.bad,
            bad=person.bad,
            keypoints=person.keypoints,
            confidence=person.confidence,
            derived=person.derived,
            skeleton=self._skeleton,
            camera=self._camera,
            rule=self._options.rule,
            camera_from=self._camera_from,
            scale_from=scale_from,
            weights_from=self._weights_from,
            fingerprint=self.fingerprint(person),
        )

    def _frames_at_once(self, num_frames: int) -> int:
        """A power of two at most for short clips: few shapes, few compilations."""
        wanted = self._options.batch_size or max(1, _CHAINS // self._options.hypotheses)
        if self._options.warm_start:
            num_frames = -(-num_frames // _SEGMENT)
        return min(wanted, 1 << max(num_frames - 1, 0).bit_length())

    def _batch(
        self, person: PersonKeypoints, confidence: NDArray, batch: _Batch, pose: NDArray
    ) -> PoseBatch:
        plan = plan_clip(person.num_frames, length=1)
        start = None
        if batch.before is not None:
            known = batch.before >= 0
            start = np.where(known[:, None, None], pose[batch.before], np.nan)[:, None]
        return clip_batch(
            person.keypoints,
            confidence,
            self._camera,
            plan,
            batch.rows,
            start=None if start is None else start.astype(np.float32),
        )

    def _confidence(self, person: PersonKeypoints) -> NDArray:
        """What the solver is told: a head that is the mean of the eyes is left to the prior.

        It lies a third of the head below the joint that the prior calls head, and bones counted up
        to it would make everybody else too large.
        """
        head = np.arange(self._skeleton.num_joints) == self._skeleton.joints.index("head")
        return np.where(person.derived & head, np.float32(0), person.confidence)

    def _resize(self, poses: NDArray, translations: NDArray, pose: NDArray, root: NDArray) -> str:
        """Multiplies in place; returns where the size is from, in words."""
        height, scale = self._options.height, self._options.scale
        kept = f"bones from ankle to head kept at {self._body_height:.2f} m in the optimisation"
        if height is None and self._body_height:
            stature = self._body_height / SKELETON_SHARE
            return f"an assumed height of {stature:.2f} m: none was given"
        if height is None:
            return "the bodies of the prior; no height was given"
        if scale == "off":
            return (
                f"{kept}, for the height {height:g} m"
                if self._body_height
                else (
                    f"the bodies of the prior; the height {height:g} m was not used (scale 'off')"
                )
            )
        target = SKELETON_SHARE * height
        # A mean of hypotheses is smaller than any of them.
        sized = poses if self._options.rule == "mean" and scale == "sequence" else pose
        sizes = np.asarray(skeleton_height(jnp.asarray(sized), self._skeleton))
        if scale == "sequence":
            typical = np.nanmedian(sizes) if np.isfinite(sizes).any() else target
            factor = np.float32(target / typical)
            for array in (poses, translations, pose, root):
                array *= factor
            return f"the height {height:g} m that was given: all multiplied by {factor:.4f}"
        factors = (target / sizes).astype(np.float32)
        pose *= factors[:, None, None]
        root *= factors[:, None]
        for first in range(0, poses.shape[1], _CHUNK):
            part = slice(first, first + _CHUNK)
            many = np.asarray(skeleton_height(jnp.asarray(poses[:, part]), self._skeleton))
            poses[:, part] *= (target / many)[..., None, None]
            translations[:, part] *= (target / many)[..., None]
        return f"the height {height:g} m that was given: each pose multiplied by its own factor"


def _choose(
    config: ConfigDict,
    rule: str,
    key: jax.Array,
    variables: Variables,
    samples: jax.Array,
    translation: jax.Array,
    batch: PoseBatch,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Chosen pose `(B, J, 3)`, its root, its number, and the error of all in pixels `(B, H)`."""
    error = reprojection_error(
        samples, translation, batch.camera, batch.keypoints_px, confidence=batch.confidence
    )
    if rule == "mean":
        pose, root = jnp.nanmean(samples, axis=1), jnp.nanmean(translation, axis=1)
        return pose[:, 0], root[:, 0], jnp.full(len(pose), -1), error[..., 0]
    if rule == "nearest_to_mean":
        pose, index = nearest_to_mean(samples)
    elif rule == "most_agreed":
        pose, index = most_agreed(samples)
    else:
        scores = error
        if rule in ("denoising_energy", "reprojection_and_energy"):
            energy = make_energy(config)(key, variables, samples)
            alone = rule == "denoising_energy"
            scores = energy if alone else reprojection_and_energy(error, energy)
        elif rule == "first":
            scores = jnp.broadcast_to(jnp.arange(samples.shape[1])[:, None], error.shape)
        pose, index = choose_least(samples, scores.astype(samples.dtype))
    root = jnp.take_along_axis(translation, index[:, None, :, None], axis=1)[:, 0]
    return pose[:, 0], root[:, 0], index[:, 0], error[..., 0]


def _batches(seen: NDArray, num_frames: int, size: int, warm: bool) -> Iterator[_Batch]:
    """Rows in batches of one size, filled up with the last one: one shape, so one compilation."""
    if not warm:
        for first in range(0, len(seen), size):
            yield _filled(seen[first : first + size], size, None)
        return
    # Frame k of all segments at once: each has the one before it behind it.
    present = np.zeros(num_frames, bool)
    present[seen] = True
    starts = np.arange(0, num_frames, _SEGMENT)
    for step in range(_SEGMENT):
        rows = starts + step
        rows = rows[rows < num_frames]
        rows = rows[present[rows]]
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            yield _filled(part, size, part - 1 if step else np.full(len(part), -1))


def _filled(rows: NDArray, size: int, before: NDArray | None) -> _Batch:
    missing = (0, size - len(rows))
    return _Batch(
        np.pad(rows, missing, mode="edge"),
        len(rows),
        None if before is None else np.pad(before, missing, mode="edge"),
    )


def _spread(poses: NDArray) -> NDArray:
    """`(H, F, J, 3)` to `(F, J)`, some frames at a time."""
    spread = np.empty(poses.shape[1:3], np.float32)
    for first in range(0, poses.shape[1], _CHUNK):
        part = slice(first, first + _CHUNK)
        spread[part] = np.asarray(joint_spread(jnp.asarray(poses[:, part]), axis=0))
    return spread


def _digest(*parts: str | NDArray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
