"""Spark Connect, where there is no JVM beside the client: in a process of its own, as a session of the classic kind is
open in this one."""

import os
import subprocess
import sys
from collections.abc import Callable

from capsfusion_etl.dev_server import Behaviour

SCRIPT = """
import sys
from capsfusion_etl.engines import CaptionerConfig, FuserConfig
from capsfusion_etl.functions import register
from pyspark.sql import SparkSession

spark = SparkSession.builder.remote("local[2]").getOrCreate()
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
        [sys.executable, "-c", SCRIPT, base_url],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert "found|Lisbon bridge.|None|invented_name" in out.stdout, out.stderr[-3000:]
