"""Shares of rows that are chosen by hash, so that every run and machine chooses the same ones."""

from pyspark.sql import Column
from pyspark.sql import functions as F


def position(text: Column) -> Column:
    """Return a number in [0, 1) for each text, uniformly distributed: the first 32 bits of its sha256."""
    return F.conv(F.substring(F.sha2(text, 256), 1, 8), 16, 10) / F.lit(16**8)
