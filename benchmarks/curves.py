"""How the speed of a stage changes with what can be tuned; for docs/tuning.md. The points of a curve take turns.

PYTHONPATH=benchmarks python benchmarks/curves.py batches    # rows of an Arrow batch: texts judged, JPEGs passed
PYTHONPATH=benchmarks python benchmarks/curves.py executors  # one and two executors of one core, texts judged
PYTHONPATH=benchmarks python benchmarks/curves.py requests   # in flight a task, a server that takes 100 ms
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyspark
from capsfusion_etl.caption import caption_batches
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.fuse import fuse_batches
from capsfusion_etl.session import get_session
from capsfusion_etl.tables import FUSED_CAPTIONS, SYNTHETIC_CAPTIONS
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).parent))
import jobs
import nocost
import saturation

BATCHES, REQUESTS = (16, 64, 256, 1000, 4000, 10000), (1, 4, 16, 64, 256)
ROWS, PICTURES = 40_000, 8_000


def curve(name: str, points: dict[str, Callable[[], None]], rows: int, rounds: int) -> None:
    """Rows a second at each point: median and range."""
    rates: dict[str, list[float]] = {point: [] for point in points}
    for n in range(rounds + 1):
        for point, go in points.items():
            started = time.perf_counter()
            go()
            if n:  # the first round warms up
                rates[point].append(rows / (time.perf_counter() - started))
    for point, mine in rates.items():
        print(
            f"{name}, {point}: {statistics.median(mine):,.0f} rows/s ({min(mine):,.0f} to {max(mine):,.0f})", flush=True
        )


def nowhere(rows: DataFrame) -> None:
    rows.write.format("noop").mode("overwrite").save()


def judged(rows: DataFrame) -> DataFrame:
    job = partial(fuse_batches, config=jobs.FUSER, strategy="fused", params_hash="p", run_id="r", grant=None)
    return rows.mapInArrow(job, FUSED_CAPTIONS.schema())


def batches(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        run = jobs.new_run(spark, Path(folder), "texts")
        jobs.fill(run, ROWS)
        texts = run.lake.read("pairs").select("pair_id", "raw_caption", F.lit("a bridge.").alias("caption"))
        run = jobs.new_run(spark, Path(folder), "pictures")
        jobs.fill(run, PICTURES, image_kb=20)
        seen = run.lake.read("images").select(F.sha2("url", 256).alias("pair_id"), "image_id", "bytes")
        job = partial(caption_batches, config=jobs.CAPTIONER, run_id="r", grant=None)
        pictures = seen.withColumn("given", F.lit("")).mapInArrow(job, SYNTHETIC_CAPTIONS.schema())
        for name, rows, count in (("texts", judged(texts), ROWS), ("pictures", pictures, PICTURES)):
            curve(name, {f"batches of {n}": partial(at_size, spark, n, rows) for n in BATCHES}, count, rounds)
        spark.stop()


def at_size(spark: SparkSession, size: int, rows: DataFrame) -> None:
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", size)
    nowhere(rows.select("*"))  # planned anew, with this size


def executors(rounds: int) -> None:
    home = str(Path(pyspark.__file__).parent)
    for count in (1, 2):
        environment = os.environ | {
            "MASTER": f"local-cluster[{count},1,1024]", "SPARK_HOME": home, "SPARK_LOCAL_IP": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).parent),
        }  # fmt: skip
        command = [sys.executable, __file__, "executor", "--rounds", str(rounds), "--of", str(count)]
        subprocess.run(command, check=True, env=environment)


def executor(rounds: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        run = jobs.new_run(spark, Path(folder), "texts")
        jobs.fill(run, ROWS)
        texts = run.lake.read("pairs").select("pair_id", "raw_caption", F.lit("a bridge.").alias("caption"))
        go = partial(nowhere, judged(texts.repartition(8)))
        curve("executors", {f"{count} of one core": go}, ROWS, rounds)
        spark.stop()


def requests(rounds: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "capsfusion"), "dev-server"]
    server = subprocess.Popen([*command, "--port", str(port), "--latency-ms", "100"])
    config = FuserConfig(name="openai", model="m", base_url=f"http://127.0.0.1:{port}/v1", retries=0)
    try:
        saturation.wait_for(config.base_url)
        for n in REQUESTS:
            count = 40 * n if n < 64 else 1500
            questions = [Question(f"{i:064x}", raw, seen) for i, (_, raw, seen) in enumerate(nocost.rows(count))]
            go = partial(saturation.ours, replace(config, concurrency=n), questions, None)
            curve("requests", {f"{n} in flight": go}, count, rounds)
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("batches", "executors", "executor", "requests"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "executor":
        executor(options.rounds, options.of)
    else:
        {"batches": batches, "executors": executors, "requests": requests}[options.what](options.rounds)


if __name__ == "__main__":
    main()
