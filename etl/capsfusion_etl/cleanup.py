"""The Spark side of filter and dedup: both look at what is there, and write only if something changed."""

from pyspark.sql import Window
from pyspark.sql import functions as F

from capsfusion_etl.filters import FilterConfig, bind
from capsfusion_etl.runlog import Run

_COMPARE = ("pair_id", "reason", "detail")


def filter_pairs(run: Run, config: FilterConfig) -> None:
    """Screen every pair that has survived so far; a changed threshold brings pairs back, too."""
    lake = run.lake
    with run.stage("filter") as counts:
        sizes = lake.read("images").select("url", "width", "height", "contrast")
        pairs = lake.alive(before="filter").join(sizes, "url", "left")
        pairs = pairs.select("pair_id", "raw_caption", "width", "height", "contrast")
        gone = pairs.mapInArrow(bind(config), "pair_id string, reason string, detail string")
        rejects = gone.select(
            "pair_id", F.lit("filter").alias("stage"), "reason", "detail", F.lit(run.run_id).alias("run_id")
        )
        lake.settle("rejects", rejects, scope="stage = 'filter'", compare=_COMPARE)
        counts.rows_in = pairs.count()
        counts.rows_rejected = lake.read("rejects").where("stage = 'filter'").count()


def dedup(run: Run) -> None:
    """Exact duplicates: of the pairs with one picture the longest raw caption stays, ties by pair_id.

    Without a picture, a pair is the same if address and words are: case, punctuation and spaces aside.
    """
    lake = run.lake
    with run.stage("dedup") as counts:
        images = lake.read("images").where("error IS NULL").select("url", "image_id")
        words = F.lower(F.regexp_replace("raw_caption", r"[^\p{L}\p{N}]+", " "))
        pairs = lake.alive(before="dedup").join(images, "url", "left")
        pairs = pairs.withColumn("same", F.coalesce("image_id", F.concat_ws(" ", "url", F.trim(words))))
        best = Window.partitionBy("same").orderBy(F.length("raw_caption").desc(), "pair_id")
        ranked = pairs.withColumn("rank", F.row_number().over(best)).withColumn("kept", F.first("pair_id").over(best))
        rejects = ranked.where("rank > 1").select(
            "pair_id",
            F.lit("dedup").alias("stage"),
            F.when(F.col("image_id").isNotNull(), "duplicate_image").otherwise("duplicate_caption").alias("reason"),
            F.concat(F.lit("kept "), "kept").alias("detail"),
            F.lit(run.run_id).alias("run_id"),
        )
        lake.settle("rejects", rejects, scope="stage = 'dedup'", compare=_COMPARE)
        counts.rows_in = pairs.count()
        counts.rows_rejected = lake.read("rejects").where("stage = 'dedup'").count()
