"""What training and sampling of DiffHPE share: the frozen lifter, dropped conditions, the noise."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.process.schedules import Schedule
from posediff_jax.types import Array, Variables

FROZEN = "frozen"
Dropped = Literal["condition", "keypoints"]


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How an unconditional evaluation is made, and how far sampling goes away from it.

    Attributes:
      dropped: "condition" or "keypoints", see `diffhpe.ModelOptions`.
      share: Share of the keypoints that it is not told.
      weight: w: eps = (1 + w) eps_cond - w eps_uncond.

    Raises:
      ValueError: A number out of range.
    """

    dropped: Dropped = "condition"
    share: float = 1.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"model.dropped_share: expected 0 < share <= 1, got {self.share}")
        if self.share < 1 and self.dropped != "keypoints":
            raise ValueError(
                "model.dropped_share: only keypoints can be dropped in part, got "
                f"{self.share} with model.dropped={self.dropped!r}"
            )

    def kept_keypoints(self, key: Array, shape: tuple[int, ...]) -> Array:
        """1 for keypoints that an unconditional evaluation of a window is told, `(F, J, 1)`.

        Args:
          key: Of the window; unused where none is told.
          shape: `(F, J)`.
        """
        if self.share == 1:
            return jnp.zeros((*shape, 1))
        return jax.random.bernoulli(key, 1 - self.share, (*shape, 1)).astype(jnp.float32)


class NoiseShape(NamedTuple):
    """Standard deviation and mean of the noise, `(J, C)` metres; None for 1 and 0."""

    std: NDArray[np.float64] | None = None
    mean: NDArray[np.float64] | None = None

    def noise(self, normal: Array) -> Array:
        """The noise that standard normals `(..., J, C)` stand for."""
        if self.std is not None:
            normal = normal * self.std.astype(normal.dtype)
        return normal if self.mean is None else normal + self.mean.astype(normal.dtype)

    def normal(self, noise: Array) -> Array:
        """The inverse of `noise`."""
        if self.mean is not None:
            noise = noise - self.mean.astype(noise.dtype)
        return noise if self.std is None else noise / self.std.astype(noise.dtype)

    def shown(self, schedule: Schedule, state: Array, t: Array) -> Array:
        """What the network sees of a sampler's state, in which the noise is standard normal.

        x_t = std u_t + sqrt(1 - abar_t) mean; u_t is diffused by standard normals from x_0 / std.

        Args:
          schedule: Tables of the process.
          state: u_t, `(..., J, C)`.
          t: Timestep, a scalar.
        """
        x = state if self.std is None else state * self.std.astype(state.dtype)
        if self.mean is None:
            return x
        return x + (schedule.rates(t)[1] * self.mean).astype(x.dtype)

    def hidden(self, schedule: Schedule, x: Array, t: Array) -> Array:
        """The inverse of `shown`."""
        if self.mean is not None:
            x = x - (schedule.rates(t)[1] * self.mean).astype(x.dtype)
        return x if self.std is None else x / self.std.astype(x.dtype)


def noise_shape(
    std: tuple[float, ...], mean: tuple[float, ...], model: DiffHPEDenoiser
) -> NoiseShape:
    """Reads the fields `noise_std` and `noise_mean` of the section `process`.

    Args:
      std: One number per joint and coordinate, joint by joint; empty for 1.
      mean: Likewise; empty for 0.
      model: Says how many there are.

    Raises:
      ValueError: Another number of values, or a standard deviation that is not above 0.
    """
    shape = (model.skeleton.num_joints, model.pose_channels)
    tables: dict[str, NDArray | None] = {}
    for name, values in (("std", std), ("mean", mean)):
        if values and len(values) != shape[0] * shape[1]:
            raise ValueError(
                f"process.noise_{name}: expected {shape[0] * shape[1]} numbers, one per joint and "
                f"coordinate, got {len(values)}"
            )
        tables[name] = np.asarray(values, np.float64).reshape(shape) if values else None
    if tables["std"] is not None and not (tables["std"] > 0).all():
        raise ValueError(f"process.noise_std: expected numbers above 0, got {min(std)}")
    return NoiseShape(**tables)


def freeze_lifter(
    variables: Variables, lifter: Variables, model: DiffHPEDenoiser
) -> dict[str, Any]:
    """Puts the weights of a trained lifter into a collection that no optimiser sees.

    Args:
      variables: Of `model`, their own lifter included.
      lifter: Of a MixSTE, a collection `params`; its linear head may be there and is left out where
        the condition is what it is given.
      model: The denoiser.

    Returns:
      `variables` with the lifter under "frozen", not under "params".

    Raises:
      ValueError: The lifter is no MixSTE of the size of the model's.
    """
    params = dict(variables["params"])
    expected = params.pop("lifter")
    if "params" not in lifter:
        raise ValueError(f"frozen: expected a collection 'params', got {sorted(lifter)}")
    given = dict(lifter["params"])
    if "head" not in expected["trunk"] and "head" in given.get("trunk", {}):
        given["trunk"] = {k: v for k, v in given["trunk"].items() if k != "head"}
    _check_lifter(given, expected, model)
    return {**variables, "params": params, FROZEN: {"lifter": jax.tree.map(jnp.asarray, given)}}


def join_lifter(variables: Variables) -> dict[str, Any]:
    """Variables as the network takes them: a frozen lifter back among the parameters."""
    rest = {name: value for name, value in variables.items() if name != FROZEN}
    return {**rest, "params": {**variables["params"], **variables.get(FROZEN, {})}}


def _check_lifter(given: Any, expected: Any, model: DiffHPEDenoiser) -> None:
    found, wanted = _shapes(given), _shapes(expected)
    if found == wanted:
        return
    sizes = {
        "width": ("joint_positions", 1),
        "num_frames": ("trunk/frame_positions", 0),
        "joints": ("joint_positions", 0),
        "channels of keypoints": ("embed/kernel", 0),
    }
    clashes = [
        f"{name} {found[path][axis]}, expected {wanted[path][axis]}"
        for name, (path, axis) in sizes.items()
        if path in found and found[path][axis : axis + 1] != wanted[path][axis : axis + 1]
    ]
    depths = [
        len(
            {p.split("/")[1] for p in shapes if p.startswith("trunk/spatial_") and "norm/" not in p}
        )
        for shapes in (found, wanted)
    ]
    if depths[0] != depths[1]:
        clashes.append(f"depth {depths[0]}, expected {depths[1]}")
    missing = [path for path in wanted if path not in found]
    if not clashes and missing:
        clashes.append(f"no {missing[0]}")
    other = [path for path in found if found[path] != wanted.get(path)]
    if not clashes:
        clashes.append(f"{other[0]} of shape {found[other[0]]}, expected {wanted.get(other[0])}")
    skeleton = model.skeleton.name
    raise ValueError(
        f"frozen: the lifter does not fit model.lifter_* and skeleton {skeleton!r}: "
        + "; ".join(clashes)
    )


def _shapes(tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(k.key) for k in path): tuple(leaf.shape) for path, leaf in leaves}
