"""What a run tells: plain lines or a bar for people, one row for each stage in `runs` for everyone else."""

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from capsfusion_etl.errors import explain, first_line
from capsfusion_etl.lake import Lake
from capsfusion_etl.tables import RUNS

_console = Console(stderr=True, highlight=False)


def software() -> str:
    """Version of this project, also where it came as a --py-files zip."""
    try:
        return version("capsfusion-lake")
    except PackageNotFoundError:
        return "unpackaged"


def say(line: str) -> None:
    """One line for people."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Counts:
    """What a stage did: rows it looked at, wrote, and held back."""

    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    note: str = ""


@dataclass
class Run:
    """One run over a lake; `run_id` is on every row that it writes."""

    lake: Lake
    run_id: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6])

    @contextmanager
    def stage(self, name: str) -> Iterator[Counts]:
        """Time a stage and record it in `runs`, whether it ends well or not."""
        counts, started, error = Counts(), datetime.now(UTC), None
        clock = time.monotonic()
        try:
            yield counts
        except BaseException as failure:
            error = first_line(str(explain(failure) or f"{type(failure).__name__}: {failure}"))
            raise
        finally:
            try:
                self._record(name, started, counts, error)
            except Exception:
                if error is None:  # never let the record of a failure hide the failure
                    raise
        if error is None:
            rejected = f", {counts.rows_rejected} held back" if counts.rows_rejected else ""
            note = f" ({counts.note})" if counts.note else ""
            seconds = time.monotonic() - clock
            say(f"{name:9s} {counts.rows_in} in, {counts.rows_out} new{rejected}, {seconds:.1f} s{note}")

    def _record(self, stage: str, started: datetime, counts: Counts, error: str | None) -> None:
        finished = datetime.now(UTC)
        status = "ok" if error is None else "failed"
        row = (
            self.run_id, stage, started, finished, counts.rows_in, counts.rows_out, counts.rows_rejected, status, error,
            software(),
        )  # fmt: skip
        rows = self.lake.spark.createDataFrame([row], RUNS.schema())
        self.lake.append("runs", rows, app_id=f"{self.run_id}/{stage}", version=0)


class Meter:
    """Rows done, rows/s and time left: a bar on a terminal, a line now and then in a log."""

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
        """Tell that `rows` more are settled."""
        self.done += rows
        rate = self.done / max(time.monotonic() - self._start, 1e-9)
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=rows, rate=f"{rate:.1f} rows/s")
        elif self.done < self.total:
            left = (self.total - self.done) / rate if rate else 0
            say(f"{self.label:9s} {self.done}/{self.total} rows, {rate:.1f} rows/s, {left:.0f} s left")
