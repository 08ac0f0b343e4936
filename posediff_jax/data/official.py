"""One epoch as the released DiffuPose code emits it, on bare arrays, for comparison with it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.batching import list_items, mirror, official_order
from posediff_jax.skeleton import Skeleton


def official_epoch(
    sequences_2d: Sequence[NDArray],
    sequences_3d: Sequence[NDArray],
    cameras: Sequence[NDArray],
    skeleton: Skeleton,
    *,
    seed: int = 1234,
    augment: bool = True,
) -> tuple[NDArray, NDArray, NDArray]:
    """All single-frame samples of an epoch in the order of the authors' training script.

    `batches(item_table(sequences, augment=True), order="official")` gives the same items; this
    takes arrays that no camera could have made, as test fixtures do.

    Args:
      sequences_2d: Keypoints in screen units, `(F, J, 2)` each.
      sequences_3d: Joints, `(F, J, 3)` each.
      cameras: Intrinsics in screen units, `(9,)` each (`camera.intrinsics_vector`).
      skeleton: Says which joints are partners.
      seed: Of the permutation.
      augment: Emit each frame once more, mirrored.

    Returns:
      Keypoints `(M, 1, J, 2)`, joints `(M, 1, J, 3)`, intrinsics `(M, 9)`.
    """
    items = list_items([len(s) for s in sequences_2d], augment=augment)
    order = official_order(len(items), seed=seed)
    # Mirroring negates the horizontal principal point and the first tangential coefficient.
    signs = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
    points_2d, points_3d, intrinsics = [], [], []
    for sequence, start, end, flip in items[order]:
        a, b = sequences_2d[sequence][start:end], sequences_3d[sequence][start:end]
        if flip:
            a, b = (mirror(x, skeleton.flip_permutation) for x in (a, b))
        points_2d.append(a)
        points_3d.append(b)
        intrinsics.append(cameras[sequence] * (signs if flip else 1.0))
    return np.stack(points_2d), np.stack(points_3d), np.stack(intrinsics)
