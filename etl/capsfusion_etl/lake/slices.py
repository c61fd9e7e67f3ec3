"""Slow work in slices: each slice is committed before the next begins, so that a kill loses at most one slice."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.lake.progress import Meter
from capsfusion_etl.lake.run import Run

TARGET_SECONDS, LONGEST_SECONDS = 30.0, 600.0
FROM_THE_START = "0"  # lowest key; leftovers of a killed run can have any key
FIRST_ROWS = 32
_DIGITS = 12  # leading hex digits of the key that bound slices


class Pace:
    """Chooses the number of rows of the next slice from the duration of the last ones.

    The model of a duration is a fixed time (planning, scans of joined tables, commits) plus a time for each row. A
    slice should last TARGET_SECONDS, or ten times the fixed part if that is longer, so that nine tenths of it are work.
    Would all of the last duration grow with the rows, it should still last at most LONGEST_SECONDS: when other work
    slows a slice down, the model sees a large fixed part, and a kill would lose hours.
    """

    def __init__(self) -> None:
        self._fixed = 2.0  # seconds; a guess until two slices of different sizes are measured
        self._last = (0.0, 0.0)  # rows, seconds

    def next_rows(self, rows: float, seconds: float) -> float:
        """Return the number of rows for the next slice, given the rows and seconds of the last one."""
        rows_before, seconds_before = self._last
        each = max(seconds - self._fixed, seconds / 20) / rows
        if rows_before and not 2 / 3 < rows / rows_before < 3 / 2:
            each = max((seconds - seconds_before) / (rows - rows_before), seconds / 20 / rows)
            self._fixed = max(0.0, seconds - each * rows)
        self._last = (rows, seconds)
        wanted = (max(TARGET_SECONDS, 10 * self._fixed) - self._fixed) / each
        return max(1.0, min(wanted, rows * LONGEST_SECONDS / seconds))


# (rows, Allowance or None) -> rows of the result table.
Work = Callable[[DataFrame, Any], DataFrame]


@dataclass(frozen=True, slots=True)
class SlicedWork:
    """Slow work on rows, and the table for its result.

    Attributes:
        stage: name of the stage.
        table: the table to which the result is appended.
        work: function from rows, and the allowance to process them, to rows of the table.
        key: column of uniformly distributed hex digits; a slice is a range of it.
        spread_by: rows with equal values in these columns are processed by the same task.
        first_rows: approximate number of rows of the first slice.
    """

    stage: str
    table: str
    work: Work
    key: str = "pair_id"
    spread_by: tuple[str, ...] = ()
    first_rows: int = FIRST_ROWS


class SliceBudget(Protocol):
    """The methods of a budget that slices use; implemented by `Budget`, and by `Free` for work that costs nothing."""

    @property
    def params_hash(self) -> str:
        """Hash that names the engine, prompt and parameters of the rows."""

    @property
    def capped(self) -> bool:
        """Whether a slice may leave rows unsettled because it reached a cap."""

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Folders of the journals of killed runs."""

    def leftover_keys(self) -> list[str]:
        """Return the keys of the rows for which these journals have answers."""

    def forget_leftovers(self) -> None:
        """Delete these journals; called when their rows are committed."""

    def rows_left(self) -> int | None:
        """Return how many rows may still be settled; None means no limit."""

    def allowance(self, name: str, tasks: int) -> Any:
        """Return what each of the `tasks` of the slice `name` may spend; None if work is not paid by the request.

        Raises:
            BudgetError: the budget is used up.
        """

    def settle(self, name: str, *, low: str) -> int:
        """Book the committed slice `name`, whose keys begin at `low`; return the number of rows that it settled."""

    def used_up(self) -> Exception:
        """Return the error to raise when the budget is used up."""


class Free:
    """The budget of work that costs nothing: no cap, no journal."""

    params_hash, capped, leftovers = "", False, ()

    def __init__(self, run: Run, table: str) -> None:
        self._run, self._table = run, table

    def leftover_keys(self) -> list[str]:
        """Return no keys."""
        return []

    def forget_leftovers(self) -> None:
        """Do nothing."""

    def rows_left(self) -> int | None:
        """Return None: no limit."""
        return None

    def allowance(self, name: str, tasks: int) -> Any:
        """Return None: nothing is paid by the request."""
        return None

    def settle(self, name: str, *, low: str) -> int:
        """Return the number of rows of the last write."""
        return self._run.lake.appended(self._table)

    def used_up(self) -> Exception:
        """Return an error that is never raised."""
        return AssertionError("work without a budget cannot use it up")


def commit_whole(run: Run, rows: DataFrame, job: SlicedWork, *, params_hash: str) -> int:
    """Append the result of cheap work, such as copying, in one commit; return the number of rows."""
    total = int(rows.count())  # Spark Connect 3.5 counts in NumPy integers
    if total:
        app_id = f"{run.run_id}/{job.stage}/{params_hash}"
        run.lake.append(job.table, job.work(rows, None), app_id=app_id, at_most=total)
    return total


def commit_by_key_range(run: Run, rows: DataFrame, job: SlicedWork, budget: SliceBudget | None = None) -> int:
    """Process rows in slices by ranges of the key; append the result of each slice before the next one begins.

    The first slice has about `job.first_rows` rows, the next ones last about TARGET_SECONDS (see `Pace`). Rows with
    answers in the journals of a killed run are committed before all others.

    Args:
        run: the run.
        rows: the rows that are due. The query is evaluated for each slice and must no longer return rows whose result
            is committed: that is how a run resumes after a kill.
        job: the work.
        budget: limits and books the cost; None for work that costs nothing.

    Returns:
        The number of rows that were due.

    Raises:
        BudgetError: the budget is used up before all rows are settled.
    """
    first, total = rows.agg(F.min(job.key), F.count("*")).collect()[0]
    if not total:
        return 0
    spending = budget if budget is not None else Free(run, job.table)
    commit = _Committer(run, job, spending, int(total))
    low, done, wanted, pace = int(first[:_DIGITS], 16) / 16**_DIGITS, 0, float(job.first_rows), Pace()
    with Meter(job.stage, total) as meter:
        if spending.leftovers:
            ids = run.lake.spark.createDataFrame([(i,) for i in spending.leftover_keys()], f"{job.key} string")
            done = commit(rows.join(ids, job.key, "left_semi"), FROM_THE_START)
            meter.advance(done)
            spending.forget_leftovers()
        while done < total and low < 1:
            high = min(1.0, low + wanted * (1 - low) / (total - done))  # keys are uniform in [low, 1)
            started = time.monotonic()
            # The key range alone defines a slice, and each range is read once more, so nothing is cached.
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
    """Processes one slice after another: runs the work, appends the result and books the cost."""

    def __init__(self, run: Run, job: SlicedWork, budget: SliceBudget, total: int) -> None:
        self._run, self._job, self._budget, self._total = run, job, budget, total
        self._tasks, self._count = parallelism(run), 0

    def __call__(self, part: DataFrame, low: str) -> int:
        """Settle the rows of `part`, whose keys begin at `low`; return how many were settled."""
        run, job = self._run, self._job
        name = f"{self._count:05d}"
        self._count += 1
        allowance = self._budget.allowance(name, self._tasks)
        made = job.work(part.repartition(self._tasks, *job.spread_by), allowance)
        app_id = f"{run.run_id}/{job.stage}/{self._budget.params_hash}/{name}"
        run.lake.append(job.table, made, app_id=app_id, at_most=self._total)
        return self._budget.settle(name, low=low)


def _bound(position: float) -> str:
    """Return the hex key at `position` in [0, 1]; for 1 it is "g", which sorts after every hex digit."""
    return "g" if position >= 1 else f"{int(position * 16**_DIGITS):0{_DIGITS}x}"


def _first(rows: DataFrame, key: str, count: int) -> DataFrame:
    """Return the `count` rows with the lowest keys, as a key range that does not grow when rows are committed."""
    last = rows.select(key).orderBy(key).limit(count).agg(F.max(key)).collect()[0][0]
    return rows.where(F.col(key) <= (last or ""))


def parallelism(run: Run) -> int:
    """Return Spark's default parallelism; by a query on Spark Connect, which has no sparkContext."""
    spark = run.lake.spark
    if hasattr(spark, "sparkContext"):
        return max(1, int(spark.sparkContext.defaultParallelism))
    tasks = spark.range(0, 1 << 20).select(F.spark_partition_id()).distinct().count()
    return max(1, int(tasks))  # Spark Connect 3.5 counts in NumPy integers, but does not accept them
