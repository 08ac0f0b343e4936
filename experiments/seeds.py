"""Figures over the seeds of a run: their mean, their spread, and differences that are none."""

from collections.abc import Sequence

import numpy as np


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The mean and half the range.

    >>> spread([40.0, 41.0]), spread([40.0])
    ('40.50 ± 0.50', '40.00')
    """
    half = f" ± {np.ptp(values) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{half}"


def difference(values: Sequence[float], first: Sequence[float], digits: int = 2) -> str:
    """How much larger the mean is; "none" where that is not above the range of either over seeds.

    >>> difference([41.2, 41.3], [40.0, 41.0]), difference([42.0, 42.0], [40.0, 41.0])
    ('none', '+1.50')

    One seed has no range, so nothing can be called none.

    >>> difference([40.1], [40.0])
    '+0.10 (one seed)'
    """
    gap = float(np.mean(values) - np.mean(first))
    if min(len(values), len(first)) < 2:
        return f"{gap:+.{digits}f} (one seed)"
    noise = max(float(np.ptp(v)) for v in (values, first))
    return "none" if abs(gap) <= noise else f"{gap:+.{digits}f}"
