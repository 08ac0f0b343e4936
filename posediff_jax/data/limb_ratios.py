"""Whether 2D keypoints have the limbs of a person: tells one joint order from another."""

import numpy as np
from numpy.typing import NDArray

from posediff_jax.skeleton import SKELETONS, get_skeleton

# Ends of limbs and lengths as shares of stature (after Drillis and Contini); a joint order is
# judged by those that it has.
_LIMBS = {
    **{(f"{s}_hip", f"{s}_knee"): 0.247 for s in ("left", "right")},
    **{(f"{s}_knee", f"{s}_ankle"): 0.246 for s in ("left", "right")},
    **{(f"{s}_shoulder", f"{s}_elbow"): 0.162 for s in ("left", "right")},
    **{(f"{s}_elbow", f"{s}_wrist"): 0.145 for s in ("left", "right")},
    **{(f"{s}_hip", f"{s}_shoulder"): 0.29 for s in ("left", "right")},
    **{("nose", f"{s}_eye"): 0.035 for s in ("left", "right")},
    **{("pelvis", "spine"): 0.135, ("spine", "thorax"): 0.145},
    **{("thorax", "neck"): 0.068, ("neck", "head"): 0.066},
}
_MOST_FRAMES = 200


def limb_misfit(points: NDArray, confidence: NDArray, layout: str) -> float:
    """How unlike a person's limbs are: mean |log(length / expected)|, scale apart, median frame.

    Foreshortening alone gives 0.15 as a rule; a wrong joint order gives more, as it makes limbs of
    eyes and ears.

    Args:
      points: Pixels, `(F, J, 2)`.
      confidence: `(F, J)`; a limb counts where both ends have more than 0.
      layout: Name of the joint order to try, see `skeleton.SKELETONS`.

    Returns:
      NaN where no frame has more than half of the limbs.

    Raises:
      ValueError: `points` and the layout differ in J, or the layout is not known.
    """
    skeleton = get_skeleton(layout)
    if points.ndim != 3 or points.shape[1] != skeleton.num_joints:
        raise ValueError(
            f"points: expected (F, {skeleton.num_joints}, 2) for {layout!r}, got {points.shape}"
        )
    rows = np.linspace(0, len(points) - 1, min(len(points), _MOST_FRAMES)).astype(int)
    points, confidence = points[rows].astype(np.float64), confidence[rows]
    index = {name: j for j, name in enumerate(skeleton.joints)}
    limbs = [ends for ends in _LIMBS if set(ends) <= set(index)]
    a, b = np.array([[index[end] for end in ends] for ends in limbs]).T
    expected = np.array([_LIMBS[ends] for ends in limbs])
    length = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    seen = (confidence[:, a] > 0) & (confidence[:, b] > 0) & np.isfinite(length)
    whole = seen.mean(axis=1) > 0.5
    if not whole.any():
        return float("nan")
    # A limb that points at the camera has hardly any length: its logarithm must not decide.
    ratio = np.where(seen, np.log(np.maximum(length, 1e-6) / expected), np.nan)[whole]
    ratio = np.clip(ratio - np.nanmedian(ratio, axis=1, keepdims=True), -2.0, 2.0)
    return float(np.median(np.nanmean(np.abs(ratio), axis=1)))


def likely_layout(
    points: NDArray, confidence: NDArray, layout: str, *, worst: float = 0.3, gain: float = 0.6
) -> str:
    """The joint order that keypoints are likely to have: `layout` unless another fits far better.

    Args:
      points: Pixels, `(F, J, 2)`.
      confidence: `(F, J)`.
      layout: What they are said to be.
      worst: A misfit up to this is a person's, see `limb_misfit`.
      gain: Another order must bring the misfit below this share.

    Returns:
      A name of `skeleton.SKELETONS` with as many joints.

    Raises:
      ValueError: As `limb_misfit`.
    """
    said = limb_misfit(points, confidence, layout)
    if not said > worst:
        return layout
    others = {
        name: limb_misfit(points, confidence, name)
        for name, skeleton in SKELETONS.items()
        if name != layout and skeleton.num_joints == points.shape[1]
    }
    best = min(others, key=lambda name: others[name], default=layout)
    return best if others and others[best] < gain * said else layout
