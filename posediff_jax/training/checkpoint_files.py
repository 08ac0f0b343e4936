"""What lies in a checkpoint beside the arrays: its description, and the list of its files."""

import dataclasses
import errno
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from posediff_jax._version import __version__

_FORMAT = 1
_ABOUT = "about.json"
_MANIFEST = "manifest.json"


class BrokenCheckpointError(ValueError):
    """A checkpoint with a file that is missing, truncated or changed."""


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
      step: Step it was saved after.
      config: The full config of the run, or None if it had none.
      metadata: What else is needed to use the weights, e.g. `skeleton` and `normalisation`.
      metrics: Evaluation at this step; empty where there was none, None for what was not finite.
      score: The metric the best checkpoint is chosen by (lower is better), or None.
      has_ema: Whether it holds averaged variables.
      version: Version of this package that wrote it.
    """

    step: int
    config: ConfigDict | None
    metadata: Mapping[str, Any]
    metrics: Mapping[str, float | None]
    score: float | None
    has_ema: bool
    version: str = __version__


def describe(
    step: int,
    *,
    has_ema: bool,
    config: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    metrics: Mapping[str, float] | None,
    score: float | None,
) -> str:
    """The text of `about.json`; fields as in `CheckpointInfo`.

    Raises:
      TypeError: A config or metadata value that JSON cannot hold.
    """
    about = {
        "format": _FORMAT,
        "version": __version__,
        "step": step,
        "has_ema": has_ema,
        "score": _finite(score),
        "metrics": {name: _finite(value) for name, value in (metrics or {}).items()},
        "metadata": dict(metadata or {}),
        "config": None if config is None else plain_config(config),
    }
    return json.dumps(about, indent=1)


def read_info(path: Path) -> CheckpointInfo:
    """Reads `about.json` of the checkpoint folder `path`.

    Raises:
      BrokenCheckpointError: It is missing, cut off, or lacks a field.
      ValueError: It was written by a later version of this package in another format.
    """
    try:
        about = json.loads((path / _ABOUT).read_text("utf-8"))
        written = about.pop("format")
        config = about.pop("config")
        config = None if config is None else ConfigDict(plain_config(config))
        if written == _FORMAT:
            return CheckpointInfo(config=config, **about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenCheckpointError(f"{path / _ABOUT}: cannot be read ({error})") from error
    raise ValueError(f"{path}: expected format {_FORMAT}, found {written}, by {about['version']}")


def reserve(path: Path, num_bytes: int) -> None:
    """Takes up so much space in the folder `path` for a moment, to see that it is there.

    Raises:
      OSError: There is less, or no file may be so large.
    """
    # Not on macOS, and 0 bytes are refused.
    if not hasattr(os, "posix_fallocate") or num_bytes < 1:
        return
    file = path / "reserved"
    with file.open("wb") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, num_bytes)
        except OSError as error:
            # Some file systems cannot reserve.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
    file.unlink()


def seal(path: Path, about: str) -> None:
    """Writes `about.json`, then `manifest.json` with size and checksum of every file."""
    _write_synced(path / _ABOUT, about)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    manifest = {file.relative_to(path).as_posix(): _fingerprint(file) for file in files}
    _write_synced(path / _MANIFEST, json.dumps(manifest))


def check_seal(path: Path, part: str = "") -> None:
    """Compares the files of the checkpoint folder `path` with its manifest.

    Args:
      path: The folder of one checkpoint.
      part: Look only at the files of this part, and at the description.

    Raises:
      BrokenCheckpointError: A file is missing, truncated or changed; the message names it.
    """
    try:
        expected = json.loads((path / _MANIFEST).read_text("utf-8"))
        expected = {name: tuple(value) for name, value in expected.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BrokenCheckpointError(f"{path / _MANIFEST}: cannot be read ({error})") from error
    for name, value in expected.items():
        if name.startswith((_ABOUT, part)) and _fingerprint(path / name) != value:
            raise BrokenCheckpointError(f"{path / name}: is missing, truncated or changed")


def plain_config(value: Any) -> Any:
    """A config as nested dictionaries, with tuples for lists: the form in which two compare."""
    if isinstance(value, (dict, ConfigDict)):
        return {name: plain_config(item) for name, item in value.items()}
    return tuple(map(plain_config, value)) if isinstance(value, (list, tuple)) else value


def _fingerprint(file: Path) -> tuple[int, int] | None:
    if not file.is_file():
        return None
    data = file.read_bytes()
    return len(data), zlib.crc32(data)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
