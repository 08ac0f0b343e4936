"""Metrics as JSON lines, one object per line: `{"step": 100, "split": "train", "loss": ...}`."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

_RESERVED = ("step", "split", "time")


class MetricsLog:
    """Appends lines to a file; each line is written out before the next step begins.

    Lines beyond `keep_until` are dropped on opening: a resumed run writes them again. So are those
    of the split `again` at that step, and a last line that a kill or a full disk has torn.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, keep_until: int, again: str | None = None
    ) -> None:
        self._path = path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            redone = (keep_until, again)
            kept = [
                line
                for line in read_metrics(path)
                if line["step"] <= keep_until and (line["step"], line["split"]) != redone
            ]
            rewritten = path.with_suffix(".tmp")
            with _naming(path):
                rewritten.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
                rewritten.replace(path)
        # Unbuffered: after a failed write nothing is left over for closing to fail on.
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Appends one line; a value that is not finite becomes null.

        Args:
          step: Steps done.
          split: What the figures were measured on, e.g. "train" or "eval".
          metrics: Scalars by name.

        Raises:
          ValueError: A metric with a reserved name.
          TypeError: A metric that is not a scalar.
          OSError: The line could not be written.
        """
        values = {name: _scalar(name, value) for name, value in metrics.items()}
        line = {"step": step, "split": split, "time": round(time.time(), 3), **values}
        rest = json.dumps(line, allow_nan=False).encode() + b"\n"
        with _naming(self._path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the lines of a metrics file, leaving out a torn last one.

    Raises:
      ValueError: A line before the last is not a JSON object; the message gives file and line.
    """
    lines = Path(path).read_bytes().split(b"\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            # Whatever follows the last newline was not written to its end.
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: expected a JSON object") from None
        if number < len(lines):
            entries.append(entry)
    return entries


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """The system's error for a full disk does not say which file."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: could not be written ({error}). Free some space and run the same command "
            "again"
        ) from error


def _scalar(name: str, value: Any) -> float | int | None:
    if name in _RESERVED:
        raise ValueError(f"metrics: the names {_RESERVED} are taken, got {name!r}")
    if getattr(value, "shape", ()) != () or isinstance(value, (str, list, tuple, dict)):
        raise TypeError(f"metrics[{name!r}]: expected a scalar, got {value!r}")
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None
