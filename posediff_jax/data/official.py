"""One epoch as the released code emits it, on bare arrays, for comparison with it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.batching import list_items, mirror, official_order
from posediff_jax.data.windows import expand
from posediff_jax.skeleton import Skeleton


def official_epoch(
    sequences_2d: Sequence[NDArray],
    sequences_3d: Sequence[NDArray],
    cameras: Sequence[NDArray],
    skeleton: Skeleton,
    *,
    length: int = 1,
    seed: int = 1234,
    augment: bool = True,
) -> tuple[NDArray, NDArray, NDArray]:
    """All windows of the first epoch in the order of the authors' training scripts.

    `batches(item_table(sequences, length=length, pad="split", augment=True), order="official")`
    gives the same items; this takes arrays that no camera could have made, as test fixtures do.

    Args:
      sequences_2d: Keypoints in screen units, `(F, J, 2)` each.
      sequences_3d: Joints, `(F, J, 3)` each.
      cameras: Intrinsics in screen units, `(9,)` each (`camera.intrinsics_vector`).
      skeleton: Says which joints are partners.
      length: F, frames of a window; 1 for DiffuPose.
      seed: Of the permutation.
      augment: Emit each window once more, mirrored.

    Returns:
      Keypoints `(M, F, J, 2)`, joints `(M, F, J, 3)`, intrinsics `(M, 9)`.
    """
    counts = [len(s) for s in sequences_2d]
    items = list_items(counts, length=length, pad="split", augment=augment)
    order = official_order(len(items), seed=seed)
    # Mirroring negates the horizontal principal point and the first tangential coefficient.
    signs = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    points_2d, points_3d, intrinsics = [], [], []
    frames, _ = expand(items[order, 1], items[order, 2], length=length)
    for (sequence, _, _, flip), window in zip(items[order], frames, strict=True):
        a, b = sequences_2d[sequence][window], sequences_3d[sequence][window]
        if flip:
            a, b = (mirror(x, skeleton.flip_permutation) for x in (a, b))
        points_2d.append(a)
        points_3d.append(b)
        intrinsics.append(cameras[sequence] * (signs if flip else 1.0))
    return np.stack(points_2d), np.stack(points_3d), np.stack(intrinsics)
