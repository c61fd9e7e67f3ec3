"""Filter stage, driver side: apply the filters to all surviving pairs, and rewrite `rejects` only if they changed."""

from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.ids import host_sql
from capsfusion_etl.lake.rejects import because, settle_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.filters.majority import most_of
from capsfusion_etl.stages.filters.rules import FilterConfig
from capsfusion_etl.stages.filters.worker import CENSUS, EXAMPLES, REJECTED, census_batches, reject_batches


def filter_pairs(run: Run, config: FilterConfig) -> None:
    """Filter every surviving pair again; a changed threshold may also bring rejected pairs back."""
    with run.stage("filter") as counts, persisted(_pairs(run)) as pairs, persisted(_rejected(pairs, config)) as gone:
        counts.rows_in = pairs.count()
        rejected = _with_crowds(gone, pairs, config)
        counts.rows_rejected = settle_rejects(run, "filter", rejected)
        if counts.rows_rejected > counts.rows_in / 2:
            by_reason = rejected.groupBy("reason").count().collect()
            counts.note = most_of(counts.rows_in, {row["reason"]: int(row["count"]) for row in by_reason}, config)


def rejected_pairs(run: Run, config: FilterConfig) -> DataFrame:
    """Return the pairs that these thresholds reject: pair_id, reason, detail."""
    pairs = _pairs(run)
    return _with_crowds(_rejected(pairs, config), pairs, config)


def _rejected(pairs: DataFrame, config: FilterConfig) -> DataFrame:
    """Return the rejects of the filters that look at one pair at a time."""
    return pairs.mapInArrow(partial(reject_batches, config=config), REJECTED)


def _with_crowds(gone: DataFrame, pairs: DataFrame, config: FilterConfig) -> DataFrame:
    """Add the rejects of the filters over many pairs, but no pair twice."""
    for crowd in _crowds(pairs, config):
        gone = gone.unionByName(crowd.join(gone.select("pair_id"), "pair_id", "left_anti"))
    return gone.select("pair_id", "reason", "detail")


def census(run: Run, config: FilterConfig) -> tuple[int, list[tuple[str, int, int, list[str]]]]:
    """Count what each filter would reject, without writing anything.

    Returns:
        The number of pairs; and tuples (filter, alone, first, examples), largest `alone` first: the pairs that the
        filter would reject by itself, those that no earlier filter rejects (-1 for filters over many pairs), and up to
        EXAMPLES examples.
    """
    pairs = _pairs(run)
    counted = pairs.mapInArrow(partial(census_batches, config=config), CENSUS).groupBy("reason")
    examples = F.slice(F.flatten(F.collect_list("examples")), 1, EXAMPLES)
    rows = counted.agg(
        F.sum("alone").alias("alone"), F.sum("first").alias("first"), examples.alias("examples")
    ).collect()
    found = [(r["reason"], int(r["alone"]), int(r["first"]), list(r["examples"])) for r in rows]
    for crowd in _crowds(pairs, config):
        words = F.concat(F.substring("raw_caption", 1, 80), F.lit(" ["), "detail", F.lit("]"))
        shown = crowd.join(pairs.select("pair_id", "raw_caption"), "pair_id").select("reason", words.alias("words"))
        some = shown.groupBy("reason").agg(
            F.count("*").alias("n"), F.slice(F.collect_set("words"), 1, EXAMPLES).alias("w")
        )
        found += [(r["reason"], int(r["n"]), -1, list(r["w"])) for r in some.collect()]
    return pairs.count(), sorted(found, key=lambda row: -row[1])


def _pairs(run: Run) -> DataFrame:
    lake = run.lake
    seen = lake.read("images").select("url", "image_id", "phash", "width", "height", "contrast")
    return (
        surviving(lake, before="filter")
        .join(seen, "url", "left")
        .select("pair_id", "raw_caption", "url", "image_id", "phash", "width", "height", "contrast")
    )


def _crowds(pairs: DataFrame, config: FilterConfig) -> list[DataFrame]:
    """Return the rejects of filters over many pairs, one DataFrame for each: pair_id, reason, detail.

    common_caption: too many images share a caption; shared_picture: too many hosts serve an image.
    """
    crowds = []
    if config.max_images_per_caption is not None:
        same = F.lower(F.trim("raw_caption"))
        crowded = pairs.groupBy(same.alias("same")).agg(
            F.countDistinct(F.coalesce("image_id", "url")).alias("n")
        ).where(F.col("n") > config.max_images_per_caption)  # fmt: skip
        detail = F.concat("n", F.lit(" pictures"))
        crowds.append(because("common_caption", pairs.withColumn("same", same).join(crowded, "same"), detail))
    if config.max_hosts_per_picture is not None:
        host = F.expr(host_sql("url"))
        shared = pairs.where("phash IS NOT NULL").groupBy("phash").agg(F.countDistinct(host).alias("n"))
        shared = shared.where(F.col("n") > config.max_hosts_per_picture)
        detail = F.concat(F.lit("on "), "n", F.lit(" hosts"))
        crowds.append(because("shared_picture", pairs.join(shared, "phash"), detail))
    return crowds
