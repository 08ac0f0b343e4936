"""Cuts sequences into windows of equal length. Plain NumPy."""

import numpy as np
from numpy.typing import NDArray

PADDINGS = ("edge", "shift", "split", "drop")


def window_starts(
    num_frames: int, *, length: int, stride: int | None = None, pad: str = "edge"
) -> NDArray[np.int64]:
    """First frame of each window.

    Args:
      num_frames: F, at least 1.
      length: Frames per window.
      stride: Frames between starts; None means `length`.
      pad: What becomes of frames that no whole window holds. "edge": one more window runs over the
        end. "shift": it is moved back inside, so it overlaps the one before (a sequence shorter
        than `length` still runs over). "split": as many windows as with "edge", moved back by half
        of what they run over, so that they begin before frame 0 (training of MixSTE and its heirs).
        "drop": they are left out.

    Returns:
      `(W,)`; negative with "split".

    Raises:
      ValueError: A number is less than 1, `pad` is unknown, or "split" with another stride.

    >>> window_starts(7, length=3).tolist(), window_starts(7, length=3, pad="shift").tolist()
    ([0, 3, 6], [0, 3, 4])
    """
    stride = length if stride is None else stride
    for name, value in (("num_frames", num_frames), ("length", length), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if pad not in PADDINGS:
        raise ValueError(f"pad: expected one of {PADDINGS}, got {pad!r}")
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
      ValueError: As for `window_starts`.

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
