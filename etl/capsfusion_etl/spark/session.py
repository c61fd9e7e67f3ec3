"""The Spark session: the one of the cluster if it exists, else a small local one with Delta.

A local JVM writes its log to a file, so that the terminal shows only the messages of this project.
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
from capsfusion_etl.spark import jars, s3a
from capsfusion_etl.spark.interrupts import handled_by, stop

_LOCAL: dict[str, bool | float | int | str | None] = {
    # With Delta's default of 50 partitions for its log, every small query takes seconds.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",  # tasks of a VACUUM; default 10,000
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
}
# Environment variables which show that the session is provided by a Connect server, by spark-submit or by Databricks.
_GIVEN = ("SPARK_REMOTE", "PYSPARK_GATEWAY_PORT", "DATABRICKS_RUNTIME_VERSION")


def get_session(log: Path | None = None, lake: str = "") -> SparkSession:
    """Return the active or provided Spark session (spark-submit, notebook, Spark Connect), or start a local one.

    Args:
        log: log file of a local JVM; by default a file in the temporary folder.
        lake: root of the lake; a lake on S3 needs additional jars.

    Raises:
        MissingDependencyError: Java 17 or 21 is not installed, or the local JVM did not start (the message names its
            log).
    """
    # PySpark logs every failed query; this project reports the error itself, in one line.
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
    if not on_a_cluster():
        # After two minutes without heartbeats, as of a laptop that slept, Spark takes the only executor for lost, and
        # exits in the middle of a later query.
        builder = builder.config("spark.network.timeout", "7d")
    more: list[str] = []
    if lake.startswith(("s3://", "s3a://")):
        more, settings = s3a.for_session()
        builder = builder.config(map=dict(settings))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    log = log or Path(tempfile.gettempdir()) / f"capsfusion-spark-{os.getuid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _stderr_to(log), _deferred(signal.SIGTERM, signal.SIGINT):
            found = jars.recall(more)
            if found:
                builder = builder.config("spark.jars", ",".join(found))
            else:
                builder = configure_spark_with_delta_pip(builder, more)
            spark: SparkSession = builder.getOrCreate()
    except Exception as error:
        raise MissingDependencyError(
            f"Spark did not start ({type(error).__name__}). See its log {log}; the first start needs Maven Central"
        ) from error
    if not found:
        jars.remember(more, spark)
    spark.sparkContext.setLogLevel("ERROR")
    if threading.current_thread() is threading.main_thread():
        # PySpark's handler calls the JVM during another call to the JVM, and prints both stack traces.
        signal.signal(signal.SIGINT, stop)
    return spark


def on_a_cluster() -> bool:
    """Return whether the workers may be on other machines: the session is provided, or its master is not `local`."""
    return _is_given() or not _master().startswith("local[")


def _is_given() -> bool:
    return any(name in os.environ for name in _GIVEN)


def _master() -> str:
    # Up to four attempts per task, as on a cluster: local[*] fails when the first worker runs out of memory.
    return os.environ.get("MASTER", "local[*,4]")


@contextmanager
def _deferred(*kinds: signal.Signals) -> Iterator[None]:
    """Deliver signals after the block: one during the start of a JVM would leave it running without its driver."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)
        if came.count(signal.SIGINT) > 1:  # somebody is in a hurry, and the jars may take minutes
            raise KeyboardInterrupt

    try:
        with handled_by(note, *kinds):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Redirect stderr to `log` within the `with` block; a JVM started there keeps `log` as its stderr."""
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
    """Check that Java 17 or 21 is installed, which Spark 4 needs.

    Raises:
        MissingDependencyError: it is not; the message has a command that installs it.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    how = "install it with `sudo apt-get install openjdk-17-jre-headless` (Debian) or `brew install openjdk@17` (macOS)"
    try:
        out = subprocess.run([java or "java", "-version"], capture_output=True, text=True, check=False)
    except OSError:
        raise MissingDependencyError(f"Spark needs Java 17 or 21, but Java was not found: {how}") from None
    found = re.search(r'version "(\d+)', out.stderr)
    version = int(found.group(1)) if found else 0
    if version not in (17, 21):
        what = f"Java {version}" if version else "no working Java (see `java -version`)"
        raise MissingDependencyError(f"Spark needs Java 17 or 21, but found {what}: {how}")
