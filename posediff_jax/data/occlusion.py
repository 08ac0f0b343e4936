"""Hidden 2D joints: the occlusion patterns of DiffHPE (its section 5.2), for any system.

What is hidden in an item is a function of a key and the item's global index alone, so it does not
depend on batch size, devices or restarts. A hidden joint has confidence 0 and lies at zero in
screen units, the centre of the image (`MISSING`).
"""

import contextlib
import dataclasses
import numbers
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray

from posediff_jax.config import read_options
from posediff_jax.keys import item_keys
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Array

# Patterns and the share that each hides as published: of joints, for the others of frames.
RATES: Mapping[str, float] = MappingProxyType(
    {
        "none": 0.0,
        "random": 0.2,
        "leg_and_arm": 0.4,
        "consecutive_leg": 0.4,
        "consecutive_frames": 0.2,
    }
)
MIXED = "all"
PATTERNS = (*RATES, MIXED)
# Where networks see a missing joint. A checkpoint's config names the one it was trained with.
MISSING = ("zero_screen",)
DRAWS = ("exact", "bernoulli")
STARTS = ("official", "all")

_CONSECUTIVE = ("consecutive_leg", "consecutive_frames")
_RIGHT_LEG = ("right_hip", "right_knee", "right_ankle")
_LEFT_ARM = ("left_shoulder", "left_elbow", "left_wrist")
_STREAMS = {"train": 0, "score": 1}
# Its draws for an item do not depend on the batch.
_GENERATOR = "threefry2x32"


@dataclasses.dataclass(frozen=True)
class Occlusion:
    """The section `data.occlusion` of a config; `read_occlusion` fills in the published rate.

    Attributes:
      pattern: "none"; "random" (every joint of every frame for itself); "leg_and_arm" (right leg
        and left arm, in frames that need not follow each other); "consecutive_leg" (right leg, in
        a span of frames); "consecutive_frames" (all joints, in a span of frames); or "all", one of
        these five for each item, all as likely, at their published rates. The released code calls
        them no_miss, random, random_left_arm_right_leg, structured_joint, structured_frame, all.
      rate: Share of joints ("random") or of frames that is hidden, in [0, 1].
      span: Frames of a span; 0 for `int(rate F)`.
      draw: "exact" hides `int(rate F)` frames under "leg_and_arm", as the released code does;
        "bernoulli" each frame with probability `rate`, as the paper says.
      starts: "official" leaves out the last start that a span could have, as the released code
        does; "all" has it.
      missing: "zero_screen", the only convention: hidden joints are zero in screen units.
    """

    pattern: str = "none"
    rate: float = 0.0
    span: int = 0
    draw: str = "exact"
    starts: str = "official"
    missing: str = MISSING[0]

    def __post_init__(self) -> None:
        for field, choices in (
            ("pattern", PATTERNS),
            ("missing", MISSING),
            ("draw", DRAWS),
            ("starts", STARTS),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"occlusion.{field}: expected one of {choices}, got {getattr(self, field)!r}"
                )
        for field, kind in (("rate", numbers.Real), ("span", numbers.Integral)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise TypeError(
                    f"occlusion.{field}: expected a {'whole ' if field == 'span' else ''}number, "
                    f"got {value!r}"
                )
        # Not `0 > rate or rate > 1`, which a NaN would pass.
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"occlusion.rate: expected a value in [0, 1], got {self.rate}")
        if self.span < 0:
            raise ValueError(f"occlusion.span: expected at least 0, got {self.span}")
        if self.span and self.pattern not in _CONSECUTIVE:
            raise ValueError(
                f"occlusion.span: expected 0 with {self.pattern!r}, only {_CONSECUTIVE} have "
                f"spans, got {self.span}"
            )
        if self.starts == "all" and self.pattern not in (*_CONSECUTIVE, MIXED):
            raise ValueError(
                f"occlusion.starts: expected 'official' with {self.pattern!r}, only {_CONSECUTIVE} "
                f"have spans, got {self.starts!r}"
            )
        if self.draw == "bernoulli" and self.pattern not in ("leg_and_arm", MIXED):
            raise ValueError(
                f"occlusion.draw: 'bernoulli' is a form of 'leg_and_arm', got {self.pattern!r}"
            )
        if self.rate and self.pattern in ("none", MIXED):
            raise ValueError(
                f"occlusion.rate: {self.pattern!r} has no rate of its own, got {self.rate}"
            )

    @property
    def patterns(self) -> tuple["Occlusion", ...]:
        """What an item may get: itself, or the five that "all" stands for."""
        if self.pattern != MIXED:
            return (self,)
        draws = {"leg_and_arm": self.draw}
        starts = dict.fromkeys(_CONSECUTIVE, self.starts)
        return tuple(
            dataclasses.replace(
                self,
                pattern=name,
                rate=rate,
                draw=draws.get(name, "exact"),
                starts=starts.get(name, "official"),
            )
            for name, rate in RATES.items()
        )

    @property
    def hides(self) -> bool:
        """Whether anything may be hidden."""
        return self.pattern == MIXED or self.rate > 0 or self.span > 0


def read_occlusion(fields: Mapping[str, Any]) -> Occlusion:
    """Reads the section `data.occlusion` of a config.

    Args:
      fields: Fields of `Occlusion`; without a rate, or with None, it is the published one of the
        pattern.

    Raises:
      ValueError: An unknown field, pattern, or convention of what a missing joint is, or a value
        out of range.
      TypeError: A value of the wrong type.

    >>> read_occlusion({"pattern": "random"}).rate
    0.2
    """
    if not isinstance(fields, Mapping | ConfigDict):
        raise TypeError(f"data.occlusion: expected fields of Occlusion, got {fields!r}")
    given = dict(fields)
    if given.get("rate") is None:
        # Whatever else a pattern is, `Occlusion` refuses.
        pattern = given.get("pattern", "none")
        given["rate"] = RATES.get(pattern, 0.0) if isinstance(pattern, str) else 0.0
    elif given.get("span") and given["rate"] != RATES.get(given.get("pattern", "none")):
        raise ValueError(
            f"data.occlusion.rate: expected none beside a span, which says how many frames are "
            f"hidden, got {given['rate']} and a span of {given['span']}"
        )
    return read_options(Occlusion, given, where="data.occlusion")


def check_clips(occlusion: Occlusion, num_frames: int, skeleton: Skeleton) -> None:
    """Refuses what cannot be hidden in clips of so many frames of such a skeleton.

    Raises:
      ValueError: A span is longer than the clip, the clip is so short that nothing would be hidden,
        or the skeleton lacks a joint that is to be hidden.
    """
    if occlusion.span > num_frames:
        raise ValueError(
            f"occlusion.span: expected at most the {num_frames} frames of a clip, "
            f"got {occlusion.span}"
        )
    for single in occlusion.patterns:
        hidden_joints(single.pattern, skeleton)
        counted = single.pattern in (*_CONSECUTIVE, "leg_and_arm") and single.draw == "exact"
        frames = single.span or hidden_count(single.rate, num_frames)
        if counted and single.rate and not frames:
            raise ValueError(
                f"occlusion.rate: {single.rate} of a clip of {num_frames} frames is less than one, "
                f"{single.pattern!r} would hide nothing; expected longer clips or a higher rate"
                + (", or draw='bernoulli'" if single.pattern == "leg_and_arm" else "")
            )


def hidden_count(rate: float, num_frames: int) -> int:
    """Frames that a pattern hides, `int(rate F)`: 10 and 5 of 27 at the published rates."""
    return int(rate * num_frames)


def occlusion_key(seed: int, stream: str, epoch: int = 0) -> Array:
    """The key of what is hidden: "train", another in each epoch, or "score", always the same.

    Args:
      seed: Seed of the run; scored data take 0 whatever the run, so that systems compare.
      stream: "train" or "score".
      epoch: Counted from 0.

    Raises:
      ValueError: Another stream.
    """
    if stream not in _STREAMS:
        raise ValueError(f"stream: expected one of {sorted(_STREAMS)}, got {stream!r}")
    # Whatever the process prefers.
    key = jax.random.fold_in(jax.random.key(seed, impl=_GENERATOR), _STREAMS[stream])
    return jax.random.fold_in(key, epoch)


def visible_joints(
    key: Array, index: Array, occlusion: Occlusion, *, num_frames: int, skeleton: Skeleton
) -> Array:
    """Which joints of each item are seen: a pure function of key and global index.

    Args:
      key: Random key of the generator "threefry2x32", see `occlusion_key`. With
        `jax_threefry_partitionable` off, which is not JAX's default, the draws are others.
      index: Global item index, `(B,)` integers.
      occlusion: The pattern.
      num_frames: F.
      skeleton: The joints; arms and legs are found by name.

    Returns:
      `(B, F, J)` booleans, False for a hidden joint.

    Raises:
      ValueError: A span is longer than the clip, the skeleton has no such joints, or a key of
        another generator, whose draws for an item would depend on its batch.
    """
    check_clips(occlusion, num_frames, skeleton)
    if str(jax.random.key_impl(key)) != _GENERATOR:
        raise ValueError(
            f"key: expected one of {_GENERATOR!r}, whose draws for an item do not depend on its "
            f"batch, got {jax.random.key_impl(key)!r}"
        )

    def one(item_key: Array) -> Array:
        choice_key, draw_key = jax.random.split(item_key)
        masks = [_visible(draw_key, p, num_frames, skeleton) for p in occlusion.patterns]
        choice = jax.random.randint(choice_key, (), 0, len(masks), jnp.int32)
        return jnp.stack(masks)[choice]

    return jax.vmap(one)(item_keys(key, jnp.asarray(index)))


def visible_joints_on_host(
    seed: int,
    stream: str,
    epoch: int,
    index: NDArray,
    occlusion: Occlusion,
    *,
    num_frames: int,
    skeleton: Skeleton,
) -> NDArray[np.bool_]:
    """`visible_joints` for a batch that is being put together, whatever the accelerator is doing.

    Args:
      seed: As for `occlusion_key`.
      stream: Likewise.
      epoch: Likewise.
      index: As for `visible_joints`.
      occlusion: Likewise.
      num_frames: Likewise.
      skeleton: Likewise.

    Returns:
      As `visible_joints`; errors as in it.
    """
    # A process may prefer draws that depend on the batch.
    with _on_host(), jax.threefry_partitionable(True):
        seen = _visible_joints(
            occlusion_key(seed, stream, epoch),
            jnp.asarray(index),
            occlusion,
            num_frames=num_frames,
            skeleton=skeleton,
        )
        return np.asarray(seen)


# Traced each time, the draws would take a tenth of a training step.
_visible_joints = jax.jit(visible_joints, static_argnames=("occlusion", "num_frames", "skeleton"))


def keep_random(uniform: Array, rate: float) -> Array:
    """Seen where a uniform draw is above the rate; any shape."""
    return jnp.asarray(uniform) > rate


def hide_frames(frames: Array, joints: tuple[int, ...], num_joints: int) -> Array:
    """Hides some joints in some frames.

    Args:
      frames: True for a frame in which they are hidden, `(..., F)`.
      joints: Which ones.
      num_joints: J.

    Returns:
      `(..., F, J)` booleans, False for a hidden joint.
    """
    chosen = np.isin(np.arange(num_joints), joints)
    return ~(jnp.asarray(frames)[..., None] & chosen)


def hidden_joints(pattern: str, skeleton: Skeleton) -> tuple[int, ...]:
    """The joints that a pattern hides where it hides.

    Raises:
      ValueError: The skeleton has no such joints.
    """
    limbs = {"leg_and_arm": _RIGHT_LEG + _LEFT_ARM, "consecutive_leg": _RIGHT_LEG}
    if pattern not in limbs:
        return tuple(range(skeleton.num_joints))
    lacking = sorted(set(limbs[pattern]) - set(skeleton.joints))
    if lacking:
        raise ValueError(
            f"skeleton: {pattern!r} hides joints that {skeleton.name!r} does not have: {lacking}"
        )
    return tuple(skeleton.joints.index(name) for name in limbs[pattern])


def span_frames(start: Array, length: int, num_frames: int) -> Array:
    """True for the frames `start, ..., start + length - 1` of F, `(...)` to `(..., F)`."""
    frame, start = jnp.arange(num_frames), jnp.asarray(start)[..., None]
    return (frame >= start) & (frame < start + length)


def num_starts(length: int, num_frames: int, starts: str = "official") -> int:
    """How many first frames a span may have: F - length as released, one more with "all"."""
    # A span of the whole clip starts somewhere all the same.
    return max(num_frames - length, 1) if starts == "official" else num_frames - length + 1


def _visible(key: Array, occlusion: Occlusion, num_frames: int, skeleton: Skeleton) -> Array:
    """One item, `(F, J)`. Types are given, so that float64 runs draw the same."""
    pattern, rate, joints = occlusion.pattern, occlusion.rate, skeleton.num_joints
    if pattern == "none":
        return jnp.ones((num_frames, joints), bool)
    if pattern == "random":
        # In (0, 1]: nothing is hidden at rate 0, everything at rate 1.
        return keep_random(1 - _uniform(key, (num_frames, joints)), rate)
    limbs = hidden_joints(pattern, skeleton)
    count = hidden_count(rate, num_frames)
    if pattern == "leg_and_arm" and occlusion.draw == "bernoulli":
        frames = ~keep_random(1 - _uniform(key, (num_frames,)), rate)
    elif pattern == "leg_and_arm":
        order = jnp.arange(num_frames, dtype=jnp.int32)
        frames = jax.random.permutation(key, order) < count
    else:
        length = occlusion.span or count
        possible = num_starts(length, num_frames, occlusion.starts)
        start = jax.random.randint(key, (), 0, possible, jnp.int32)
        frames = span_frames(start, length, num_frames)
    return hide_frames(frames, limbs, joints)


def _uniform(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, jnp.float32)


@contextlib.contextmanager
def _on_host() -> Iterator[None]:
    """Runs on the CPU: on an accelerator the draws would wait for the steps under way there."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        # JAX may have been told to know nothing but the accelerator.
        device = None
    with jax.default_device(device):
        yield
