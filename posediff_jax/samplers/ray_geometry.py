"""ZeDO's geometry: where a pose stands on its viewing rays, and its nearest points on them.

Rays are `(x, y, 1)`, from `camera.rays`. Root-relative poses and translations are metres in camera
axes.
"""

import jax.numpy as jnp

from posediff_jax.camera import fit_translation
from posediff_jax.geometry import check_points, check_pose_pair
from posediff_jax.types import Array

# What the released code clamps confidences to, in place.
CONFIDENCE_RANGE = (1e-4, 1.0)


def clamp_confidence(confidence: Array) -> Array:
    """Confidences within [1e-4, 1], so that no joint is left out altogether."""
    return jnp.clip(confidence, *CONFIDENCE_RANGE)


def solve_translation(rays: Array, pose: Array, *, confidence: Array | None = None) -> Array:
    """ZeDO's translation of a pose: `fit_translation` with weights c^4, in front of the camera.

    The released code multiplies the rows of its least-squares problem by c^2, so c^4 is the weight
    of a squared residual, and negates the whole vector where the depth comes out negative. The
    paper writes a reprojection error in pixels; this is the algebraic one in the normalised plane.

    Args:
      rays: `(..., J, 3)`, the third coordinate 1.
      pose: `(..., J, 3)`, root-relative, metres.
      confidence: `(..., J)`, clamped to [1e-4, 1]; None weighs all joints alike.

    Returns:
      T, `(..., 3)`, metres; NaN where all rays coincide.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(rays, pose, names=("rays", "pose"), weights=confidence)
    weights = None if confidence is None else clamp_confidence(confidence) ** 4
    return face_forward(fit_translation(rays, pose, weights=weights))


def face_forward(translation: Array) -> Array:
    """Negates translations `(..., 3)` with a negative depth, as the released code does."""
    return jnp.where(translation[..., 2:] < 0, -translation, translation)


def unit_rays(rays: Array) -> Array:
    """Rays `(..., J, 3)` of length 1."""
    return rays / jnp.sqrt(jnp.sum(rays**2, axis=-1, keepdims=True))


def snap_to_rays(directions: Array, pose: Array, translation: Array) -> Array:
    """Moves each joint to its foot on the ray: ((P + T).r) r - T (ZeDO, section 3.3).

    The nearest point, not the one of the same depth.

    Args:
      directions: `unit_rays`, `(..., J, 3)`.
      pose: `(..., J, 3)`, root-relative, metres.
      translation: `(..., 3)`, metres.

    Returns:
      `(..., J, 3)`, relative to where the root was, metres.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_pose_pair(directions, pose, names=("directions", "pose"))
    check_points(translation, 3, name="translation")
    T = translation[..., None, :]
    along = jnp.sum((pose + T) * directions, axis=-1, keepdims=True)
    return along * directions - T
