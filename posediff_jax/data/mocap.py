"""What the readers of motion capture text files share: trees of joints, and CMU's names for ours.

CMU's optical recordings are y-up, in units of 1 / 0.45 inch; joints of Human3.6M-17 are taken from
the ends of CMU bones. That differs a little from Human3.6M's own anatomy at hips, spine, shoulders
and head, so a model trained on one meets a shift on the other.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

INCH = 0.0254
CMU_UNIT = INCH / 0.45  # metres
# No angle, length, or number of frames of a sound file is beyond it.
_LARGEST = 1e6


def read_lines(path: str | pathlib.Path) -> list[str]:
    """Lines of a text file without surrounding blanks.

    Raises:
      FileNotFoundError: There is no such file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    # Comments of old recordings are in any code page; everything that counts is ASCII.
    return [line.strip() for line in path.read_text(encoding="latin-1").splitlines()]


def parse_numbers(words: Sequence[str], count: int, label: str) -> list[float]:
    """Numbers from words.

    Args:
      words: The words.
      count: How many there must be.
      label: Begins the message: file, line, and what is read.

    Returns:
      The numbers.

    Raises:
      ValueError: There are more or fewer, or one is no number, not finite, or absurdly large.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = [np.nan]
    if len(words) != count or not all(abs(number) <= _LARGEST for number in numbers):
        raise ValueError(
            f"{label}: expected {count} numbers of at most {_LARGEST:g}, got {' '.join(words)!r}"
        )
    return numbers


def select_joints(
    points: Mapping[str, NDArray], sources: Sequence[Sequence[str]], label: str
) -> NDArray[np.float32]:
    """Joints as means of named points.

    Args:
      points: `(F, 3)` each.
      sources: For each joint the names of the points whose mean it is.
      label: Begins the message.

    Returns:
      `(F, J, 3)`.

    Raises:
      ValueError: A name is not among the points.
    """
    missing = sorted({name for names in sources for name in names} - set(points))
    if missing:
        raise ValueError(f"{label}: expected joints named {missing}, got {sorted(points)}")
    joints = [np.mean([points[name] for name in names], axis=0) for names in sources]
    return np.stack(joints, axis=1).astype(np.float32)
