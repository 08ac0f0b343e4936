"""Puts a moving body on the floor: height from the lowest joint, position from feet that hold."""

import numpy as np
from numpy.typing import NDArray

# How far a joint centre stays above what the body rests on, as a share of stature, in joint order.
_LEG, _ARM = (0.050, 0.030, 0.045), (0.040, 0.025, 0.020)
_CLEARANCE = np.array([0.055, *_LEG, *_LEG, 0.060, 0.050, 0.050, 0.050, *_ARM, *_ARM])
_SOFTNESS = 0.01  # metres; joints this close to the lowest share the load


def settle(relative: NDArray, *, stature: float, seated: NDArray) -> NDArray[np.float64]:
    """The root trajectory of a body whose joints are known relative to the pelvis.

    Height: the lowest joint, less its flesh, touches the floor (a soft minimum, which never lets a
    joint through). Sideways: the joints that bear the load stand still, as feet do when walking,
    or the pelvis does where the body sits.

    Args:
      relative: `(F, 17, 3)`, metres, the pelvis at the origin, y up.
      stature: Body height in metres.
      seated: How far the pelvis rather than the feet holds the place, 0 to 1, `(F,)`.

    Returns:
      Root positions, `(F, 3)`, metres; the floor is y = 0, the first frame stands at x = z = 0.
    """
    heights = relative[..., 1] - stature * _CLEARANCE
    lowest = heights.min(axis=1, keepdims=True)
    load = np.exp((lowest - heights) / _SOFTNESS)
    total = load.sum(axis=1, keepdims=True)
    root = np.zeros((len(relative), 3))
    root[:, 1] = _SOFTNESS * np.log(total[:, 0]) - lowest[:, 0]

    load = load / total
    shared = 0.5 * (load[1:] + load[:-1])
    steps = -np.einsum("fj,fjc->fc", shared, np.diff(relative[..., [0, 2]], axis=0))
    hold = 1.0 - 0.5 * (seated[1:] + seated[:-1])
    root[1:, [0, 2]] = np.cumsum(hold[:, None] * steps, axis=0)
    return root
