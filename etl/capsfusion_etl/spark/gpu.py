"""One engine a GPU: a worker sees the GPU that Spark gave to its task, and no other, before torch or vLLM look for one.

Spark tells a task the address of a GPU (spark.task.resource.gpu.amount=1); a Python worker, which outlives its task,
keeps the one that its model sits on. So among workers that take over each other's tasks who is given which may be
another permutation than the addresses say, but no two are on one GPU.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame

from capsfusion_etl.errors import InputError

_VISIBLE = "CUDA_VISIBLE_DEVICES"
Job = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_own: list[str] = []  # the GPU of this process, once a task has run here


def map_on_gpu(rows: DataFrame, job: Job, schema: str, executor: dict[str, Any]) -> DataFrame:
    """`mapInArrow` with a GPU for each task, where Spark was told of GPUs.

    Args:
        executor: what executors of this stage have, if they are to be others than those of CPU stages: gpu, cores,
            memory, vendor and discoveryScript, as spark.executor.resource.gpu.* wants them. Needs dynamic allocation.

    Raises:
        InputError: Spark is older than 4, or `executor` has other keys.
    """
    held = partial(on_gpu, job=job)
    return rows.mapInArrow(held, schema, profile=_profile(executor)) if executor else rows.mapInArrow(held, schema)


def _profile(executor: dict[str, Any]) -> Any:
    import pyspark
    from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

    if unknown := sorted(set(executor) - {"gpu", "cores", "memory", "discoveryScript", "vendor"}):
        raise InputError(f"gpu_executor: there is no {', '.join(unknown)}; there are gpu, cores, memory, ...")
    if int(pyspark.__version__.partition(".")[0]) < 4:
        raise InputError("gpu_executor needs Spark 4: on 3.5 run this stage as a job of its own (docs/running.md)")
    has = ExecutorResourceRequests().resource(
        "gpu", int(executor.get("gpu", 1)), executor.get("discoveryScript", ""), executor.get("vendor", "")
    )
    if "cores" in executor:
        has = has.cores(int(executor["cores"]))
    if "memory" in executor:
        has = has.memory(str(executor["memory"]))
    wants = TaskResourceRequests().resource("gpu", 1)
    return ResourceProfileBuilder().require(has).require(wants).build


def on_gpu(batches: Iterator[pa.RecordBatch], job: Job) -> Iterator[pa.RecordBatch]:
    """mapInArrow: `job`, with a GPU for it alone if the task was given any.

    Raises:
        InputError: there are more workers with a model than GPUs.
    """
    given = _given()
    if not given:
        yield from job(batches)
        return
    from filelock import FileLock, Timeout
    from pyspark import SparkFiles

    if not _own:
        _own.append(given)
        os.environ[_VISIBLE] = given
    lock = FileLock(os.path.join(SparkFiles.getRootDirectory(), f"gpu-{_own[0].replace(',', '-')}.lock"))
    try:
        lock.acquire(timeout=10)  # who was killed may need a moment to go
    except Timeout:
        raise InputError(
            f"another worker uses the GPU {_own[0]} of this executor: start executors with one GPU each "
            "(spark.executor.resource.gpu.amount=1), or set spark.python.worker.reuse=false"
        ) from None
    with lock:
        yield from job(batches)


def _given() -> str:
    """Addresses of the task's GPUs, with commas; empty if it has none."""
    from pyspark import TaskContext

    task = TaskContext.get()
    found = task.resources().get("gpu") if task is not None else None
    return ",".join(found.addresses) if found is not None else ""
