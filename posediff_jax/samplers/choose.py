"""One of many hypotheses, without ground truth: rules that return the pose and its index.

The medoid is in `samplers.aggregate`; rules that use ground truth are in `evaluation.oracle`. A
hypothesis without an answer (NaN) is never chosen unless all are. How well a rule ranks is for a
table to say (`experiments.zedo_tables --table=choice`): ZeDO's poses are put on their rays in each
iteration, but the denoising after it moves them off again, further where prior and rays disagree.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from posediff_jax.camera import project
from posediff_jax.geometry import check_points, safe_norm
from posediff_jax.types import Array, Camera

# What each rule uses beyond the hypotheses, in the words of `evaluation.metrics.NEEDS`.
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "nearest_to_mean": (),
        "most_agreed": (),
        "denoising_energy": ("pose prior",),
        "reprojection_error": ("camera", "predicted root trajectory"),
        "reprojection_and_energy": ("camera", "predicted root trajectory", "pose prior"),
    }
)


def choose_least(hypotheses: Array, scores: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """The hypothesis with the least score, frame by frame.

    Args:
      hypotheses: `(B, H, F, J, 3)`, or any `(..., J, 3)` with the hypotheses on `axis`.
      scores: `(B, H, F)`, the leading axes of `hypotheses`; lower is better.
      axis: Axis of the hypotheses, counted from the front.

    Returns:
      The chosen poses with `axis` removed, and the chosen index for each frame.

    Raises:
      ValueError: Shapes do not fit.
    """
    lead = _lead(hypotheses, axis)
    if jnp.shape(scores) != lead:
        raise ValueError(f"scores: expected shape {lead}, got {jnp.shape(scores)}")
    broken = jnp.isnan(scores) | jnp.any(jnp.isnan(hypotheses), axis=(-2, -1))
    # An infinite score is still better than no answer.
    finite = jnp.minimum(scores, jnp.finfo(jnp.result_type(scores, float)).max)
    index = jnp.argmin(jnp.where(broken, jnp.inf, finite), axis=axis)
    wide = jnp.expand_dims(index, (axis, -2, -1))
    return jnp.squeeze(jnp.take_along_axis(hypotheses, wide, axis=axis), axis=axis), index


def nearest_to_mean(hypotheses: Array, *, axis: int = 1) -> tuple[Array, Array]:
    """The hypothesis nearest to the mean of all: least mean joint distance.

    Args:
      hypotheses: As for `choose_least`.
      axis: Likewise.

    Returns:
      As `choose_least`.

    Raises:
      ValueError: There is no such axis.
    """
    _lead(hypotheses, axis)
    mean = jnp.nanmean(hypotheses, axis=axis, keepdims=True)
    distance = jnp.mean(safe_norm(hypotheses - mean), axis=-1)
    return choose_least(hypotheses, distance, axis=axis)


def most_agreed(hypotheses: Array, *, radius: float = 0.05, axis: int = 1) -> tuple[Array, Array]:
    """The hypothesis with most others within a radius.

    A neighbour counts 1 if it is the same pose and 1/2 at the radius. Unlike the medoid this is
    not moved by hypotheses that are far from all others, however many such there are.

    Args:
      hypotheses: As for `choose_least`.
      radius: Mean joint distance up to which two poses agree, metres.
      axis: As for `choose_least`.

    Returns:
      As `choose_least`.

    Raises:
      ValueError: There is no such axis, or `radius` is not above 0.
    """
    _lead(hypotheses, axis)
    if not radius > 0:
        raise ValueError(f"radius: expected metres above 0, got {radius}")
    x = jnp.moveaxis(hypotheses, axis, 0)
    distance = jnp.mean(safe_norm(x[:, None] - x[None]), axis=-1)
    near = jnp.where(distance <= radius, 1 - 0.5 * distance / radius, 0.0)
    return choose_least(hypotheses, -jnp.moveaxis(jnp.sum(near, axis=1), 0, axis), axis=axis)


def reprojection_error(
    poses: Array,
    translation: Array,
    camera: Camera,
    keypoints: Array,
    *,
    confidence: Array | None = None,
    distort: bool = True,
) -> Array:
    """Mean distance in pixels between projected joints and keypoints: a score to choose by.

    Args:
      poses: `(B, H, F, J, 3)`, metres, camera axes.
      translation: Where their origin is, `(B, H, F, 3)`, metres.
      camera: Leaves `(B, ...)`.
      keypoints: Pixels, `(B, F, J, 2)`.
      confidence: Weighs the joints, `(B, F, J)`; 0 leaves one out.
      distort: Whether the lens bends the image.

    Returns:
      `(B, H, F)`; NaN where no joint counts.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_points(poses, 3, name="poses")
    check_points(keypoints, 2, name="keypoints")
    B, H, F, J = lead = _lead(poses, 1, axes=5) + jnp.shape(poses)[-2:-1]
    for name, value, expected in (
        ("translation", translation, (B, H, F, 3)),
        ("keypoints", keypoints, (B, F, J, 2)),
        ("confidence", confidence, (B, F, J)),
    ):
        if value is not None and jnp.shape(value) != expected:
            raise ValueError(
                f"{name}: expected shape {expected} for poses {(*lead, 3)}, got {jnp.shape(value)}"
            )
    found = project(camera, poses + translation[..., None, :], distort=distort)
    weights = jnp.ones((B, F, J), found.dtype) if confidence is None else confidence
    counted = weights[:, None] > 0
    # A missing keypoint may hold anything.
    error = jnp.where(counted, safe_norm(found - keypoints[:, None]), 0.0)
    return jnp.sum(weights[:, None] * error, axis=-1) / jnp.sum(weights, axis=-1)[:, None]


def denoising_energy(
    key: Array,
    estimate_noise: Callable[[Array, Array], Array],
    perturb: Callable[[Array, Array, Array], Array],
    poses: Array,
    *,
    times: Array,
) -> Array:
    """How badly a prior denoises each pose, a stand-in for -log p: a score to choose by.

    The mean over times t of |z - eps(x_t, t)|^2 / (3 J), x_t = perturb(x, t, z): the prior's own
    training loss. All poses get the same z, and -z too, so that differences are not those of the
    draws: under a Gaussian prior the order is exactly that of its density.

    Args:
      key: Draws one z for each time, `split(key, K)`.
      estimate_noise: `(x_t, t) -> eps` for poses `(..., J, 3)` at one time; weights are bound.
      perturb: `(x, t, z) -> x_t`, the forward process for poses at one time.
      poses: `(..., J, 3)`, metres.
      times: `(K,)`.

    Returns:
      `(...)`, about 1 for noise that is not recognised at all.

    Raises:
      ValueError: `poses` are no poses, or there is no time.
    """
    check_points(poses, 3, name="poses")
    if jnp.ndim(poses) < 2 or jnp.ndim(times) != 1 or not jnp.shape(times)[0]:
        raise ValueError(
            f"poses, times: expected (..., J, 3) and (K,), got {jnp.shape(poses)} and "
            f"{jnp.shape(times)}"
        )

    def add(total: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        t, draw = inputs
        z = jax.random.normal(draw, poses.shape[-2:], poses.dtype)
        for noise in (z, -z):
            eps = estimate_noise(perturb(poses, t, noise), t)
            total = total + jnp.mean((noise - eps) ** 2, axis=(-2, -1))
        return total, None

    draws = jax.random.split(key, len(times))
    total, _ = jax.lax.scan(add, jnp.zeros(poses.shape[:-2], poses.dtype), (times, draws))
    return total / (2 * len(times))


def reprojection_and_energy(pixels: Array, energy: Array, *, power: float = 2.0) -> Array:
    """What the rays say and what the prior says, as one score to choose by.

    Alone, the reprojection error also takes a pose that bends to fit the noise of a detector, and
    the energy a likely pose of somebody else. Their product has no scale to set: only ratios within
    a frame count.

    Args:
      pixels: Of `reprojection_error`, `(B, H, F)`.
      energy: Of `denoising_energy`, the same shape.
      power: Of the energy. The default is the best of 1/2, 1, 2 and 4 on `cmu17-val-v1`, with exact
        keypoints and with 5 px of noise (the card of the package's weights has figures).

    Returns:
      `(B, H, F)`; lower is better.

    Raises:
      ValueError: The shapes differ.
    """
    if jnp.shape(pixels) != jnp.shape(energy):
        raise ValueError(
            f"energy: expected the shape of pixels {jnp.shape(pixels)}, got {jnp.shape(energy)}"
        )
    return pixels * energy**power


def _lead(hypotheses: Array, axis: int, *, axes: int | None = None) -> tuple[int, ...]:
    """The leading axes of hypotheses, checked to have `axis` among them."""
    shape = jnp.shape(hypotheses)
    lead = shape[:-2]
    if not 0 <= axis < len(lead) or not lead[axis] or (axes is not None and len(shape) != axes):
        expected = "(B, H, F, J, 3)" if axes else f"(..., J, 3) with hypotheses on axis {axis}"
        raise ValueError(f"hypotheses: expected {expected}, got shape {shape}")
    return lead
