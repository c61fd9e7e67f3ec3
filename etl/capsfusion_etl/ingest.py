"""Ingest: source rows become pairs with a stable id; rows that repeat a pair are counted in rejects."""

from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl import ids
from capsfusion_etl.runlog import Run
from capsfusion_etl.sources import SourceConfig, read


def ingest(run: Run, config: SourceConfig) -> None:
    """Add the pairs of a source that the lake does not hold yet.

    Raises:
        InputError: see `sources.read`.
    """
    lake = run.lake
    with run.stage("ingest") as counts:
        rows = with_pair_id(read(lake.spark, config))
        grouped = rows.groupBy("pair_id").agg(
            F.min_by(F.struct("url", "raw_caption", "extra"), "raw_caption").alias("first"), F.count("*").alias("n")
        )
        version = source_version(str(config.pairs))
        pairs = grouped.select(
            "pair_id",
            "first.url",
            "first.raw_caption",
            F.lit(config.pairs).alias("source"),
            F.lit(version).alias("source_version"),
            F.current_timestamp().alias("ingested_at"),
            "first.extra",
            "n",
        )
        new = pairs.join(lake.read("pairs").select("pair_id"), "pair_id", "left_anti")
        totals = grouped.agg(F.sum("n").alias("rows"), F.count_if(F.col("n") > 1).alias("repeated")).collect()[0]
        counts.rows_in, counts.rows_rejected = totals["rows"] or 0, totals["repeated"]
        counts.rows_out = new.count()
        if totals["repeated"]:
            lake.insert_new("rejects", _repeated(grouped, run.run_id))
        if counts.rows_out:
            lake.insert_new("pairs", new)


def _repeated(grouped: DataFrame, run_id: str) -> DataFrame:
    return grouped.where("n > 1").select(
        "pair_id",
        F.lit("ingest").alias("stage"),
        F.lit("repeated_row").alias("reason"),
        F.concat(F.lit("the source holds it "), F.col("n"), F.lit(" times")).alias("detail"),
        F.lit(run_id).alias("run_id"),
    )


def source_version(path: str) -> str:
    """Hash over the names and sizes of a local source's files; of the address itself where it is a remote one."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return ids.short_hash("\n".join([path, *(f"{f.name} {f.stat().st_size}" for f in files)]))


def with_pair_id(rows: DataFrame) -> DataFrame:
    """Add `pair_id` (sha256 hex) to rows with `url` and `raw_caption`."""

    @F.pandas_udf("string")  # type: ignore[attr-defined,call-overload,untyped-decorator,unused-ignore]
    def pair_id(url: pd.Series, raw_caption: pd.Series) -> pd.Series:
        return pd.Series([ids.pair_id(u, r) for u, r in zip(url, raw_caption, strict=True)], dtype=object)

    return rows.withColumn("pair_id", pair_id("url", "raw_caption"))
