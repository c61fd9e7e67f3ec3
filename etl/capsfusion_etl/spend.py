"""What engine work cost, one row in `spend` for each committed slice."""

from pyspark.sql import functions as F

from capsfusion_etl.runlog import Run
from capsfusion_etl.tables import SPEND


def record_spend(run: Run, stage: str, low: str, table: str) -> None:
    """Sum up what the slice of `table` from `low` on holds of this run, and append it to `spend` once.

    The rows themselves carry their cost: if a kill falls between the two commits, SQL over `table` still has it.
    """
    rows = run.lake.read(table).where((F.col("run_id") == run.run_id) & (F.col("pair_id") >= low))
    total = rows.groupBy("engine", "model").agg(
        F.count("*").alias("rows"),
        F.sum("prompt_tokens").alias("prompt_tokens"),
        F.sum("completion_tokens").alias("completion_tokens"),
        F.sum("cost_usd").alias("settled_usd"),
    )
    spent = (
        total.withColumn("run_id", F.lit(run.run_id))
        .withColumn("stage", F.lit(stage))
        .withColumn("slice", F.lit(low))
        .withColumn("reserved_usd", F.col("settled_usd"))
        .select(*(name for name, _, _ in SPEND.columns))
    )
    run.lake.append("spend", spent, app_id=f"{run.run_id}/{stage}/spend/{low}", version=0)
