"""Exact duplicates: looks at what is there, and writes only if something changed."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from capsfusion_etl.runlog import Run

_COMPARE = ("pair_id", "reason", "detail")


def dedup(run: Run) -> None:
    """Exact duplicates: of the pairs with one picture the longest raw caption stays, ties by pair_id.

    Without a picture, a pair is the same if address and words are: case, punctuation and spaces aside.
    """
    lake = run.lake
    with run.stage("dedup") as counts:
        lake.settle("rejects", duplicates(run), scope="stage = 'dedup'", compare=_COMPARE)
        counts.rows_in = lake.alive(before="dedup").count()
        counts.rows_rejected = lake.read("rejects").where("stage = 'dedup'").count()


def duplicates(run: Run) -> DataFrame:
    """Rows of `rejects`: the pairs that repeat a better one."""
    lake = run.lake
    images = lake.read("images").where("error IS NULL").select("url", "image_id")
    words = F.lower(F.regexp_replace("raw_caption", r"[^\p{L}\p{N}]+", " "))
    pairs = lake.alive(before="dedup").join(images, "url", "left")
    pairs = pairs.withColumn("same", F.coalesce("image_id", F.concat_ws(" ", "url", F.trim(words))))
    best = Window.partitionBy("same").orderBy(F.length("raw_caption").desc(), "pair_id")
    ranked = pairs.withColumn("rank", F.row_number().over(best)).withColumn("kept", F.first("pair_id").over(best))
    return ranked.where("rank > 1").select(
        "pair_id",
        F.lit("dedup").alias("stage"),
        F.when(F.col("image_id").isNotNull(), "duplicate_image").otherwise("duplicate_caption").alias("reason"),
        F.concat(F.lit("kept "), "kept").alias("detail"),
        F.lit(run.run_id).alias("run_id"),
    )
