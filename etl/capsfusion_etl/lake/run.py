"""A run and the record of its stages: a message for people, a row in `runs`, and a call of each watcher."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from capsfusion_etl.console import say
from capsfusion_etl.errors import explain, first_line
from capsfusion_etl.lake.lake import Lake


@cache
def software() -> str:
    """Return the installed version of this project; "unpackaged" if it was shipped as a --py-files zip."""
    try:
        return version("capsfusion-lake")
    except PackageNotFoundError:
        return "unpackaged"


@dataclass
class Counts:
    """Figures of one stage, which the stage fills in: rows read, written and rejected, tokens and dollars spent.

    `note` is a remark for the message, not stored in `runs`.
    """

    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    note: str = ""

    def figures(self) -> dict[str, Any]:
        """Return all fields but the note, as Python numbers."""
        # Spark Connect 3.5 counts in NumPy integers, which JSON cannot encode.
        given = {name: value for name, value in asdict(self).items() if name != "note"}
        return {name: value.item() if hasattr(value, "item") else value for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A row of `runs`: a stage that ended; or a stage that has just started, if `finished_at` is None."""

    run_id: str
    stage: str
    started_at: datetime
    finished_at: datetime | None = None
    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    rows_per_s: float = 0.0
    tokens: int = 0
    cost_usd: float = 0.0
    status: str = "started"
    error: str | None = None
    software: str = ""

    @property
    def seconds(self) -> float:
        """Duration in seconds; 0 for a stage that has not ended."""
        return ((self.finished_at or self.started_at) - self.started_at).total_seconds()


def row_of(stage: StageRecord) -> tuple[object, ...]:
    """Return `stage` as a row of `runs`."""
    return tuple(asdict(stage).values())


Watcher = Callable[[StageRecord], None]


@dataclass
class Run:
    """One run over a lake.

    Attributes:
        lake: the lake.
        run_id: UTC time and a random suffix, so that ids sort by time; stored with the rows that the run writes.
        watchers: called with each stage twice, when it starts and when it ends.
    """

    lake: Lake
    run_id: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6])
    watchers: list[Watcher] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Counts]:
        """Time a stage and record it in `runs`, also if it fails; the body fills in the `Counts`."""
        counts, began, error = Counts(), StageRecord(self.run_id, name, datetime.now(UTC), software=software()), None
        self._tell(began)
        try:
            yield counts
        except BaseException as failure:
            error = first_line(str(explain(failure) or f"{type(failure).__name__}: {failure}"))
            raise
        finally:
            try:
                ended = self._record(began, counts, error)
            except Exception:
                if error is None:  # an error while recording must not hide the error of the stage
                    raise
        if error is None:
            rejected = f", {counts.rows_rejected} rejected" if counts.rows_rejected else ""
            note = f" ({counts.note})" if counts.note else ""
            line = f"{name:9s} {counts.rows_in} in, {counts.rows_out} new{rejected}, {ended.seconds:.1f} s{note}"
            say(line, stage=name, **counts.figures(), seconds=round(ended.seconds, 3))

    def _record(self, began: StageRecord, counts: Counts, error: str | None) -> StageRecord:
        status = "ok" if error is None else "failed"
        ended = replace(began, finished_at=datetime.now(UTC), status=status, error=error, **counts.figures())
        ended = replace(ended, rows_per_s=ended.rows_in / max(ended.seconds, 1e-9))
        self._tell(ended)
        self.lake.record("runs", [row_of(ended)], app_id=f"{self.run_id}/{began.stage}")
        return ended

    def _tell(self, stage: StageRecord) -> None:
        for watcher in self.watchers:
            try:
                watcher(stage)
            except Exception as error:  # noqa: BLE001  who watches must not stop the run
                say(f"          not told of {stage.stage}: {type(error).__name__}: {first_line(str(error))}")
