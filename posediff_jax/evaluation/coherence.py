"""Coherence of poses: equal sides of the body, segments that keep their length over time.

Neither looks at a ground truth (DiffHPE, section 5.4). Both take the body's segments by name:
"official" as in the released code, "anatomical" with the skeleton's own bones.
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np

from posediff_jax.geometry import segment_lengths
from posediff_jax.skeleton import Skeleton, segments
from posediff_jax.types import Array

# As `metrics.NEEDS`, by the names that reports have: "_anatomical" says which segments.
NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "symmetry_gap": (),
        "symmetry_gap_anatomical": (),
        "segment_std": ("several frames",),
        "segment_std_anatomical": ("several frames",),
    }
)


def side_differences(poses: Array, skeleton: Skeleton, *, bones: str = "official") -> Array:
    """Length of each left segment less that of its right partner, in the order of `skeleton.left`.

    Args and errors as in `geometry.segment_lengths`.

    Returns:
      `(..., S)`, metres, with a sign.
    """
    lengths = segment_lengths(poses, skeleton, bones=bones)
    ends = [child for child, _ in segments(skeleton, bones=bones)]
    left, right = (
        lengths[..., np.array([ends.index(joint) for joint in side])]
        for side in (skeleton.left, skeleton.right)
    )
    return left - right


def symmetry_gap(poses: Array, skeleton: Skeleton, *, bones: str = "official") -> Array:
    """Mean absolute difference between left segments and their right partners (DiffHPE eq. 13).

    Args and errors as in `geometry.segment_lengths`.

    Returns:
      `(...)`, metres; 0 for a body with two equal sides.
    """
    return jnp.mean(jnp.abs(side_differences(poses, skeleton, bones=bones)), axis=-1)


def segment_deviations(
    poses: Array,
    skeleton: Skeleton,
    *,
    bones: str = "official",
    ddof: int = 1,
    mask: Array | None = None,
) -> Array:
    """Standard deviation over time of the length of each segment.

    Args:
      poses: `(..., F, J, 3)`, metres.
      skeleton: Their joints.
      bones: "official" or "anatomical", see `skeleton.segments`.
      ddof: 1 divides by F - 1, as the released code does, 0 by F, as eq. 14 says.
      mask: 1 for a frame that counts, `(..., F)`; None counts all.

    Returns:
      `(..., J - 1)`, metres; NaN where `ddof` frames or fewer count.

    Raises:
      ValueError: `poses` does not fit the skeleton or has no axis of frames, `mask` does not fit
        the poses, another `ddof`, or a name that the skeleton has no segments for.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof: expected 0 or 1, got {ddof}")
    if jnp.ndim(poses) < 3:
        raise ValueError(f"poses: expected (..., F, J, 3), got shape {jnp.shape(poses)}")
    if mask is not None and jnp.shape(mask) != jnp.shape(poses)[:-2]:
        raise ValueError(f"mask: expected {jnp.shape(poses)[:-2]}, got shape {jnp.shape(mask)}")
    lengths = segment_lengths(poses, skeleton, bones=bones)
    counted = jnp.ones(lengths.shape[:-1], bool) if mask is None else jnp.asarray(mask) > 0
    return jnp.std(lengths, axis=-2, ddof=ddof, where=counted[..., None])


def segment_std(
    poses: Array,
    skeleton: Skeleton,
    *,
    bones: str = "official",
    ddof: int = 1,
    mask: Array | None = None,
) -> Array:
    """Mean over segments of the deviation of their length over time (DiffHPE eq. 14).

    Args and errors as in `segment_deviations`.

    Returns:
      `(...)` for poses `(..., F, J, 3)`, metres; 0 for a body that keeps its segments.
    """
    deviations = segment_deviations(poses, skeleton, bones=bones, ddof=ddof, mask=mask)
    return jnp.mean(deviations, axis=-1)
