"""Alarms: signs that captions are wrong as a whole, where each row alone looks well. They block publishing.

`shifted` looks at the answers of a batch as they come; the others look at the tables when a strategy is done.
"""

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.console import say
from capsfusion_etl.ids import host_sql
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.fuse.attempts import SHIFTED
from capsfusion_etl.tables import ALARMS

MANY = 20  # pictures or addresses that may share a caption or a picture before it is strange
SHARE = 0.01  # or this share of the rows, if that is more


def raise_alarms(run: Run, params_hash: str, strategy: str, canaries: str | None) -> None:
    """Look at the captions that `params_hash` names, and make `alarms` say what is strange about them.

    Args:
        canaries: what the golden rows showed, None if they were well.
    """
    lake = run.lake
    mine = lake.read("fused_captions").where(F.col("params_hash") == params_hash)
    total, asked, shifted = mine.agg(
        F.count("*"), F.count_if(F.col("attempts") > 0), F.count_if(F.col("verdict") == SHIFTED)
    ).collect()[0]
    found: list[Alarm] = []
    if asked > MANY:
        found += _shared_caption(mine, asked)
    if total > MANY:
        found += _placeholders(run, mine)
    if shifted:
        found.append(("shifted_answers", "answers belong to other rows of their batch", shifted))
    found += [("canaries", canaries, 0)] if canaries else []
    rows = [(run.run_id, params_hash, strategy, *alarm, datetime.now(UTC)) for alarm in found]
    frame = lake.spark.createDataFrame(rows, ALARMS.schema())
    lake.settle("alarms", frame, scope=f"params_hash = '{params_hash}'", compare=("alarm", "detail", "rows"))
    for alarm, detail, count in found:
        say(f"{'':9s} alarm: {alarm}: {detail}" + (f" ({count} rows)" if count else ""))


Alarm = tuple[str, str, int]


def _shared_caption(mine: DataFrame, asked: int) -> list[Alarm]:
    """One answer for many different raw captions: the model stopped listening."""
    answers = mine.where("answer IS NOT NULL AND attempts > 0")
    groups = answers.groupBy("answer").agg(F.count_distinct("raw_caption").alias("n")).orderBy(F.desc("n")).limit(1)
    return [
        ("one_caption_many_images", f"so many pairs have the answer: {row['answer'][:100]}", row["n"])
        for row in groups.collect()
        if row["n"] > max(MANY, SHARE * asked)
    ]


def _placeholders(run: Run, mine: DataFrame) -> list[Alarm]:
    """One picture under many hosts: an error page's, or a `not available`."""
    images = run.lake.read("images").where("error IS NULL")
    host = F.expr(host_sql("url"))
    pairs = surviving(run.lake, before="publish").join(mine.select("pair_id"), "pair_id", "left_semi").select("url")
    shown = images.join(pairs, "url", "left_semi").withColumn("host", host)
    groups = shown.groupBy("phash").agg(F.count_distinct("host").alias("n"), F.count("*").alias("rows"))
    most, hosts, total = groups.agg(F.max_by("phash", "n"), F.max("n"), F.sum("rows")).collect()[0]
    if (hosts or 0) <= max(MANY, SHARE * (total or 0)):
        return []
    return [("placeholder_image", f"so many hosts serve the picture with phash {most}", hosts)]
