"""One engine for each GPU: a Python worker sees only the GPU that Spark assigned to its first task.

Spark tells each task the address of a GPU (spark.task.resource.gpu.amount=1). The worker sets CUDA_VISIBLE_DEVICES to
it before torch or vLLM initialise CUDA. A worker outlives its task and keeps the GPU on which its model is loaded, so
later tasks may be assigned another address than their worker uses; a file lock ensures that no two workers use the same
GPU at a time.
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
    """`mapInArrow` with one GPU for each task, if Spark is configured with GPUs.

    Args:
        rows: the input.
        job: the function for `mapInArrow`.
        schema: schema of the output.
        executor: resources of separate executors for this stage: gpu, cores, memory, vendor and discoveryScript, as for
            spark.executor.resource.gpu.*. They need dynamic allocation. If empty, the stage uses the same executors as
            CPU stages.

    Raises:
        InputError: `executor` is not empty and Spark is older than 4, or `executor` has unknown keys.
    """
    held = partial(on_gpu, job=job)
    return rows.mapInArrow(held, schema, profile=_profile(executor)) if executor else rows.mapInArrow(held, schema)


def _profile(executor: dict[str, Any]) -> Any:
    import pyspark
    from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

    if unknown := sorted(set(executor) - {"gpu", "cores", "memory", "discoveryScript", "vendor"}):
        raise InputError(
            f"gpu_executor: there is no {', '.join(unknown)}; there are gpu, cores, memory, discoveryScript, vendor"
        )
    if int(pyspark.__version__.partition(".")[0]) < 4:
        raise InputError("gpu_executor needs Spark 4: on Spark 3.5 run this stage as a separate job (docs/running.md)")
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
    """Run `job` within mapInArrow; if Spark assigned a GPU to the task, with exclusive use of the worker's GPU.

    Raises:
        InputError: another worker of this executor uses the GPU.
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
        lock.acquire(timeout=10)  # a killed worker may need a moment to end
    except Timeout:
        raise InputError(
            f"another worker uses the GPU {_own[0]} of this executor: start executors with one GPU each "
            "(spark.executor.resource.gpu.amount=1), or set spark.python.worker.reuse=false"
        ) from None
    with lock:
        yield from job(batches)


def _given() -> str:
    """Return the addresses of the task's GPUs, separated by commas; empty if it has none."""
    from pyspark import TaskContext

    task = TaskContext.get()
    found = task.resources().get("gpu") if task is not None else None
    return ",".join(found.addresses) if found is not None else ""
