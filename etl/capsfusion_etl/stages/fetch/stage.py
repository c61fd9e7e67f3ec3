"""Fetch stage, driver side: fetch the URLs that are due, slice by slice, and reject the pairs without an image."""

import re
from contextlib import ExitStack
from functools import partial

from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import host_sql
from capsfusion_etl.lake.blocklist import blocked_by
from capsfusion_etl.lake.image_files import path_within
from capsfusion_etl.lake.rejects import settle_rejects, surviving
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import SlicedWork, commit_by_key_range
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.stages.fetch.config import FetchConfig, with_files
from capsfusion_etl.stages.fetch.worker import fetch_batches
from capsfusion_etl.tables import IMAGES, REJECT_REASONS

_FIRST_ROWS = 5_000  # more than the default: nothing is paid for, so a lost slice costs little


def fetch(run: Run, config: FetchConfig, retry: tuple[str, ...] = ()) -> None:
    """Fetch every URL that no earlier run fetched, and reject the pairs without an image.

    Args:
        retry: failures to fetch again: reject reasons of the fetch stage, HTTP statuses (429) or classes (5xx).

    Raises:
        InputError: `retry` names an unknown failure, or `fetch.files` is missing.
    """
    lake, again = run.lake, failures(retry)
    config = with_files(config, lake)
    work = partial(fetch_batches, config=config, run_id=run.run_id, blocked=blocked_by(lake))
    with run.stage("fetch") as counts, ExitStack() as stack:
        if again:  # deleted rows are due again; a kill after this loses only the old reasons
            lake.spark.sql(f"DELETE FROM {lake.ref('images')} WHERE {again}")
        pairs = stack.enter_context(persisted(surviving(lake, before="fetch").select("pair_id", "url")))
        urls = pairs.select("url").distinct()
        due = urls.join(lake.live("images").select("url"), "url", "left_anti")
        counts.rows_in = urls.count()
        # All URLs of a host go to one task, so that its limits hold over the cluster.
        keyed = due.withColumn("slice_key", F.sha2("url", 256)).withColumn("host", F.expr(host_sql("url")))
        sliced = SlicedWork(
            "fetch", "images",
            lambda rows, _: rows.select("url").mapInArrow(work, IMAGES.schema()).withColumn("path", path_within(lake)),
            key="slice_key", spread_by=("host",), first_rows=_FIRST_ROWS,
        )  # fmt: skip
        counts.rows_out = commit_by_key_range(run, keyed, sliced)
        failed = lake.read("images").where("error IS NOT NULL").select("url", F.col("error").alias("reason"), "detail")
        counts.rows_rejected = settle_rejects(run, "fetch", pairs.join(failed, "url"))


def failures(kinds: tuple[str, ...]) -> str:
    """Return a SQL condition on `images` for these kinds of failure; an empty string if `kinds` is empty.

    Raises:
        InputError: a kind is unknown.
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
