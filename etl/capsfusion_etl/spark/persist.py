"""Cache a DataFrame in Spark while several queries use it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame


@contextmanager
def persisted(rows: DataFrame) -> Iterator[DataFrame]:
    """Cache `rows` within the `with` block, in memory or on the executors' disks.

    Where caching is not supported (Databricks serverless), `rows` is evaluated again for each query.
    """
    try:
        kept = rows.persist()
    except PySparkException:
        yield rows
        return
    try:
        yield kept
    finally:
        with suppress(Exception):  # if the session has ended, its error must not be hidden by this one
            kept.unpersist()
