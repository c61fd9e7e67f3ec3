"""Ingest stage, driver side: turn source rows into pairs with a stable id.

A newer version of a source adds new pairs, updates changed ones, and rejects missing ones as gone.
"""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl import ids
from capsfusion_etl.lake.blocklist import blocked_by, blocked_pairs
from capsfusion_etl.lake.image_files import path_within
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.rejects import settle_rejects
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.fetch.config import FetchConfig, with_files
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.files import is_pattern, listed
from capsfusion_etl.stages.ingest.sources import read
from capsfusion_etl.stages.ingest.worker import inspect_batches
from capsfusion_etl.storage import is_remote
from capsfusion_etl.tables import IMAGES, PAIRS

SYNTHETIC = "synthetic_caption"  # key in `extra`
# Conditions on the rows of `_compared`.
_NEW = "n IS NOT NULL AND malformed IS NULL AND forbidden IS NULL AND since IS NULL"
_CHANGED = (  # by entries, because Spark cannot compare maps
    "n IS NOT NULL AND forbidden IS NULL AND since IS NOT NULL"
    " AND array_sort(map_entries(extra)) <> array_sort(map_entries(old_extra))"
)
_WAS, _IS = (f"coalesce({extra}['{SYNTHETIC}'], '')" for extra in ("old_extra", "extra"))
_STALE = f"{_CHANGED} AND {_WAS} <> {_IS}"
_GONE = "reason = 'gone' AND NOT was <=> 'gone'"


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
    limits = with_files(fetch or FetchConfig(), lake)
    name = config.name or str(config.pairs)
    with run.stage("ingest") as counts:
        source = read(lake.spark, config, max_bytes=limits.max_bytes)
        rows = with_pair_id(source.rows)
        found = _pairs_of(rows, name, source_version(str(config.pairs)))
        with nullcontext(found) if lake.is_empty("takedowns") else persisted(found) as found:  # then it is read twice
            blocked = blocked_pairs(lake, found)
            with persisted(_compared(lake, found, blocked, name, whole=config.limit is None)) as both:
                seen = _counted(both)
                counts.rows_in, counts.rows_out = seen["rows"], seen["new"]
                counts.rows_rejected = seen["repeated"] + seen["malformed"]
                if seen["changed"]:
                    _update(lake, both.where(_CHANGED), stale=seen["stale"])
                settle_rejects(run, "ingest", both.where("reason IS NOT NULL").select("pair_id", "reason", "detail"))
                if seen["new"]:
                    lake.insert_new("pairs", both.where(_NEW), at_most=seen["new"])
            if "bytes" in rows.columns:
                _keep_images(run, rows.join(blocked.select("pair_id"), "pair_id", "left_anti"), limits)
        told = {"malformed": seen["malformed"], "updated": seen["changed"], "gone": seen["gone"]}
        notes = [f"{n} {word}" for word, n in told.items() if n]
        if source.left_out:
            columns = ", ".join(f"{column} ({kind})" for column, kind in source.left_out.items())
            notes.append(f"columns left out, as they are no text: {columns}")
        counts.note = ", ".join(notes)


def _pairs_of(rows: DataFrame, source: str, version: str) -> DataFrame:
    """Return rows of `pairs`, with `malformed`, and `n`: how many times the source contains each pair."""
    malformed = "malformed" if "malformed" in rows.columns else F.lit(None).cast("string").alias("malformed")
    first = F.min_by(F.struct("url", "raw_caption", "extra", malformed), "raw_caption").alias("first")
    return rows.groupBy("pair_id").agg(first, F.count("*").alias("n")).select(
        "pair_id", "first.url", "first.raw_caption", F.lit(source).alias("source"),
        F.lit(version).alias("source_version"), F.current_timestamp().alias("ingested_at"), "first.extra",
        "first.malformed", "n",
    )  # fmt: skip


def _counted(compared: DataFrame) -> dict[str, int]:
    conditions = {
        "malformed": "malformed IS NOT NULL", "repeated": "n > 1 AND malformed IS NULL",
        "new": _NEW, "changed": _CHANGED, "stale": _STALE, "gone": _GONE,
    }  # fmt: skip
    counts = [F.count_if(F.expr(condition)).alias(name) for name, condition in conditions.items()]
    row = compared.agg(F.coalesce(F.sum("n"), F.lit(0)).alias("rows"), *counts).collect()[0]
    return {name: int(value) for name, value in row.asDict().items()}


def _compared(lake: Lake, found: DataFrame, blocked: DataFrame, name: str, *, whole: bool) -> DataFrame:
    """Compare the pairs of the source with `pairs`, and with the ingest rejects so far.

    Args:
        lake: the lake.
        found: the pairs of the source, with `n`.
        blocked: those that a takedown forbids.
        name: name of the source.
        whole: whether the whole source was read, so that missing pairs are gone.

    Returns:
        One row for each pair that the source, `pairs` or the rejects have. Columns of `pairs` and `n` as in the source,
        null if it lacks the pair; `old_extra`, `since` and `owner` as in `pairs`; `forbidden`, the kind of the
        takedown; `was`, the reason so far; `reason` and `detail` of the reject that the pair should have, if any.
    """
    old = lake.read("pairs").selectExpr("pair_id", "extra AS old_extra", "ingested_at AS since", "source AS owner")
    there = lake.read("rejects").where("stage = 'ingest'").dropDuplicates(["pair_id"])
    there = there.selectExpr("pair_id", "reason AS was", "detail AS was_detail")
    forbidden = blocked.select("pair_id", F.col("kind").alias("forbidden"))
    both = found.join(forbidden, "pair_id", "left").join(old, "pair_id", "full").join(there, "pair_id", "full")
    missing, mine = F.col("n").isNull(), F.col("owner").eqNullSafe(name)
    cured = F.lit(whole) & (F.col("was") == "malformed_row") & F.col("was_detail").startswith(f"{name}: ")
    cases = (  # condition, reason, detail
        (F.col("forbidden").isNotNull(), F.lit("taken_down"), F.col("forbidden")),
        (F.col("malformed").isNotNull(), F.lit("malformed_row"), F.concat(F.lit(f"{name}: "), "malformed")),
        (F.col("n") > 1, F.lit("repeated_row"), F.concat(F.lit("the source holds it "), "n", F.lit(" times"))),
        (
            missing & mine & (F.lit(whole) | F.col("was").eqNullSafe("gone")),
            F.lit("gone"),
            F.lit(f"the newest version of {name} does not hold it"),
        ),
        (missing & cured, F.lit(None), F.lit(None)),
        (missing & ~mine, F.col("was"), F.col("was_detail")),  # of other sources
    )
    verdict = F.lit(None)
    for condition, reason, detail in reversed(cases):
        verdict = F.when(condition, F.struct(reason.alias("reason"), detail.alias("detail"))).otherwise(verdict)
    return both.withColumn("verdict", verdict).select("*", "verdict.reason", "verdict.detail")


def _update(lake: Lake, changed: DataFrame, *, stale: int) -> None:
    """Update the pairs whose `extra` changed.

    Captions that depend on a changed synthetic caption (of `stale` pairs) are deleted, so that they are due again.
    """
    if stale:
        # Delete the dependent captions first: after a kill here, the next run still sees the change.
        before = changed.where(_STALE).selectExpr("pair_id", f"{_WAS} AS was")
        lake.delete("synthetic_captions", before, on="t.pair_id = s.pair_id AND t.engine = 'column'")
        lake.delete("fused_captions", before, on="t.pair_id = s.pair_id AND t.synthetic_caption = s.was")
    rows = changed.withColumn("ingested_at", F.col("since"))
    lake.update("pairs", rows.select(*(name for name, _, _ in PAIRS.columns)))


def _keep_images(run: Run, rows: DataFrame, limits: FetchConfig) -> None:
    lake = run.lake
    new = (
        rows.select("url", "bytes").join(lake.read("images").select("url"), "url", "left_anti").dropDuplicates(["url"])
    )
    inspect = partial(inspect_batches, limits=limits, run_id=run.run_id, blocked=blocked_by(lake).image_ids)
    inspected = new.mapInArrow(inspect, IMAGES.schema()).withColumn("path", path_within(lake))
    lake.append("images", inspected, app_id=f"{run.run_id}/ingest")


def source_version(path: str) -> str:
    """Return a hash of the path, names and sizes of the files of a local source; of the URL alone if it is remote."""
    root = Path(path)
    if not is_remote(path) and is_pattern(path):
        files = [Path(name) for name in listed(str(root.absolute()))]
    else:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return ids.short_hash("\n".join([path, *(f"{f.name} {f.stat().st_size}" for f in files)]))


def with_pair_id(rows: DataFrame) -> DataFrame:
    """Add `pair_id` (sha256 hex) to rows with `url` and `raw_caption`."""

    @F.pandas_udf("string")  # type: ignore[attr-defined,call-overload,untyped-decorator,unused-ignore]
    def pair_id(url: pd.Series, raw_caption: pd.Series) -> pd.Series:
        return pd.Series([ids.pair_id(u, r) for u, r in zip(url, raw_caption, strict=True)], dtype=object)

    return rows.withColumn("pair_id", pair_id("url", "raw_caption"))
