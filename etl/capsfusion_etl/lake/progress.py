"""Progress of slow stages on stderr: rows done, rows per second and time left."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from capsfusion_etl.console import say

_console = Console(stderr=True, highlight=False)


class Meter:
    """Progress of one stage: a bar on a terminal, otherwise one log line for each call of `advance`.

    Args:
        label: name of the stage.
        total: number of rows.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self._start = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description:9s}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=_console, transient=True,
        ) if _console.is_terminal else None  # fmt: skip
        self._task = self._bar.add_task(label, total=total, rate="") if self._bar else None

    def __enter__(self) -> "Meter":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        """Report that `rows` more rows are settled."""
        self.done += rows
        rate = self.done / max(time.monotonic() - self._start, 1e-9)
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=rows, rate=f"{rate:.1f} rows/s")
        elif self.done < self.total:
            left = (self.total - self.done) / rate if rate else 0
            say(f"{self.label:9s} {self.done}/{self.total} rows, {rate:.1f} rows/s, {left:.0f} s left")
