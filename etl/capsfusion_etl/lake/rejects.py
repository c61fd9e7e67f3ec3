"""Rejects: each stage writes at most one row to `rejects` for a pair, with the reason."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.lake.lake import FEW, Lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.tables import STAGES


def because(reason: str, pairs: DataFrame, detail: Column) -> DataFrame:
    """Give all these pairs the same reason; return pair_id, reason and detail."""
    return pairs.select("pair_id", F.lit(reason).alias("reason"), detail.alias("detail"))


def as_rejects(run: Run, stage: str, rejected: DataFrame) -> DataFrame:
    """Return the rows of `rejects` for `rejected` (pair_id, reason, detail)."""
    return rejected.select(
        "pair_id", F.lit(stage).alias("stage"), "reason", "detail", F.lit(run.run_id).alias("run_id")
    )


def settle_rejects(run: Run, stage: str, rejected: DataFrame) -> int:
    """Replace all rejects of a stage by `rejected` (pair_id, reason, detail); write only if something changed.

    Returns:
        The number of rejects.
    """
    compare = ("pair_id", "reason", "detail")
    with persisted(as_rejects(run, stage, rejected)) as rows:
        count = int(rows.count())  # Spark Connect 3.5 counts in NumPy integers
        if count <= FEW:
            few = [tuple(row) for row in rows.collect()] if count else []
            run.lake.settle_few("rejects", few, column="stage", value=stage, compare=compare)
        else:
            run.lake.settle("rejects", rows, column="stage", value=stage, compare=compare)
    return count


def surviving(lake: Lake, *, before: str) -> DataFrame:
    """Return the rows of `pairs` that no stage before `before` rejected.

    The reject reason `repeated_row` does not count: it rejects the copy of a row, not the pair.
    """
    gone = lake.read("rejects").where(rejected_before(before)).select("pair_id")
    return lake.read("pairs").join(gone, "pair_id", "left_anti")


def rejected_before(before: str) -> str:
    """Return the SQL condition on `rejects` of the pairs that are not `surviving` before a stage."""
    earlier = STAGES[1 : STAGES.index(before)] if before in STAGES else STAGES[1:]
    return " OR ".join(["(stage = 'ingest' AND reason <> 'repeated_row')", *(f"stage = '{name}'" for name in earlier)])
