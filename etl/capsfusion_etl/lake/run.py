"""What a run tells: plain lines or a bar for people, one row for each stage in `runs` for everyone else."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from capsfusion_etl.console import say
from capsfusion_etl.errors import explain, first_line
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.tables import RUNS


def software() -> str:
    """Version of this project, also where it came as a --py-files zip."""
    try:
        return version("capsfusion-lake")
    except PackageNotFoundError:
        return "unpackaged"


@dataclass
class Counts:
    """What a stage did: rows it looked at, wrote, and held back."""

    rows_in: int = 0
    rows_out: int = 0
    rows_rejected: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    note: str = ""

    def figures(self) -> dict[str, Any]:
        """All but the note."""
        # Connect of Spark 3.5 counts in NumPy's integers, which JSON does not take.
        given = {name: value for name, value in asdict(self).items() if name != "note"}
        return {name: value.item() if hasattr(value, "item") else value for name, value in given.items()}


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage of a run as it ended, a row of `runs`; or as it began, with a `finished_at` of None."""

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
        """How long it took."""
        return ((self.finished_at or self.started_at) - self.started_at).total_seconds()


def row_of(stage: StageRecord) -> tuple[object, ...]:
    """The row of `runs`."""
    return tuple(asdict(stage).values())


Watcher = Callable[[StageRecord], None]


@dataclass
class Run:
    """One run over a lake; `run_id` is on every row that it writes. `watchers` hear of each stage, twice."""

    lake: Lake
    run_id: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6])
    watchers: list[Watcher] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Counts]:
        """Time a stage and record it in `runs`, whether it ends well or not."""
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
                if error is None:  # never let the record of a failure hide the failure
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
        rows = self.lake.spark.createDataFrame([row_of(ended)], RUNS.schema())
        self.lake.append("runs", rows, app_id=f"{self.run_id}/{began.stage}", version=0)
        return ended

    def _tell(self, stage: StageRecord) -> None:
        for watcher in self.watchers:
            try:
                watcher(stage)
            except Exception as error:  # noqa: BLE001  who watches must not stop the run
                say(f"          not told of {stage.stage}: {type(error).__name__}: {first_line(str(error))}")
