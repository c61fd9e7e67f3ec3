"""Ingest stage, driver side: turn source rows into pairs with a stable id.

A newer version of a source adds new pairs, updates changed ones, and rejects missing ones as gone.
"""

from functools import partial
from pathlib import Path

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_etl import ids
from capsfusion_etl.lake.blocklist import blocked_images, blocked_pairs
from capsfusion_etl.lake.rejects import because, settle_rejects
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.ingest.sources import SourceConfig, read
from capsfusion_etl.stages.ingest.worker import inspect_batches
from capsfusion_etl.tables import IMAGES, PAIRS

SYNTHETIC = "synthetic_caption"  # key in `extra`


def ingest(run: Run, config: SourceConfig, fetch: FetchConfig | None = None) -> None:
    """Update the pairs of a source to its newest version.

    A pair that the source no longer contains stays in `pairs`, with a row in `rejects` until it comes back. With
    `limit`, only a part of the source is read, so no pair is marked as gone. Images of the source go to `images`.

    Args:
        fetch: limits on the bytes and pixels of an image.

    Raises:
        InputError: see `sources.read`.
    """
    lake = run.lake
    limits = fetch or FetchConfig()
    name = config.name or str(config.pairs)
    with run.stage("ingest") as counts:
        rows = with_pair_id(read(lake.spark, config, max_bytes=limits.max_bytes))
        with persisted(_pairs_of(rows, name, source_version(str(config.pairs)))) as found:
            blocked = blocked_pairs(lake, found)
            pairs = found.join(blocked.select("pair_id"), "pair_id", "left_anti")
            new = pairs.join(lake.read("pairs").select("pair_id"), "pair_id", "left_anti")
            totals = found.agg(F.sum("n").alias("rows"), F.count_if(F.col("n") > 1).alias("repeated")).collect()[0]
            counts.rows_in, counts.rows_rejected = totals["rows"] or 0, totals["repeated"]
            counts.rows_out = new.count()
            updated = _update(run, pairs)
            gone = _settle_rejects(run, name, pairs, blocked, whole=config.limit is None)
            if counts.rows_out:
                lake.insert_new("pairs", new)
            if "bytes" in rows.columns:
                _keep_images(run, rows.join(blocked.select("pair_id"), "pair_id", "left_anti"), limits)
        counts.note = ", ".join(f"{n} {word}" for n, word in ((updated, "updated"), (gone, "gone")) if n)


def _pairs_of(rows: DataFrame, source: str, version: str) -> DataFrame:
    """Return rows of `pairs`, with `n`: how many times the source contains each pair."""
    first = F.min_by(F.struct("url", "raw_caption", "extra"), "raw_caption").alias("first")
    return rows.groupBy("pair_id").agg(first, F.count("*").alias("n")).select(
        "pair_id", "first.url", "first.raw_caption", F.lit(source).alias("source"),
        F.lit(version).alias("source_version"), F.current_timestamp().alias("ingested_at"), "first.extra", "n",
    )  # fmt: skip


def _update(run: Run, pairs: DataFrame) -> int:
    """Update the pairs whose `extra` changed; return their number.

    Captions that depend on a changed synthetic caption are deleted, so that they are due again.
    """
    lake = run.lake
    old = lake.read("pairs").select("pair_id", F.col("extra").alias("old"), F.col("ingested_at").alias("since"))
    changed = pairs.join(old, "pair_id").where(_entries("extra") != _entries("old"))
    rows = changed.withColumn("ingested_at", F.col("since")).select(*(name for name, _, _ in PAIRS.columns))
    before, after = (F.coalesce(F.col(c)[SYNTHETIC], F.lit("")) for c in ("old", "extra"))
    stale = changed.where(before != after).select("pair_id", before.alias("was"))
    # Delete the dependent captions first: after a kill here, the next run still sees the change.
    lake.delete("synthetic_captions", stale, on="t.pair_id = s.pair_id AND t.engine = 'column'")
    lake.delete("fused_captions", stale, on="t.pair_id = s.pair_id AND t.synthetic_caption = s.was")
    return lake.update("pairs", rows)


def _entries(column: str) -> Column:
    return F.array_sort(F.map_entries(column))  # Spark cannot compare maps


def _settle_rejects(run: Run, name: str, pairs: DataFrame, blocked: DataFrame, *, whole: bool) -> int:
    """Update the ingest rejects of this source; return how many pairs are newly gone.

    Args:
        pairs: the pairs of the source that are not blocked, with `n`.
        blocked: the pairs that a takedown forbids.
        whole: whether the whole source was read, so that missing pairs are gone.
    """
    lake = run.lake
    there = lake.read("rejects").where("stage = 'ingest'").select("pair_id", "reason", "detail")
    mine = lake.read("pairs").where(F.col("source") == name).select("pair_id")
    if whole:
        gone = mine.join(pairs.select("pair_id"), "pair_id", "left_anti")
        gone = because("gone", gone, F.lit(f"the newest version of {name} does not hold it"))
    else:
        gone = (
            there.where("reason = 'gone'")
            .join(pairs.select("pair_id"), "pair_id", "left_anti")
            .join(mine, "pair_id", "left_semi")
        )
    times = F.concat(F.lit("the source holds it "), F.col("n"), F.lit(" times"))
    repeated = because("repeated_row", pairs.where("n > 1"), times)
    others = there.join(
        mine.unionByName(pairs.select("pair_id")).unionByName(blocked.select("pair_id")), "pair_id", "left_anti"
    )
    wanted = gone
    for part in (repeated, because("taken_down", blocked, F.col("kind")), others):
        wanted = wanted.unionByName(part)
    newly = gone.join(there.where("reason = 'gone'"), "pair_id", "left_anti").count()
    settle_rejects(run, "ingest", wanted)
    return newly


def _keep_images(run: Run, rows: DataFrame, limits: FetchConfig) -> None:
    lake = run.lake
    new = (
        rows.select("url", "bytes").join(lake.read("images").select("url"), "url", "left_anti").dropDuplicates(["url"])
    )
    inspect = partial(inspect_batches, limits=limits, run_id=run.run_id, blocked=blocked_images(lake))
    inspected = new.mapInArrow(inspect, IMAGES.schema())
    lake.append("images", inspected, app_id=f"{run.run_id}/ingest", version=0)


def source_version(path: str) -> str:
    """Return a hash of the path, names and sizes of the files of a local source; of the URL alone if it is remote."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return ids.short_hash("\n".join([path, *(f"{f.name} {f.stat().st_size}" for f in files)]))


def with_pair_id(rows: DataFrame) -> DataFrame:
    """Add `pair_id` (sha256 hex) to rows with `url` and `raw_caption`."""

    @F.pandas_udf("string")  # type: ignore[attr-defined,call-overload,untyped-decorator,unused-ignore]
    def pair_id(url: pd.Series, raw_caption: pd.Series) -> pd.Series:
        return pd.Series([ids.pair_id(u, r) for u, r in zip(url, raw_caption, strict=True)], dtype=object)

    return rows.withColumn("pair_id", pair_id("url", "raw_caption"))
