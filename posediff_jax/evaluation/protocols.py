"""Published evaluation protocols: what is done to predictions, and who is averaged with whom."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from posediff_jax.camera import backproject, camera_from_vector
from posediff_jax.evaluation.metrics import best_scale, mpjpe
from posediff_jax.geometry import check_points, root_center
from posediff_jax.types import Array

# What each protocol uses beyond the keypoints, in the words of `metrics.NEEDS`.
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "diffupose_official": ("camera", "root trajectory (ground-truth depth)"),
        "n_mpjpe_per_axis": ("ground truth", "ground-truth scale of each axis"),
        "action_means": (),
    }
)


class ActionMeans(NamedTuple):
    """Averages over a data set, action by action.

    Attributes:
      actions: The actions that occur, sorted, `(A,)`.
      means: Mean over all frames of each action, `(A,)`, in the unit of the values.
      counts: Number of frames of each action, `(A,)`.
      mean: Plain mean of `means`.
    """

    actions: np.ndarray
    means: np.ndarray
    counts: np.ndarray
    mean: float


def diffupose_official(
    predicted: Array,
    keypoints_screen: Array,
    root_depth: Array,
    intrinsics: Array,
    *,
    root: int = 0,
) -> Array:
    """DiffuPose's post-processing, which USES GROUND TRUTH: x and y come from the 2D input.

    Each joint is put on its viewing ray at the predicted depth behind the true root,
    `Z_j = z_j + Z_root`, `Z_root_joint = Z_root`, `X_j = (u_j - c_x) Z_j / f_x` (likewise Y), and
    the root's X, Y are subtracted. Only z remains of the prediction. The paper does not mention
    it; all Human3.6M numbers of the released code have it.
    Needs camera and root trajectory (ground-truth root depth). Distortion is ignored.

    Args:
      predicted: `(..., J, 3)`, metres, root-relative.
      keypoints_screen: `(..., J, 2)`, screen units.
      root_depth: True z of the root in camera axes, `(...)`, metres.
      intrinsics: The 9-vector of `camera.intrinsics_vector`, `(9,)` or `(..., 9)`.
      root: Index of the root joint.

    Returns:
      `(..., J, 3)`, metres: x and y relative to the root, z as predicted.

    Raises:
      ValueError: Shapes do not fit.
    """
    check_points(predicted, 3, name="predicted")
    check_points(keypoints_screen, 2, name="keypoints_screen")
    if jnp.shape(predicted)[:-1] != jnp.shape(keypoints_screen)[:-1]:
        raise ValueError(
            f"keypoints_screen: expected the axes (..., J) of predicted "
            f"{jnp.shape(predicted)}, got shape {jnp.shape(keypoints_screen)}"
        )
    root_depth = jnp.asarray(root_depth)
    if jnp.shape(root_depth) != jnp.shape(predicted)[:-2]:
        raise ValueError(
            f"root_depth: expected {jnp.shape(predicted)[:-2]}, got shape {root_depth.shape}"
        )
    z = predicted[..., 2]
    depth = (z + root_depth[..., None]).at[..., root].set(root_depth)
    # A camera whose image is 2 x 2 has the screen units themselves, moved by 1, as its pixels.
    camera = camera_from_vector(intrinsics, (2, 2))
    points = backproject(camera, keypoints_screen + 1.0, depth)
    return jnp.concatenate([root_center(points, root=root)[..., :2], z[..., None]], axis=-1)


def n_mpjpe_per_axis(predicted: Array, target: Array) -> Array:
    """MPJPE after one scale per coordinate axis and pose, as DiffuPose's code computes N-MPJPE.

    `s_c = sum_j y_jc p_jc / sum_j p_jc^2`. Three scales also stretch the pose, so this is not the
    usual metric with one scale per pose, `metrics.n_mpjpe`. Needs ground truth, also to scale.

    Args:
      predicted: `(..., J, 3)`, metres, root-relative.
      target: `(..., J, 3)`, metres, root-relative.

    Returns:
      `(...)`, metres.

    Raises:
      ValueError: Shapes do not fit.
    """
    return mpjpe(best_scale(predicted, target, axis=-2) * predicted, target)


def action_means(values: Any, actions: Any, *, mask: Any = None) -> ActionMeans:
    """Averages per frame inside each action, then plainly over actions. Host-side, float64.

    Long actions weigh no more than short ones: the convention of Human3.6M tables.

    Args:
      values: `(N, ...)`, one number per frame, or per clip and frame; any unit.
      actions: Action number of each item, `(N,)` integers.
      mask: Shaped like `values`, 0 for padding; None counts every frame.

    Returns:
      Per-action means and their mean. Actions without an unmasked frame are left out.

    Raises:
      ValueError: Shapes do not fit, or no frame is left.

    >>> action_means([1.0, 3.0, 10.0], [0, 0, 7]).mean
    6.0
    """
    values, actions = np.asarray(values, dtype=np.float64), np.asarray(actions)
    if values.ndim < 1 or actions.shape != values.shape[:1]:
        raise ValueError(
            f"actions: expected one per item of values {values.shape}, got shape {actions.shape}"
        )
    weights = np.ones_like(values) if mask is None else np.asarray(mask, dtype=np.float64)
    if weights.shape != values.shape:
        raise ValueError(f"mask: expected the shape of values {values.shape}, got {weights.shape}")
    # Padded frames may hold anything, NaN included.
    within = tuple(range(1, values.ndim))
    weighted = np.where(weights > 0, values * weights, 0.0).sum(axis=within)
    weight = weights.sum(axis=within)
    names, group = np.unique(actions, return_inverse=True)
    sums = np.bincount(group, weights=weighted, minlength=len(names))
    counts = np.bincount(group, weights=weight, minlength=len(names))
    found = counts > 0
    if not found.any():
        raise ValueError(f"values: expected at least one unmasked frame, got shape {values.shape}")
    means = sums[found] / counts[found]
    return ActionMeans(names[found], means, counts[found], float(means.mean()))
