"""Dedup stage, driver side: find exact and near duplicates, and rewrite `rejects` only if they changed."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from capsfusion_etl.lake.rejects import settle_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.dedup.clusters import near_duplicates, update_clusters
from capsfusion_etl.stages.dedup.sketches import DedupConfig


def dedup(run: Run, config: DedupConfig) -> None:
    """Reject all but one of each group of duplicates.

    Exact duplicates have the same image bytes, or, without an image, the same URL and the same words, ignoring case and
    punctuation. The longest raw caption stays, ties by pair_id. For near duplicates see `clusters.near_duplicates`.
    """
    with run.stage("dedup") as counts, persisted(_pairs(run)) as pairs, persisted(_exact(pairs)) as exact:
        counts.rows_in = pairs.count()
        unique = _unique(pairs, exact)
        update_clusters(run, config, unique)
        counts.rows_rejected = settle_rejects(run, "dedup", _with_near(run, config, exact, unique))


def duplicates(run: Run, config: DedupConfig) -> DataFrame:
    """Return the pairs to reject as duplicates: pair_id, reason, detail.

    Near duplicates come from the stored clusters, which this does not update.
    """
    pairs = _pairs(run)
    exact = _exact(pairs)
    return _with_near(run, config, exact, _unique(pairs, exact))


def _with_near(run: Run, config: DedupConfig, exact: DataFrame, unique: DataFrame) -> DataFrame:
    found = exact
    for near in near_duplicates(run, config, unique):
        found = found.unionByName(near)
    return found


def _pairs(run: Run) -> DataFrame:
    """Return the surviving pairs: pair_id, url, raw_caption, ingested_at, image_id, phash."""
    images = run.lake.read("images").where("error IS NULL").select("url", "image_id", "phash")
    pairs = surviving(run.lake, before="dedup").join(images, "url", "left")
    return pairs.select("pair_id", "url", "raw_caption", "ingested_at", "image_id", "phash")


def _unique(pairs: DataFrame, exact: DataFrame) -> DataFrame:
    """Return the survivors of the exact rule."""
    return pairs.join(exact.select("pair_id"), "pair_id", "left_anti")


def _exact(pairs: DataFrame) -> DataFrame:
    words = F.lower(F.regexp_replace("raw_caption", r"[^\p{L}\p{N}]+", " "))
    pairs = pairs.withColumn("same", F.coalesce("image_id", F.concat_ws(" ", "url", F.trim(words))))
    best = Window.partitionBy("same").orderBy(F.length("raw_caption").desc(), "pair_id")
    ranked = pairs.withColumn("rank", F.row_number().over(best)).withColumn("kept", F.first("pair_id").over(best))
    return ranked.where("rank > 1").select(
        "pair_id",
        F.when(F.col("image_id").isNotNull(), "duplicate_image").otherwise("duplicate_caption").alias("reason"),
        F.concat(F.lit("kept "), "kept").alias("detail"),
    )
