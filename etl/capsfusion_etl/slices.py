"""Slow work in slices: each is committed before the next begins, so that a kill costs one slice and no more."""

import time
from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.runlog import Meter, Run

TARGET_SECONDS = 30.0
FIRST_ROWS = 32
_DIGITS = 12  # hex digits of a key that tell slices apart


def commit_in_slices(
    run: Run,
    stage: str,
    rows: DataFrame,
    *,
    key: str,
    table: str,
    work: Callable[[DataFrame], DataFrame],
    settled: Callable[[str], None] | None = None,
) -> int:
    """Run `work` over ranges of `key` (uniform hex digits) and append each range's result to `table` at once.

    The first slice is small, the next ones last about TARGET_SECONDS. `settled(lower)` runs after each commit. What is
    committed must leave `rows` when it is computed again: then a run that was killed goes on where it stopped.

    Returns the number of rows that were due.
    """
    first, total = rows.agg(F.min(key), F.count("*")).collect()[0]
    if not total:
        return 0
    partitions = _parallelism(run)
    # A slice is pinned by its key range alone and each range is read anew, so nothing need be cached.
    low, done, wanted = int(first[:_DIGITS], 16) / 16**_DIGITS, 0, float(FIRST_ROWS)
    with Meter(stage, total) as meter:
        while done < total and low < 1:
            high = min(1.0, low + wanted * (1 - low) / (total - done))  # keys are uniform over what is left
            started = time.monotonic()
            slice_rows = rows.where((F.col(key) >= _bound(low)) & (F.col(key) < _bound(high)))
            count = slice_rows.count()
            if count:
                result = work(slice_rows.repartition(partitions))
                run.lake.append(table, result, app_id=f"{run.run_id}/{stage}/{_bound(low)}", version=0)
                if settled:
                    settled(_bound(low))
                meter.advance(count)
                wanted = count * min(4.0, max(0.25, TARGET_SECONDS / (time.monotonic() - started)))
            low, done = high, done + count
    return int(total)


def _bound(position: float) -> str:
    """Lower bound in hex of the keys at `position` of 0..1; "g" sorts after every hex digit."""
    return "g" if position >= 1 else f"{int(position * 16**_DIGITS):0{_DIGITS}x}"


def _parallelism(run: Run) -> int:
    """Tasks that run at once: asked of Spark by a query, as Connect has no sparkContext."""
    return max(1, run.lake.spark.range(0, 1 << 20).select(F.spark_partition_id()).distinct().count())
