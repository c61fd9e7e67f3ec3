"""The Spark side of the fetch: which addresses are due, slice by slice, and whom their errors reject."""

from pyspark.sql import functions as F

from capsfusion_etl.fetch import FetchConfig, bind
from capsfusion_etl.runlog import Run
from capsfusion_etl.slices import commit_in_slices
from capsfusion_etl.tables import IMAGES


def fetch(run: Run, config: FetchConfig) -> None:
    """Fetch every address that no earlier run fetched, and reject the pairs without a picture."""
    lake = run.lake
    with run.stage("fetch") as counts:
        urls = lake.alive(before="fetch").select("url").distinct()
        due = urls.join(lake.read("images").select("url"), "url", "left_anti")
        counts.rows_in = urls.count()
        # Hosts are spread over tasks by the hash of the whole address; the key makes the slices.
        keyed = due.withColumn("slice_key", F.sha2("url", 256))
        counts.rows_out = commit_in_slices(
            run,
            "fetch",
            keyed,
            key="slice_key",
            table="images",
            work=lambda rows, _: rows.select("url").mapInArrow(bind(config, run.run_id), IMAGES.schema()),
        )
        rejects = (
            lake.alive(before="fetch")
            .join(lake.read("images").where("error IS NOT NULL").select("url", "error", "detail"), "url")
            .select("pair_id", F.lit("fetch").alias("stage"), F.col("error").alias("reason"), "detail")
            .withColumn("run_id", F.lit(run.run_id))
        )
        lake.settle("rejects", rejects, scope="stage = 'fetch'", compare=("pair_id", "reason", "detail"))
        counts.rows_rejected = rejects.count()
