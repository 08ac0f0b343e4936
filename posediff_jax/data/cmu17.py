"""Reads `cmu17`: CMU motion capture as world positions of Human3.6M-17 joints.

Joints are ends of CMU bones, so hips, spine, shoulders and head differ a little from Human3.6M's
own anatomy: a model trained on one meets a shift on the other.
"""

import pathlib

from posediff_jax.data.motion import MotionClip
from posediff_jax.data.npz import check_array, read_npz

_FPS = 60.0


def load_cmu17(path: str | pathlib.Path, split: str = "train") -> tuple[MotionClip, ...]:
    """Reads the clips of one split.

    Keys say where a clip is from. `asf/<subject>/<trial>`: the subject of the CMU database, the
    action is not recorded and becomes "unlabelled". `exp/<part>/<action>/<clip>`: one body, the
    subject "exp".

    Args:
      path: The directory with `train.npz` and `val.npz`, or one such file (`split` is then not
        used).
      split: "train" or "val".

    Returns:
      Clips in the order of the file; metres, y up, 60 frames per second.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: `split` is unknown, or the file is corrupt, empty, or has other keys, shapes or
        values than described.
    """
    if split not in ("train", "val"):
        raise ValueError(f"split: expected 'train' or 'val', got {split!r}")
    path = pathlib.Path(path)
    file = path / f"{split}.npz" if path.is_dir() else path
    arrays = read_npz(file)
    if not arrays:
        raise ValueError(f"{file}: expected at least one clip, got an empty npz")
    clips = []
    for key, poses in arrays.items():
        subject, action = _parse(key, file)
        check_array(poses, (None, 17, 3), path=file, key=key)
        clips.append(MotionClip(key, subject, action, poses, _FPS, "h36m_17"))
    return tuple(clips)


def _parse(key: str, file: pathlib.Path) -> tuple[str, str]:
    """Subject and action."""
    match key.split("/"):
        case ["asf", subject, _]:
            return subject, "unlabelled"
        case ["exp", _, action, _]:
            return "exp", action
    raise ValueError(
        f"{file}: key {key!r}: expected asf/<subject>/<trial> or exp/<part>/<action>/<clip>"
    )
