"""How ZeDO lifts one frame from one start: initial fit, then the loop; see `systems.zedo`."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from posediff_jax.camera import fit_translation, rays
from posediff_jax.denoisers.score_mlp import LABEL_SCALE, ScoreMLP
from posediff_jax.geometry import root_center
from posediff_jax.samplers.body_size import extent_depth, extent_translation, skeleton_height
from posediff_jax.samplers.initial_fit import fit_initial_pose
from posediff_jax.samplers.ray_geometry import clamp_confidence, face_forward
from posediff_jax.samplers.zero_shot import LoopSteps, optimise_poses
from posediff_jax.skeleton import Skeleton
from posediff_jax.systems.pose_prior import PosePrior
from posediff_jax.types import Array, Camera, PoseBatch, PyTree, Variables


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
    """The section `sampler` of a config; the defaults are the released ones for Human3.6M.

    Attributes:
      starts: "anchors": hypothesis h starts from anchor h. "random": from one drawn among the
        anchors, which may then be a whole training set. "generated": from a pose drawn from the
        prior, without anchors (Table 7).
      fit_iterations: Steps of the initial fit; 0 starts from the anchor as it is, at the
        translation that suits it best.
      fit_joints: Names of the keypoints that the fit counts; empty for all.
      fit_axes: The axes of its rotation, some of "xyz".
      fit_depth: Its first distance, metres.
      fit_start: "fixed": the fit starts at `fit_depth`, as published. "extent": where the anchor is
        as large as the keypoints (`extent_depth`), so that nobody far away becomes a giant; best
        with narrow `fit_bounds`.
      fit_bounds: Smallest and largest multiple of that.
      fit_learning_rate: Of its Adam.
      fit_missing: What happens where the keypoints of the fit are missing, such as a hip: "nan", as
        published, gives the frame up; "extent" starts from the anchor as it is, where it is as
        large as the keypoints that there are (`extent_translation`).
      num_iterations: N of the loop.
      warmup: Share of them that keeps the translation of the fit.
      t_range: First and last time; of a discrete prior the first one is the share of its steps.
      rescale_dt: See `score_steps`.
      score_factor: See `score_steps`.
      body_height: Length of the bones from ankle to head (`skeleton_height`), in metres, that poses
        are kept at in the loop; 0 leaves size free, as published.
      noisy: Add the noise of the reverse process, which the released loop leaves out, whatever the
        process: under "ddpm" the steps are then those of DDPM's mean. Its row of Table 5 has noise.
      confidence: Weigh the joints in the translation by their confidence.
      recenter: Move the root of the result to the origin, into the translation. The published
        figures have the root where it drifted to.
      undistort_iterations: See `camera.rays`; 0 ignores lens distortion, as released.
      outside: How far beyond its border, in sizes of the image, a keypoint still counts.
      max_chains: Hypotheses in memory at a time; 0 for all.
    """

    starts: str = "anchors"
    fit_iterations: int = 500
    fit_joints: tuple[str, ...] = ("pelvis", "right_hip", "left_hip")
    fit_axes: str = "z"
    fit_depth: float = 3.0
    fit_start: str = "fixed"
    fit_bounds: tuple[float, float] = (0.5, 2.0)
    fit_learning_rate: float = 0.1
    fit_missing: str = "nan"
    num_iterations: int = 1000
    warmup: float = 0.2
    t_range: tuple[float, float] = (0.1, 0.01)
    rescale_dt: bool = False
    score_factor: float = 1.0
    body_height: float = 0.0
    noisy: bool = False
    confidence: bool = True
    recenter: bool = False
    undistort_iterations: int = 0
    outside: float = 1.0
    max_chains: int = 0


@dataclasses.dataclass(frozen=True)
class Lifter:
    """What sampling is bound to."""

    model: ScoreMLP
    skeleton: Skeleton
    prior: PosePrior
    options: SamplerOptions
    steps: LoopSteps
    fit_joints: tuple[int, ...] | None
    anchors: NDArray | None


def lift(
    key: Array,
    chain: dict[str, Any],
    *,
    lifter: Lifter,
    variables: Variables,
    features: PyTree,
    return_trajectory: bool = False,
) -> tuple[Array, Array | None, dict[str, Array]]:
    """One hypothesis for one frame.

    Args:
      key: Of this hypothesis.
      chain: `keypoints` `(J, 2)` in pixels, `confidence` and `used` `(J,)`, `camera`, and the
        number of the `hypothesis`; perhaps a guess `start` `(J, 3)` and whether this hypothesis
        `is_guess`, so that it starts there unless it is NaN.
      lifter: Network, prior, anchors, options.
      variables: Weights of the network.
      features: What the network is told of each iteration's time (`ScoreMLP.embed_time`).
      return_trajectory: Also return each iteration.

    Returns:
      The pose `(J, 3)`, the trajectory `(N, J, 3)` or None, and the records of `zedo.from_config`.
    """
    options, root, used = lifter.options, lifter.skeleton.root, chain["used"]
    start_key, noise_key = jax.random.split(key)
    anchor = _start(start_key, lifter, variables, chain["hypothesis"])
    if "start" in chain:
        guessed = chain["is_guess"] & jnp.all(jnp.isfinite(chain["start"]))
        anchor = jnp.where(guessed, chain["start"].astype(anchor.dtype), anchor)
    viewing = rays(
        chain["camera"], chain["keypoints"], undistort_iterations=options.undistort_iterations
    )
    viewing = jnp.where(used[:, None], viewing, jnp.nan)
    confidence = chain["confidence"] if options.confidence else None
    pose, translation, error = _first_pose(lifter, anchor, viewing, confidence, chain)

    def estimate_noise(x: Array, shifts: Array) -> Array:
        eps: Any = lifter.model.apply(variables, x, shifts, method="denoise")
        return eps

    def resize(x: Array) -> Array:
        return options.body_height / skeleton_height(x, lifter.skeleton)

    result = optimise_poses(
        estimate_noise,
        pose,
        translation,
        viewing,
        steps=lifter.steps,
        features=features,
        confidence=confidence,
        # N // 5 for a fifth, which is not exact in binary.
        warmup=math.floor(options.warmup * options.num_iterations + 1e-6),
        noise_key=noise_key if options.noisy else None,
        resize=resize if options.body_height else None,
        return_trajectory=return_trajectory,
    )
    shift = result.pose[root] if options.recenter else jnp.zeros(3, pose.dtype)
    way = result.trajectory.pose if return_trajectory else None
    if way is not None and options.recenter:
        way = root_center(way, root=root)
    records = {"translation": result.translation + shift, "fit_error": error}
    return result.pose - shift, way, records


def _start(key: Array, lifter: Lifter, variables: Variables, hypothesis: Array) -> Array:
    """The pose that a hypothesis starts from, `(J, 3)`, root at the origin."""
    if lifter.options.starts == "generated":
        return draw_pose(
            key, variables, model=lifter.model, skeleton=lifter.skeleton, prior=lifter.prior
        )
    anchors = jnp.asarray(lifter.anchors)
    if lifter.options.starts == "random":
        hypothesis = jax.random.randint(key, (), 0, len(anchors))
    return anchors[hypothesis]


def _first_pose(
    lifter: Lifter,
    anchor: Array,
    viewing: Array,
    confidence: Array | None,
    chain: dict[str, Any],
) -> tuple[Array, Array, Array]:
    """Pose, translation and error in pixels that the loop starts from."""
    options, used, camera = lifter.options, chain["used"], chain["camera"]
    if options.fit_iterations == 0:
        weights = jnp.ones(used.shape, viewing.dtype)
        if confidence is not None:
            weights = clamp_confidence(confidence) ** 4
        translation = fit_translation(viewing, anchor, weights=jnp.where(used, weights, 0.0))
        return anchor, face_forward(translation), jnp.full((), jnp.nan, anchor.dtype)
    depth: float | Array = options.fit_depth
    if options.fit_start == "extent":
        # A distance along the ray of the root, which is longer than its depth.
        ray = viewing[..., lifter.skeleton.root, :]
        depth = extent_depth(viewing, anchor, used=used) * jnp.linalg.norm(ray, axis=-1)
    fit = fit_initial_pose(
        anchor,
        # Where the lens would have put the keypoints without distortion.
        camera.focal * viewing[:, :2] + camera.center,
        camera,
        joints=lifter.fit_joints,
        root=lifter.skeleton.root,
        axes=options.fit_axes,
        depth=depth,
        bounds=options.fit_bounds,
        num_iterations=options.fit_iterations,
        learning_rate=options.fit_learning_rate,
        seen=used,
    )
    if options.fit_missing == "nan":
        return fit.pose, fit.translation, fit.objective
    fitted = jnp.isfinite(fit.objective)
    elsewhere = extent_translation(viewing, anchor, used=used)
    return (
        jnp.where(fitted, fit.pose, anchor),
        jnp.where(fitted, fit.translation, elsewhere),
        fit.objective,
    )


def used_joints(batch: PoseBatch, options: SamplerOptions) -> Array:
    """The joints that count, `(B, F, J)`: seen, near the image, by a camera that can see."""
    camera: Camera = batch.camera
    pixels = jnp.asarray(batch.keypoints_px)
    size = camera.image_size[:, None, None]
    near = (pixels >= -options.outside * size) & (pixels <= (1 + options.outside) * size)
    sound = jnp.all(camera.focal > 0, axis=-1) & jnp.all(jnp.isfinite(camera.focal), axis=-1)
    sound &= jnp.all(jnp.isfinite(camera.center), axis=-1)
    # A NaN is not near either.
    return jnp.all(near, axis=-1) & (batch.confidence > 0) & sound[:, None, None]


def draw_pose(
    key: Array, variables: Variables, *, model: ScoreMLP, skeleton: Skeleton, prior: PosePrior
) -> Array:
    """One pose of the prior, `(J, 3)`, root at the origin."""

    def estimate_noise(x: Array, label: Array) -> Array:
        eps: Any = model.apply(variables, x, label / LABEL_SCALE)
        return eps.astype(x.dtype)

    pose = prior.generate(key, estimate_noise, (skeleton.num_joints, 3))
    return root_center(pose, root=skeleton.root)


def check_sampler(options: SamplerOptions) -> None:
    """Refuses at build time what the parts would refuse at the first batch.

    Raises:
      ValueError: An option is out of range; the message names it.
    """
    choices = ("anchors", "random", "generated")
    if options.starts not in choices:
        raise ValueError(f"sampler.starts: expected one of {choices}, got {options.starts!r}")
    for name, known in (("fit_start", ("fixed", "extent")), ("fit_missing", ("nan", "extent"))):
        if getattr(options, name) not in known:
            raise ValueError(
                f"sampler.{name}: expected one of {known}, got {getattr(options, name)!r}"
            )
    if not options.fit_axes or not set(options.fit_axes) <= set("xyz"):
        raise ValueError(f"sampler.fit_axes: expected some of 'xyz', got {options.fit_axes!r}")
    for name in ("fit_iterations", "max_chains", "undistort_iterations", "outside", "body_height"):
        if not getattr(options, name) >= 0:
            raise ValueError(f"sampler.{name}: expected at least 0, got {getattr(options, name)}")
    for name in ("fit_depth", "fit_learning_rate", "score_factor"):
        if not getattr(options, name) > 0:
            raise ValueError(f"sampler.{name}: expected more than 0, got {getattr(options, name)}")
    if len(options.fit_bounds) != 2 or not 0 <= options.fit_bounds[0] < options.fit_bounds[1]:
        raise ValueError(f"sampler.fit_bounds: expected 0 <= low < high, got {options.fit_bounds}")
    if len(options.t_range) != 2 or not all(0 < t <= 1 for t in options.t_range):
        raise ValueError(f"sampler.t_range: expected two times in (0, 1], got {options.t_range}")
    if not 0 <= options.warmup <= 1:
        raise ValueError(f"sampler.warmup: expected a share in [0, 1], got {options.warmup}")
