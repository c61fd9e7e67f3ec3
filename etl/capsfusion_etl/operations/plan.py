"""`capsfusion plan`: what `run` would do with these settings and what it would cost; writes nothing.

Pairs and images are taken as they are in the lake; the results of the later stages are computed as `run` would.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.budget.forecast import forecast
from capsfusion_etl.engines import fuser_hash, is_paid
from capsfusion_etl.lake.rejects import as_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.caption.stage import due_for_caption, pairs_to_caption
from capsfusion_etl.stages.dedup.stage import duplicates
from capsfusion_etl.stages.filters.stage import rejected_pairs
from capsfusion_etl.stages.fuse.canaries import canaries_of
from capsfusion_etl.strategies import copies_caption

if TYPE_CHECKING:
    from capsfusion_etl.pipeline import PipelineConfig


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One line of a plan.

    Attributes:
        stage: name of the stage, with the strategy for `fuse`.
        due: rows that the stage would write.
        there: rows that exist already and stay.
        words: a remark for people: the engine, the cost, or how rejects change.
    """

    stage: str
    due: int
    there: int
    words: str = ""


def stage_forecasts(run: Run, pipeline: "PipelineConfig") -> Iterator[StageForecast]:
    """Yield the forecast of each stage from `filter` to `fuse`, in order."""
    with ExitStack() as stack:
        for stage in ("filter", "dedup"):  # dedup must not see the pairs that the filter would reject
            wanted = rejected_pairs(run, pipeline.filters) if stage == "filter" else duplicates(run, pipeline.dedup)
            wanted = stack.enter_context(persisted(wanted))
            yield _changed(run, stage, wanted)
            others = run.lake.read("rejects").where(F.col("stage") != stage)
            rejects = others.unionByName(as_rejects(run, stage, wanted))
            run = replace(run, lake=run.lake.with_rows("rejects", rejects))
        pairs = stack.enter_context(persisted(pairs_to_caption(run)))
        everything, due = pairs.count(), due_for_caption(run, pipeline.captioner, pairs).count()
        words = " and ".join(filter(None, (pipeline.captioner.name, pipeline.captioner.otherwise)))
        yield StageForecast("caption", due, everything - due, f"by {words}")
        for strategy in pipeline.fuser.strategies:
            yield _fusion(run, pipeline, strategy)


def _changed(run: Run, stage: str, wanted: DataFrame) -> StageForecast:
    now = run.lake.read("rejects").where(F.col("stage") == stage).select("pair_id", F.col("reason").alias("now"))
    both = wanted.select("pair_id", "reason").join(now, "pair_id", "full_outer")
    new, back, there = both.agg(
        F.count_if(F.col("reason").isNotNull() & ~F.col("reason").eqNullSafe(F.col("now"))),
        F.count_if(F.col("reason").isNull()),
        F.count_if(F.col("reason").isNotNull() & F.col("now").isNotNull()),
    ).collect()[0]
    return StageForecast(stage, new, there, f"{new} more rejected, {back} no longer rejected")


def _fusion(run: Run, pipeline: "PipelineConfig", strategy: str) -> StageForecast:
    """Forecast one strategy; pairs whose synthetic caption is not written yet are due, too."""
    lake, config = run.lake, pipeline.fuser
    params_hash = fuser_hash(config, pipeline.captioner_params_hash, strategy)
    synthetic = lake.read("synthetic_captions").where(F.col("params_hash") == pipeline.captioner_params_hash)
    pairs = surviving(lake, before="fuse").join(synthetic.select("pair_id", "caption", "error"), "pair_id", "left")
    pairs = pairs.where("caption IS NOT NULL OR error IS NULL").withColumn(
        "synthetic_caption", F.coalesce("caption", F.lit(""))
    )
    mine = (
        lake.read("fused_captions")
        .where(F.col("params_hash") == params_hash)
        .select("pair_id", F.lit(True).alias("made"))
    )
    asked = pairs.join(mine, "pair_id", "left")
    rows, there = asked.agg(F.count_if(F.col("made").isNull()), F.count("made")).collect()[0]
    due = asked.where("made IS NULL").drop("made")
    words = "copied" if copies_caption(strategy) else f"by {config.name}"
    if rows and is_paid(config) and not copies_caption(strategy):
        words += f": {forecast(lake, config, strategy, due, rows + canaries_of(config))}"
    return StageForecast(f"fuse {strategy}", rows, there, words)
