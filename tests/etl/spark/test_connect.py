"""Test Spark Connect, whose client has no JVM, in separate processes: this one has a classic session."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.snapshots.manifest import Manifest
from deltalake import DeltaTable

BUILDER = """
import sys
import pyspark
from delta import configure_spark_with_delta_pip
from pyspark.sql import SparkSession

# Before Spark 4 the server is a package of its own, which was not found for the newest of 3.5.
server = [] if pyspark.__version__ >= "4" else ["org.apache.spark:spark-connect_2.12:3.5.7"]
builder = configure_spark_with_delta_pip(SparkSession.builder.remote("local[2]"), server)
"""

FUNCTIONS = """
from capsfusion_etl.engines import CaptionerConfig, FuserConfig
from capsfusion_etl.operations.udfs import register

spark = builder.getOrCreate()
fuser = FuserConfig(name="openai", model="m", base_url=sys.argv[1], retries=0)
register(spark, CaptionerConfig(name="openai", model="m", base_url=sys.argv[1]), fuser)
row = spark.sql(
    "select capsfusion_fuse('Lisbon bridge', 'A bridge.').caption f, capsfusion_caption(X'00') c, "
    "capsfusion_grounding('Lisbon 1998', 'A bridge.', 'A bridge in Porto.').verdict g"
).collect()[0]
print("found", row["f"], row["c"], row["g"], sep="|")
"""


def test_functions_in_sql(start: Callable[..., tuple[str, Behaviour]]) -> None:
    base_url, _ = start()
    out = subprocess.run(
        [sys.executable, "-c", BUILDER + FUNCTIONS, base_url],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert "found|Lisbon bridge.|None|invented_name" in out.stdout, out.stderr[-3000:]


RUN = """
import itertools
import pyspark.sql.connect.dataframe as frames
from capsfusion_etl.cli.main import main
from pyspark.errors import PySparkException

asked, persist = itertools.count(), frames.DataFrame.persist


# Databricks serverless refuses, clusters do not.
def every_second(*arguments, **named):
    if next(asked) % 2:
        return persist(*arguments, **named)
    raise PySparkException("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute")


frames.DataFrame.persist = frames.DataFrame.cache = every_second
builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension").config(
    "spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"
).config("spark.databricks.delta.snapshotPartitions", "2").config("spark.sql.shuffle.partitions", "4").getOrCreate()
lake, pairs, base_url = sys.argv[1:]
sys.argv = [
    "capsfusion", "run", "--lake", lake, "--pairs", pairs, "--captioner", "column", "--fuser", "openai",
    "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m",
    "--set", "gate.rules.fused_captions.accepted.min=0",
]
main()
"""


def test_all_stages_and_the_gate_also_where_persist_is_refused(
    start: Callable[..., tuple[str, Behaviour]], pairs_file: Path, tmp_path: Path
) -> None:
    base_url, _ = start()
    lake = tmp_path / "lake"
    out = subprocess.run(
        [sys.executable, "-c", BUILDER + RUN, str(lake), str(pairs_file), base_url],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert out.returncode == 0, out.stderr[-3000:]
    manifest = Manifest.parse((lake / "_capsfusion/snapshots/s0001.json").read_text())
    assert manifest.gate.passed
    assert manifest.rows == sum(file.rows for file in manifest.files) >= 3
    assert (lake / "report.html").is_file()
    results = DeltaTable(lake / "quality_results").to_pyarrow_table(columns=["success", "severity"]).to_pylist()
    assert len(results) == manifest.gate.expectations
    assert all(row["success"] for row in results if row["severity"] == "fail")
