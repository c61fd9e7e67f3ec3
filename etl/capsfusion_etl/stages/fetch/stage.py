"""The Spark side of the fetch: which addresses are due, slice by slice, and whom their errors reject."""

import re
from dataclasses import replace
from functools import partial

from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import host_sql
from capsfusion_etl.lake.blocklist import blocked_images
from capsfusion_etl.lake.rejects import settle_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import SlicedWork, commit_by_key_range
from capsfusion_etl.stages.fetch.config import FetchConfig
from capsfusion_etl.stages.fetch.worker import fetch_batches
from capsfusion_etl.tables import IMAGES, REJECT_REASONS

_FIRST_ROWS = 5_000  # nothing is paid for: a larger step to begin with


def fetch(run: Run, config: FetchConfig, retry: tuple[str, ...] = ()) -> None:
    """Fetch every address that no earlier run fetched, and reject the pairs without a picture.

    Args:
        retry: what to ask for again: reasons of the fetch stage, statuses as 429, or kinds as 5xx.

    Raises:
        InputError: no such reason or status.
    """
    lake, again = run.lake, failures(retry)
    if config.inline_bytes is not None and config.files is None:
        if lake.in_catalog:
            raise InputError("fetch.files: say where pictures above fetch.inline_bytes go, as this lake has no folder")
        config = replace(config, files=f"{lake.root}/_images")
    work = partial(fetch_batches, config=config, run_id=run.run_id, blocked=blocked_images(lake))
    with run.stage("fetch") as counts:
        if again:  # forgotten, they are due like any other: a kill in between costs nothing but the old reason
            lake.spark.sql(f"DELETE FROM {lake.ref('images')} WHERE {again}")
        urls = surviving(lake, before="fetch").select("url").distinct()
        due = urls.join(lake.read("images").select("url"), "url", "left_anti")
        counts.rows_in = urls.count()
        # A host belongs to one task of a slice: its limits hold over all of them.
        keyed = due.withColumn("slice_key", F.sha2("url", 256)).withColumn("host", F.expr(host_sql("url")))
        sliced = SlicedWork(
            "fetch", "images", lambda rows, _: rows.select("url").mapInArrow(work, IMAGES.schema()),
            key="slice_key", spread_by=("host",), first_rows=_FIRST_ROWS,
        )  # fmt: skip
        counts.rows_out = commit_by_key_range(run, keyed, sliced)
        failed = lake.read("images").where("error IS NOT NULL").select("url", F.col("error").alias("reason"), "detail")
        counts.rows_rejected = settle_rejects(run, "fetch", surviving(lake, before="fetch").join(failed, "url")).count()


def failures(kinds: tuple[str, ...]) -> str:
    """A condition on `images` for these kinds of failure; empty for none.

    Raises:
        InputError: there is no such kind.
    """
    conditions = []
    for kind in kinds:
        if kind in REJECT_REASONS["fetch"]:
            conditions.append(f"error = '{kind}'")
        elif re.fullmatch(r"[1-5]xx", kind):
            conditions.append(f"error = 'http_error' AND http_status DIV 100 = {kind[0]}")
        elif re.fullmatch(r"[1-5]\d\d", kind):
            conditions.append(f"error = 'http_error' AND http_status = {kind}")
        else:
            known = ", ".join((*REJECT_REASONS["fetch"], "5xx", "429"))
            raise InputError(f"--retry {kind}: there is no such failure; there are {known}...")
    return " OR ".join(f"({condition})" for condition in conditions)
