"""Alarms: signs that the captions are wrong as a whole although each row looks fine. An alarm blocks publishing.

Workers detect shifted answers in each batch as it arrives (`worker.mark_shifted`); the other alarms query the tables
when a strategy is finished.
"""

from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.console import say
from capsfusion_etl.ids import host_sql
from capsfusion_etl.lake.rejects import surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.stages.fuse.attempts import SHIFTED

MANY = 20  # an answer for more raw captions, or an image on more hosts than this, is suspicious
SHARE = 0.01  # of the rows: the limit in a large lake, where it exceeds MANY


def raise_alarms(run: Run, params_hash: str, strategy: str, canaries: str | None) -> None:
    """Check the captions of `params_hash` and replace its rows in `alarms` by what is found.

    Args:
        canaries: what is wrong with the canary rows, None if nothing is.
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
    compare = ("alarm", "detail", "rows")
    lake.settle_few("alarms", rows, column="params_hash", value=params_hash, compare=compare)
    for alarm, detail, count in found:
        say(f"{'':9s} alarm: {alarm}: {detail}" + (f" ({count} rows)" if count else ""))


Alarm = tuple[str, str, int]  # name, detail, rows (or hosts) concerned


def _shared_caption(mine: DataFrame, asked: int) -> list[Alarm]:
    """Detect one answer for many different raw captions: the model ignores its input."""
    answers = mine.where("answer IS NOT NULL AND attempts > 0")
    groups = answers.groupBy("answer").agg(F.count_distinct("raw_caption").alias("n")).orderBy(F.desc("n")).limit(1)
    return [
        ("one_caption_many_images", f"different raw captions have the same answer: {row['answer'][:100]}", row["n"])
        for row in groups.collect()
        if row["n"] > max(MANY, SHARE * asked)
    ]


def _placeholders(run: Run, mine: DataFrame) -> list[Alarm]:
    """Detect one image on many hosts: that of an error page, or a placeholder."""
    images = run.lake.read("images").where("error IS NULL")
    host = F.expr(host_sql("url"))
    pairs = surviving(run.lake, before="publish").join(mine.select("pair_id"), "pair_id", "left_semi").select("url")
    shown = images.join(pairs, "url", "left_semi").withColumn("host", host)
    groups = shown.groupBy("phash").agg(F.count_distinct("host").alias("n"), F.count("*").alias("rows"))
    most, hosts, total = groups.agg(F.max_by("phash", "n"), F.max("n"), F.sum("rows")).collect()[0]
    if (hosts or 0) <= max(MANY, SHARE * (total or 0)):
        return []
    return [("placeholder_image", f"many hosts serve the image with phash {most}", hosts)]
