"""One run to a folder: two would remove each other's unfinished checkpoints."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where runs are not kept apart
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def only_run(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a run's folder while the block runs; the system lets go of it however a run ends.

    Args:
      workdir: The run's folder, made if it is not there.

    Raises:
      ValueError: Another process holds the folder.
    """
    path = Path(workdir) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"workdir: expected a folder that no other run uses, got {workdir}, "
                    "which one is writing to"
                ) from None
        yield
