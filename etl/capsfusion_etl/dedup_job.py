"""Duplicates, exact and near: looks at what is there, and writes only if something changed."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from capsfusion_etl.near import DedupConfig
from capsfusion_etl.near_job import near_duplicates, update_clusters
from capsfusion_etl.rejects import settle_rejects
from capsfusion_etl.runlog import Run


def dedup(run: Run, config: DedupConfig) -> None:
    """Of pairs that repeat each other one stays.

    Exactly: of the pairs with one picture the longest raw caption, ties by pair_id. Without a picture, a pair is the
    same if address and words are: case, punctuation and spaces aside. Nearly: see `near_job`.
    """
    with run.stage("dedup") as counts:
        update_clusters(run, config, _unique(run))
        counts.rows_rejected = settle_rejects(run, "dedup", duplicates(run, config)).count()
        counts.rows_in = run.lake.alive(before="dedup").count()


def duplicates(run: Run, config: DedupConfig) -> DataFrame:
    """The pairs that repeat a better one, near ones as far as they are known: pair_id, reason, detail."""
    found = _exact(run)
    for near in near_duplicates(run, config, _unique(run)):
        found = found.unionByName(near)
    return found


def _unique(run: Run) -> DataFrame:
    """Survivors of the exact rule, with what near ones are told by."""
    alive = run.lake.alive(before="dedup").join(_exact(run).select("pair_id"), "pair_id", "left_anti")
    seen = run.lake.read("images").where("error IS NULL").select("url", "phash")
    return alive.join(seen, "url", "left").select("pair_id", "raw_caption", "ingested_at", "phash")


def _exact(run: Run) -> DataFrame:
    lake = run.lake
    images = lake.read("images").where("error IS NULL").select("url", "image_id")
    words = F.lower(F.regexp_replace("raw_caption", r"[^\p{L}\p{N}]+", " "))
    pairs = lake.alive(before="dedup").join(images, "url", "left")
    pairs = pairs.withColumn("same", F.coalesce("image_id", F.concat_ws(" ", "url", F.trim(words))))
    best = Window.partitionBy("same").orderBy(F.length("raw_caption").desc(), "pair_id")
    ranked = pairs.withColumn("rank", F.row_number().over(best)).withColumn("kept", F.first("pair_id").over(best))
    return ranked.where("rank > 1").select(
        "pair_id",
        F.when(F.col("image_id").isNotNull(), "duplicate_image").otherwise("duplicate_caption").alias("reason"),
        F.concat(F.lit("kept "), "kept").alias("detail"),
    )
