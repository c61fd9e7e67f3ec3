"""Do the same work for many items: in a few processes on this machine, or in the tasks of a Spark cluster."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from capsfusion_etl.spark.interrupts import handled_by


def spread(work: Callable[[Any], str], items: Sequence[Any], spark: SparkSession | None) -> Iterator[str]:
    """Yield what `work` returns for each item, in any order.

    Args:
        work: a function at the top of a module, so that it can be pickled; idempotent, as Spark may repeat a task.
        items: what it is called with.
        spark: runs a task for each item; None: as many processes as this machine has cores do.

    Raises:
        Exception: what `work` raised; items that are not begun are given up.
    """
    if spark is not None:
        yield from _in_tasks(work, items, spark)
    elif len(items) < 2:
        yield from map(work, items)
    else:
        workers = min(len(items), len(os.sched_getaffinity(0)))
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
        try:
            with handled_by(signal.SIG_IGN, signal.SIGINT):  # they ignore a terminal's Ctrl-C, too: this one ends them
                asked = [pool.submit(work, item) for item in items]
            for done in as_completed(asked):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _in_tasks(work: Callable[[Any], str], items: Sequence[Any], spark: SparkSession) -> Iterator[str]:
    def batches(ids: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in ids:
            for item in map(items.__getitem__, batch.column("id").to_pylist()):
                yield pa.RecordBatch.from_pydict({"told": [work(item)]})

    rows = spark.range(0, len(items), 1, max(1, len(items))).mapInArrow(batches, "told string")
    for row in rows.collect():
        yield row["told"]


def _end_with_parent() -> None:
    """End this process when the one that started it is killed: nobody would read its results."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
