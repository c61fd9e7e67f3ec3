"""Slow work in slices: each is committed before the next begins, so that a kill costs one slice and no more."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.runlog import Meter, Run

if TYPE_CHECKING:
    from capsfusion_etl.budget import Budget
    from capsfusion_etl.purse import Grant

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


def commit_whole(
    run: Run,
    stage: str,
    rows: DataFrame,
    *,
    table: str,
    work: Callable[[DataFrame, "Grant | None"], DataFrame],
    label: str,
) -> int:
    """Append the result of work that only copies: at once, as a kill costs nothing. Returns the number of rows."""
    total = rows.count()
    if total:
        run.lake.append(table, work(rows, None), app_id=f"{run.run_id}/{stage}/{label}", version=0)
    return total


def commit_in_slices(
    run: Run,
    stage: str,
    rows: DataFrame,
    *,
    key: str,
    table: str,
    work: Callable[[DataFrame, "Grant | None"], DataFrame],
    budget: "Budget | None" = None,
    spread_by: tuple[str, ...] = (),
    first_rows: int = FIRST_ROWS,
) -> int:
    """Run `work` over ranges of `key` (uniform hex digits) and append each range's result to `table` at once.

    The first slice is small, the next ones last about TARGET_SECONDS. What is committed must leave `rows` when it is
    computed again: then a run that was killed goes on where it stopped. Rows that agree in `spread_by` go to one task.
    With a budget, `work` gets its grant, and what a killed run was answered comes first.

    Returns the number of rows that were due.

    Raises:
        BudgetError: rows are left, but nothing to pay them with.
    """
    first, total = rows.agg(F.min(key), F.count("*")).collect()[0]
    if not total:
        return 0
    tasks, names = _parallelism(run), (f"{n:05d}" for n in range(10**5))
    label = budget.made_by if budget is not None else ""

    def commit(part: DataFrame, low: str) -> tuple[int, bool]:
        """Settle the rows of `part`; how many were settled, and whether that is all of them."""
        name = next(names)
        grant = budget.grant(name, tasks) if budget is not None else None
        run.lake.append(
            table,
            work(part.repartition(tasks, *spread_by), grant),
            app_id=f"{run.run_id}/{stage}/{label}/{name}",
            version=0,
        )
        settled = run.lake.appended(table) if budget is None else budget.settle(name, low=low)
        meter.advance(settled)
        return settled, budget is None or not budget.capped or part.isEmpty()

    # A slice is pinned by its key range alone and each range is read anew, so nothing need be cached.
    low, done, wanted, pace = int(first[:_DIGITS], 16) / 16**_DIGITS, 0, float(first_rows), Pace()
    with Meter(stage, total) as meter:
        if budget is not None and budget.leftovers:
            ids = run.lake.spark.createDataFrame([(i,) for i in budget.leftover_keys()], f"{key} string")
            done = commit(rows.join(ids, key, "left_semi"), FROM_THE_START)[0]
            budget.forget_leftovers()
        while done < total and low < 1:
            high = min(1.0, low + wanted * (1 - low) / (total - done))  # keys are uniform over what is left
            started = time.monotonic()
            part = rows.where((F.col(key) >= _bound(low)) & (F.col(key) < _bound(high)))
            left = budget.rows_left() if budget is not None else None
            settled, all_of_them = commit(part if left is None else _first(part, key, max(1, left)), _bound(low))
            done += settled
            if all_of_them and (left is None or settled < left):
                low = high
            elif not settled and budget is not None:
                raise budget.used_up()
            if settled:
                wanted = pace.next_rows(settled, time.monotonic() - started)
    return int(total)


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
