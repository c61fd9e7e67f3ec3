"""The Spark side of filter and dedup: both look at what is there, and write only if something changed."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from capsfusion_etl.filters import FilterConfig, bind
from capsfusion_etl.runlog import Run

_COMPARE = ("pair_id", "reason", "detail")


def filter_pairs(run: Run, config: FilterConfig) -> None:
    """Screen every pair that has survived so far; a changed threshold brings pairs back, too."""
    lake = run.lake
    with run.stage("filter") as counts:
        lake.settle("rejects", filtered(run, config), scope="stage = 'filter'", compare=_COMPARE)
        counts.rows_in = lake.alive(before="filter").count()
        counts.rows_rejected = lake.read("rejects").where("stage = 'filter'").count()


def filtered(run: Run, config: FilterConfig) -> DataFrame:
    """Rows of `rejects`: the pairs that these thresholds hold back."""
    lake = run.lake
    sizes = lake.read("images").select("url", "width", "height", "contrast")
    pairs = lake.alive(before="filter").join(sizes, "url", "left")
    pairs = pairs.select("pair_id", "raw_caption", "width", "height", "contrast")
    gone = pairs.mapInArrow(bind(config), "pair_id string, reason string, detail string")
    return gone.select("pair_id", F.lit("filter").alias("stage"), "reason", "detail", F.lit(run.run_id).alias("run_id"))


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
