"""Who is who from frame to frame, for detectors that do not say: nearest keypoints, no pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def follow_people(
    frames: Sequence[tuple[int, Sequence[NDArray]]], *, reach: float = 0.5, patience: int = 30
) -> list[list[int]]:
    """Gives each detection the number of a person.

    The distance of two detections is that of the joints that both have, on average, over the size
    of the older one (the diagonal of its bounding box). Pairs are joined nearest first.

    Args:
      frames: Frame numbers in rising order, each with its detections `(K, 3)`: x, y, confidence.
      reach: Largest distance of the same person between two detections.
      patience: Frames after which somebody who is not seen is given up.

    Returns:
      For each frame the person of each detection; numbers start at 0, in order of appearance.

    Raises:
      ValueError: `reach` is not above 0 or `patience` is below 1.
    """
    if not reach > 0 or patience < 1:
        raise ValueError(
            f"reach, patience: expected more than 0 and at least 1, got {reach}, {patience}"
        )
    last: dict[int, tuple[int, NDArray]] = {}
    people: list[list[int]] = []
    count = 0
    for number, detections in frames:
        near = {p: points for p, (seen, points) in last.items() if number - seen <= patience}
        found = _match(near, detections, reach)
        for i in range(len(detections)):
            if i not in found:
                found[i], count = count, count + 1
        people.append([found[i] for i in range(len(detections))])
        last |= {found[i]: (number, np.asarray(d)) for i, d in enumerate(detections)}
    return people


def _match(near: dict[int, NDArray], detections: Sequence[NDArray], reach: float) -> dict[int, int]:
    """Detection to person, each at most once."""
    pairs = sorted(
        (_distance(old, np.asarray(new)), i, person)
        for i, new in enumerate(detections)
        for person, old in near.items()
    )
    found: dict[int, int] = {}
    for distance, i, person in pairs:
        if distance <= reach and i not in found and person not in found.values():
            found[i] = person
    return found


def _distance(old: NDArray, new: NDArray) -> float:
    both = (old[:, 2] > 0) & (new[:, 2] > 0) & np.isfinite(old + new).all(axis=1)
    if not both.any():
        return np.inf
    size = float(np.linalg.norm(np.ptp(old[both, :2], axis=0)))
    apart = np.linalg.norm(old[both, :2] - new[both, :2], axis=1).mean()
    return float(apart) / max(size, 1.0)
