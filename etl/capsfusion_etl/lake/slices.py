"""Slow work in slices: each is committed before the next begins, so that a kill costs one slice and no more."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.lake.progress import Meter
from capsfusion_etl.lake.run import Run

TARGET_SECONDS = 30.0
FROM_THE_START = "0"  # below every bound of a slice: what a killed run left lies anywhere
FIRST_ROWS = 32
_DIGITS = 12  # hex digits of a key that tell slices apart


class Pace:
    """How many rows the next slice should have, from how long the last ones took.

    A slice costs a fixed time (planning, a scan of what it is joined with, commits) and a time for each row. It should
    last TARGET_SECONDS, or ten times the fixed part if that is more, so that nine tenths are work.
    """

    def __init__(self) -> None:
        self._fixed = 2.0  # seconds: a guess, until two slices have told
        self._last = (0.0, 0.0)

    def next_rows(self, rows: float, seconds: float) -> float:
        """Tell of a slice, and ask for the next one's size; it grows by steps, as a small slice tells little."""
        rows_before, seconds_before = self._last
        each = max(seconds - self._fixed, seconds / 20) / rows
        if rows_before and not 2 / 3 < rows / rows_before < 3 / 2:
            each = max((seconds - seconds_before) / (rows - rows_before), seconds / 20 / rows)
            self._fixed = max(0.0, seconds - each * rows)
        self._last = (rows, seconds)
        return max(1.0, (max(TARGET_SECONDS, 10 * self._fixed) - self._fixed) / each)


# Rows, and what they may cost (a budget's Allowance, or None), to rows of a table.
Work = Callable[[DataFrame, Any], DataFrame]


@dataclass(frozen=True, slots=True)
class SlicedWork:
    """Slow work on rows, and the table that takes its result.

    `key`: a column of uniform hex digits by whose ranges the rows are cut. `spread_by`: rows that agree in these
    columns go to one task. `first_rows`: rows of the first slice.
    """

    stage: str
    table: str
    work: Work
    key: str = "pair_id"
    spread_by: tuple[str, ...] = ()
    first_rows: int = FIRST_ROWS


class SliceBudget(Protocol):
    """What slices ask of a budget; `Budget` is one, `Free` is the one of work that costs nothing."""

    @property
    def params_hash(self) -> str:
        """Names what makes the rows."""

    @property
    def capped(self) -> bool:
        """May a slice come back with rows that could not be paid?"""

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Journals of a run that was killed."""

    def leftover_keys(self) -> list[str]:
        """Keys of the rows that these journals hold answers for."""

    def forget_leftovers(self) -> None:
        """Their rows are committed."""

    def rows_left(self) -> int | None:
        """Rows that may still be settled; None is without limit."""

    def allowance(self, name: str, tasks: int) -> Any:
        """What each of the `tasks` of the slice `name` may spend; None for work that is not paid by the request."""

    def settle(self, name: str, *, low: str) -> int:
        """Book the slice `name`, whose keys begin at `low`; returns the rows that it settled."""

    def used_up(self) -> Exception:
        """What to raise when nothing is left."""


class Free:
    """The budget of work that costs nothing: no cap, no journal."""

    params_hash, capped, leftovers = "", False, ()

    def __init__(self, run: Run, table: str) -> None:
        self._run, self._table = run, table

    def leftover_keys(self) -> list[str]:
        """None."""
        return []

    def forget_leftovers(self) -> None:
        """There are none."""

    def rows_left(self) -> int | None:
        """Without limit."""
        return None

    def allowance(self, name: str, tasks: int) -> Any:
        """Nothing is paid by the request."""
        return None

    def settle(self, name: str, *, low: str) -> int:
        """Return the rows of the last write."""
        return self._run.lake.appended(self._table)

    def used_up(self) -> Exception:
        """Never happens."""
        return AssertionError("work without a budget cannot use it up")


def commit_whole(run: Run, rows: DataFrame, job: SlicedWork, *, params_hash: str) -> int:
    """Append the result of work that only copies: at once, as a kill costs nothing. Returns the number of rows."""
    total = rows.count()
    if total:
        run.lake.append(job.table, job.work(rows, None), app_id=f"{run.run_id}/{job.stage}/{params_hash}", version=0)
    return total


def commit_by_key_range(run: Run, rows: DataFrame, job: SlicedWork, budget: SliceBudget | None = None) -> int:
    """Run the work over ranges of its key, and append the result of each range to the table at once.

    The first slice is small, the next ones last about TARGET_SECONDS. What is committed must leave `rows` when it is
    computed again: then a run that was killed goes on where it stopped. What a killed run was answered comes first.

    Returns the number of rows that were due.

    Raises:
        BudgetError: rows are left, but nothing to pay them with.
    """
    first, total = rows.agg(F.min(job.key), F.count("*")).collect()[0]
    if not total:
        return 0
    spending = budget if budget is not None else Free(run, job.table)
    commit = _Committer(run, job, spending)
    low, done, wanted, pace = int(first[:_DIGITS], 16) / 16**_DIGITS, 0, float(job.first_rows), Pace()
    with Meter(job.stage, total) as meter:
        if spending.leftovers:
            ids = run.lake.spark.createDataFrame([(i,) for i in spending.leftover_keys()], f"{job.key} string")
            done = commit(rows.join(ids, job.key, "left_semi"), FROM_THE_START)
            meter.advance(done)
            spending.forget_leftovers()
        while done < total and low < 1:
            high = min(1.0, low + wanted * (1 - low) / (total - done))  # keys are uniform over what is left
            started = time.monotonic()
            # A slice is pinned by its key range alone and each range is read anew, so nothing need be cached.
            part = rows.where((F.col(job.key) >= _bound(low)) & (F.col(job.key) < _bound(high)))
            left = spending.rows_left()
            part = part if left is None else _first(part, job.key, max(1, left))
            settled = commit(part, _bound(low))
            meter.advance(settled)
            done += settled
            at_row_cap = left is not None and settled >= left
            if not at_row_cap and (not spending.capped or part.isEmpty()):
                low = high
            elif not settled:
                raise spending.used_up()
            if settled:
                wanted = pace.next_rows(settled, time.monotonic() - started)
    return int(total)


class _Committer:
    """Runs the work on one part of the rows after the other, and appends and books each result."""

    def __init__(self, run: Run, job: SlicedWork, budget: SliceBudget) -> None:
        self._run, self._job, self._budget = run, job, budget
        self._tasks, self._count = _parallelism(run), 0

    def __call__(self, part: DataFrame, low: str) -> int:
        """Settle the rows of `part`, whose keys begin at `low`; returns how many were settled."""
        run, job = self._run, self._job
        name = f"{self._count:05d}"
        self._count += 1
        allowance = self._budget.allowance(name, self._tasks)
        made = job.work(part.repartition(self._tasks, *job.spread_by), allowance)
        run.lake.append(
            job.table, made, app_id=f"{run.run_id}/{job.stage}/{self._budget.params_hash}/{name}", version=0
        )
        return self._budget.settle(name, low=low)


def _bound(position: float) -> str:
    """Lower bound in hex of the keys at `position` of 0..1; "g" sorts after every hex digit."""
    return "g" if position >= 1 else f"{int(position * 16**_DIGITS):0{_DIGITS}x}"


def _first(rows: DataFrame, key: str, count: int) -> DataFrame:
    """The `count` rows with the lowest keys, by a range that stays the same when rows leave."""
    last = rows.select(key).orderBy(key).limit(count).agg(F.max(key)).collect()[0][0]
    return rows.where(F.col(key) <= (last or ""))


def _parallelism(run: Run) -> int:
    """Tasks that run at once: asked of Spark by a query, as Connect has no sparkContext."""
    tasks = run.lake.spark.range(0, 1 << 20).select(F.spark_partition_id()).distinct().count()
    return max(1, int(tasks))  # Connect of Spark 3.5 counts in NumPy's integers, and takes none
