"""Cuts sequences into windows of equal length, and joins their answers. Plain NumPy."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

PADDINGS = ("edge", "shift", "split", "drop", "causal")


def window_starts(
    num_frames: int, *, length: int, stride: int | None = None, pad: str = "edge"
) -> NDArray[np.int64]:
    """First frame of each window.

    Args:
      num_frames: F, at least 1.
      length: Frames per window.
      stride: Frames between starts; None means `length`, with "causal" 1.
      pad: What becomes of frames that no whole window holds. "edge": one more window runs over the
        end. "shift": it is moved back inside, so it overlaps the one before (a sequence shorter
        than `length` still runs over). "split": as many windows as with "edge", moved back by half
        of what they run over, so that they begin before frame 0 (training of MixSTE and its heirs).
        "drop": they are left out. "causal": one window for each frame, which ends there; the first
        ones begin before frame 0 and the stride is 1.

    Returns:
      `(W,)`; negative with "split" and "causal".

    Raises:
      TypeError: A number is not a whole one.
      ValueError: A number is less than 1, `pad` is unknown, or "split" or "causal" with another
        stride.

    >>> window_starts(7, length=3).tolist(), window_starts(7, length=3, pad="shift").tolist()
    ([0, 3, 6], [0, 3, 4])
    """
    if stride is None:
        stride = 1 if pad == "causal" else length
    for name, value in (("num_frames", num_frames), ("length", length), ("stride", stride)):
        _check_whole(name, value)
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if pad not in PADDINGS:
        raise ValueError(f"pad: expected one of {PADDINGS}, got {pad!r}")
    if pad == "causal":
        if stride != 1:
            raise ValueError(f"stride: 'causal' has a window for each frame, so 1, got {stride}")
        return np.arange(num_frames, dtype=np.int64) - (length - 1)
    starts = np.arange(0, num_frames - length + 1, stride, dtype=np.int64)
    covered = starts[-1] + length if len(starts) else 0
    if pad == "split" and stride != length:
        raise ValueError(f"stride: 'split' needs that of the length {length}, got {stride}")
    if covered >= num_frames or pad == "drop":
        return starts
    if pad == "split":
        count = len(starts) + 1
        return np.arange(count, dtype=np.int64) * length - (count * length - num_frames) // 2
    if pad == "shift":
        extra = max(num_frames - length, 0)
    else:
        extra = starts[-1] + stride if len(starts) else 0
    # With a stride beyond `length` the next start may be past the end.
    return np.append(starts, extra) if extra < num_frames else starts


def windows(
    num_frames: int, *, length: int, stride: int | None = None, pad: str = "edge"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Frame indices of each window; frames outside repeat the first or last one and are masked.

    Args:
      num_frames: F, at least 1.
      length: Frames per window.
      stride: Frames between starts; None means `length`.
      pad: As for `window_starts`.

    Returns:
      Indices `(W, length)` in [0, F) and mask `(W, length)`, 1.0 for real frames.

    Raises:
      TypeError: As for `window_starts`.
      ValueError: Likewise.

    >>> index, mask = windows(4, length=3)
    >>> index.tolist(), mask.tolist()
    ([[0, 1, 2], [3, 3, 3]], [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    """
    starts = window_starts(num_frames, length=length, stride=stride, pad=pad)
    return expand(starts, np.full_like(starts, num_frames), length=length)


def expand(
    starts: NDArray, ends: NDArray, *, length: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Frames `start, start + 1, ...` of each window, cut at 0 and at `end`.

    Args:
      starts: First frame of each window, `(W,)`; may be negative.
      ends: One past the last frame it may use, `(W,)`.
      length: Frames per window.

    Returns:
      Indices and mask as for `windows`, both `(W, length)`.
    """
    frames = np.asarray(starts, np.int64)[:, None] + np.arange(length)
    last = np.asarray(ends, np.int64)[:, None] - 1
    return np.clip(frames, 0, last), ((frames >= 0) & (frames <= last)).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class ClipPlan:
    """Which windows to ask, and how much each says about each frame; made by `plan_clip`.

    Attributes:
      index: Frames of each window, `(W, L)`; see `windows`.
      mask: 1.0 for real frames, `(W, L)`.
      weight: Share of each answer in that frame, `(W, L)`; over all windows 1 for each frame.
    """

    index: NDArray[np.int64]
    mask: NDArray[np.float32]
    weight: NDArray[np.float32]


def plan_clip(num_frames: int, *, length: int, overlap: int = 0, causal: bool = False) -> ClipPlan:
    """Windows over a clip of any length, and the weights that blend them.

    As in the published evaluations the last window is moved back inside, and a clip shorter than a
    window repeats its last frame. Where windows overlap, the weight of each falls linearly to its
    ends, so that one fades into the next; where there is one window alone, its weight is exactly 1.

    Args:
      num_frames: F, at least 1.
      length: Frames per window.
      overlap: Frames that neighbours share at least.
      causal: Instead one window for each frame, which ends there and says nothing about other
        frames, so that later frames change nothing. The first ones repeat the first frame.

    Raises:
      TypeError: A number is not a whole one.
      ValueError: A number is less than 1, `overlap` is not in [0, length), or not 0 with `causal`.

    >>> plan = plan_clip(5, length=3, overlap=1)
    >>> plan.index.tolist(), plan.weight.tolist()
    ([[0, 1, 2], [2, 3, 4]], [[1.0, 1.0, 0.5], [0.5, 1.0, 1.0]])
    """
    _check_whole("overlap", overlap)
    _check_whole("length", length)
    most = 0 if causal else max(length - 1, 0)
    if not 0 <= overlap <= most:
        raise ValueError(f"overlap: expected 0 to {most}, got {overlap}")
    pad, stride = ("causal", 1) if causal else ("shift", length - overlap)
    index, mask = windows(num_frames, length=length, stride=stride, pad=pad)
    position = np.arange(length)
    if causal:
        weight = mask * (position == length - 1)
    else:
        rising = mask * np.minimum(position + 1, length - position)
        total = np.bincount(index.ravel(), weights=rising.ravel(), minlength=num_frames)
        weight = rising / total[index]
    return ClipPlan(index, mask, weight.astype(np.float32))


def heard_only(plan: ClipPlan, heard: NDArray[np.bool_]) -> ClipPlan:
    """The same windows, where some have nothing to say: the others share their weight.

    Args:
      plan: The windows.
      heard: False for a window that has nothing to say, `(W,)`.

    Returns:
      The plan; a frame of which no window that is heard says anything has weight 0 in all.
    """
    if heard.all():
        return plan
    weight = plan.weight * heard[:, None]
    total = np.bincount(plan.index.ravel(), weights=weight.ravel())
    scale = np.where(total > 0, total, 1)[plan.index]
    return dataclasses.replace(plan, weight=(weight / scale).astype(np.float32))


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
