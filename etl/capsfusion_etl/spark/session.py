"""The Spark session: the cluster's own if there is one, else a small local one with Delta.

A local JVM writes its log to a file, so that people see this project's messages only.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession

from capsfusion_etl.errors import MissingDependencyError
from capsfusion_etl.spark import s3a

_LOCAL: dict[str, bool | float | int | str | None] = {
    # Delta's default of 50 partitions for its own log makes every small query cost seconds.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",  # VACUUM makes so many tasks: 10,000 by default
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
}
# What says that the session is another's: a Connect server's, spark-submit's, Databricks'.
_GIVEN = ("SPARK_REMOTE", "PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION")


def get_session(log: Path | None = None, lake: str = "") -> SparkSession:
    """Spark with Delta. On a cluster (spark-submit, a notebook, Spark Connect) that is the session which is there.

    Args:
        log: where a local JVM logs; by default a file in the temporary folder.
        lake: which lake it is for: one on S3 needs more jars.

    Raises:
        MissingDependencyError: no Java 17 or 21, or the local JVM did not start (the message names its log).
    """
    # PySpark logs every refused query by itself; people get one line of ours.
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if _is_given():
        return SparkSession.builder.getOrCreate()
    check_java()
    from delta import configure_spark_with_delta_pip

    builder = (
        SparkSession.builder.master(_master())
        .appName("capsfusion")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.warehouse.dir", str(Path(tempfile.gettempdir()) / "capsfusion-warehouse"))
        .config(map=_LOCAL)
    )
    more: list[str] = []
    if lake.startswith(("s3://", "s3a://")):
        more, settings = s3a.for_session()
        builder = builder.config(map=dict(settings))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    log = log or Path(tempfile.gettempdir()) / f"capsfusion-spark-{os.getuid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _stderr_to(log):
            spark: SparkSession = configure_spark_with_delta_pip(builder, more).getOrCreate()
    except Exception as error:
        raise MissingDependencyError(
            f"Spark did not start ({type(error).__name__}). Its log is {log}; the first start needs Maven Central"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    if threading.current_thread() is threading.main_thread():
        # PySpark's own handler calls the JVM in the middle of a call to the JVM, and prints both traces.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return spark


def on_a_cluster() -> bool:
    """Do others than this process start the workers?"""
    return _is_given() or not _master().startswith("local[")


def _is_given() -> bool:
    return any(name in os.environ for name in _GIVEN)


def _master() -> str:
    # Four attempts for a task, as on a cluster: plain local[*] fails with the first worker that runs out of memory.
    return os.environ.get("MASTER", "local[*,4]")


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """While it lasts, children of this process inherit `log` as their stderr: so does the JVM, for its whole life."""
    sys.stderr.flush()
    saved = os.dup(2)
    with log.open("ab") as target:
        os.dup2(target.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def check_java() -> None:
    """Spark 4 runs on Java 17 and 21.

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    how = "install it with `sudo apt-get install openjdk-17-jre-headless` (Debian) or `brew install openjdk@17` (macOS)"
    try:
        out = subprocess.run([java or "java", "-version"], capture_output=True, text=True, check=False)
    except OSError:
        raise MissingDependencyError(f"Spark needs Java 17 or 21, and there is none: {how}") from None
    found = re.search(r'version "(\d+)', out.stderr)
    version = int(found.group(1)) if found else 0
    if version not in (17, 21):
        what = f"Java {version}" if version else "no working Java (see `java -version`)"
        raise MissingDependencyError(f"Spark needs Java 17 or 21, and there is {what}: {how}")
