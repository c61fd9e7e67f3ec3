"""Why a pair is held back: one row of `rejects` for it at most from each stage."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.tables import STAGES


def because(reason: str, pairs: DataFrame, detail: Column) -> DataFrame:
    """One reason for all these pairs: pair_id, reason, detail."""
    return pairs.select("pair_id", F.lit(reason).alias("reason"), detail.alias("detail"))


def as_rejects(run: Run, stage: str, rejected: DataFrame) -> DataFrame:
    """Rows of `rejects` from pair_id, reason and detail."""
    return rejected.select(
        "pair_id", F.lit(stage).alias("stage"), "reason", "detail", F.lit(run.run_id).alias("run_id")
    )


def settle_rejects(run: Run, stage: str, rejected: DataFrame) -> DataFrame:
    """Make these (pair_id, reason, detail) all that the stage holds back, writing only if something changed.

    Returns them as they are in the table: who wants their number counts them.
    """
    with persisted(as_rejects(run, stage, rejected)) as rows:
        run.lake.settle("rejects", rows, scope=f"stage = '{stage}'", compare=("pair_id", "reason", "detail"))
    return run.lake.read("rejects").where(F.col("stage") == stage)


def surviving(lake: Lake, *, before: str) -> DataFrame:
    """Pairs that no stage earlier than `before` rejected. A repeated row costs the copy, not the pair."""
    earlier = list(STAGES[1 : STAGES.index(before)] if before in STAGES else STAGES[1:])
    here = (F.col("stage") == "ingest") & (F.col("reason") != "repeated_row")
    gone = lake.read("rejects").where(F.col("stage").isin(earlier) | here).select("pair_id")
    return lake.read("pairs").join(gone, "pair_id", "left_anti")
