"""Rows that several questions are asked of, computed once."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame


@contextmanager
def persisted(rows: DataFrame) -> Iterator[DataFrame]:
    """`rows`, kept by Spark while it lasts, in memory or on the executors' disks.

    Databricks serverless keeps nothing: there they are computed again for each question.
    """
    try:
        kept = rows.persist()
    except PySparkException:
        yield rows
        return
    try:
        yield kept
    finally:
        with suppress(Exception):  # a session that is gone keeps nothing, and its error is the one to tell
            kept.unpersist()
