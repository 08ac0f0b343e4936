"""The pytrees and protocols that every layer of the package speaks.

Letters in shapes: B batch, H hypotheses, F frames, J joints, C channels, N sampler steps, W stored
iterations. Lengths are metres; camera axes are x right, y down, z forward.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax

Array = jax.Array
PyTree = Any
Variables = Mapping[str, Any]


@flax.struct.dataclass
class Camera:
    """A pinhole camera with lens distortion. All leaves share leading axes `(...)`.

    Attributes:
      focal: Focal lengths in pixels, `(..., 2)`.
      center: Principal point in pixels, `(..., 2)`.
      image_size: Width and height in pixels, `(..., 2)`.
      radial: Coefficients k1, k2, k3, `(..., 3)`.
      tangential: Coefficients p1, p2, `(..., 2)`.
      orientation: Unit quaternion (w, x, y, z) that turns camera axes into world axes, `(..., 4)`.
      position: Camera centre in the world, metres, `(..., 3)`.
    """

    focal: Array
    center: Array
    image_size: Array
    radial: Array
    tangential: Array
    orientation: Array
    position: Array


@flax.struct.dataclass
class PoseBatch:
    """One batch of clips: what a lifter sees, and what it should say where that is known.

    Attributes:
      keypoints: 2D joints in screen units (x in [-1, 1], aspect kept), `(B, F, J, 2)`.
      keypoints_px: The same in pixels, `(B, F, J, 2)`.
      confidence: Detector confidence in [0, 1]; 0 means missing, `(B, F, J)`.
      mask: 1.0 for a real frame, 0.0 for padding, `(B, F)`.
      index: Global item index; all randomness of an item derives from it, `(B,)` int32.
      subject: Subject number, legend in `PoseSequences.subjects`, `(B,)` int32.
      action: Action number, legend in `PoseSequences.actions`, `(B,)` int32.
      camera: The camera of each clip, leaves `(B, ...)`.
      pose: Root-relative joints in camera axes, metres, `(B, F, J, 3)`, or None where unknown.
      root: Root position in camera axes, metres, `(B, F, 3)`, or None where unknown.
      start: A guess at the pose, such as that of the frame before, root-relative in camera axes,
        metres, `(B, F, J, 3)`, NaN where there is none; None for no guess at all. Of use to "zedo".
    """

    keypoints: Array
    keypoints_px: Array
    confidence: Array
    mask: Array
    index: Array
    subject: Array
    action: Array
    camera: Camera
    pose: Array | None = None
    root: Array | None = None
    start: Array | None = None

    @property
    def num_items(self) -> int:
        """B."""
        return self.keypoints.shape[0]


@flax.struct.dataclass
class SampleResult:
    """What a sampler returns.

    Attributes:
      samples: The final state, a pytree like the sampler's `x_init`; from a system
        `(B, H, F, J, 3)` root-relative metres.
      trajectory: The state after each step with steps first, `(N, ...)`; from a system
        `(B, N, H, F, J, 3)`. None unless asked for.
      records: What the caller of a sampler asked to keep of each prediction, steps first, or None;
        from a system what it has to say beside the poses, a dict of `(B, ...)` arrays, or None.
    """

    samples: PyTree
    trajectory: PyTree = None
    records: PyTree = None


class Prediction(NamedTuple):
    """What a denoiser says about a noisy state.

    Attributes:
      x0: The clean state, a pytree like `x_t`.
      eps: The noise, likewise.
      aux: What else a system wants `record`ed of each step, or None.
    """

    x0: PyTree
    eps: PyTree
    aux: PyTree = None


class PredictFn(Protocol):
    """The one denoiser convention that all samplers know: weights and condition are bound."""

    def __call__(self, x_t: PyTree, t: Array) -> Prediction:
        """Predicts clean state and noise at the 0-based timestep `t`."""
        ...


class Aux(NamedTuple):
    """What a loss returns beside its value: scalar metrics and updated mutable collections."""

    metrics: Mapping[str, Array]
    mutable: Mapping[str, PyTree]
