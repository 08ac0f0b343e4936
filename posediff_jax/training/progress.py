"""Progress of a run: a bar on a terminal, a line every few seconds elsewhere."""

import time
from types import TracebackType

import rich.console
import rich.progress

from posediff_jax.types import Array


class TrainingProgress:
    """Shows steps, rate, loss and the time left, on standard error."""

    def __init__(
        self,
        total: int,
        start: int,
        *,
        enabled: bool = True,
        interval: float = 10.0,
        console: rich.console.Console | None = None,
    ) -> None:
        """Prepares the display of steps `start` to `total`.

        Args:
          total: Steps of the whole run.
          start: Steps done before.
          enabled: False for silence.
          interval: Seconds between lines where there is no terminal.
          console: Where to write.
        """
        self._total = total
        self._enabled = enabled
        self._console = console or rich.console.Console(stderr=True)
        self._interval = 0.5 if self._console.is_terminal else interval
        self._bar = self._make_bar() if enabled and self._console.is_terminal else None
        self._task = (
            self._bar.add_task("training", total=total, completed=start, note="compiling")
            if self._bar
            else None
        )
        self._first: tuple[int, float] | None = None
        self._shown = time.monotonic()

    def _make_bar(self) -> rich.progress.Progress:
        return rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[note]}"),
            console=self._console,
        )

    def update(self, step: int, loss: Array) -> None:
        """Counts a step; reads `loss` (and so waits for it) only when it is time to show it."""
        now = time.monotonic()
        if self._first is None:
            # The first step compiles: the rate is counted from its end.
            self._first = (step, now)
        if not self._enabled or (now - self._shown < self._interval and step < self._total):
            return
        self._shown = now
        note = self._note(step, now, float(loss))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, note=note)
        else:
            self._console.print(f"step {step}/{self._total}  {note}", highlight=False)

    def _note(self, step: int, now: float, loss: float) -> str:
        first_step, first_time = self._first or (step, now)
        if step == first_step or now == first_time:
            return f"loss {loss:.4g}"
        rate = (step - first_step) / (now - first_time)
        left = round((self._total - step) / rate)
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        return f"{rate:.3g} steps/s  loss {loss:.4g}  ETA {clock}"

    def __enter__(self) -> "TrainingProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
