"""Measure how the speed of a stage changes with its tuning settings, for docs/tuning.md.

The batch sizes are measured in turn within each round; numbers of executors and of requests one after the other.

PYTHONPATH=benchmarks python benchmarks/curves.py batches    # rows per Arrow batch: texts judged, JPEGs passed
PYTHONPATH=benchmarks python benchmarks/curves.py executors  # one and two executors of one core, texts judged
PYTHONPATH=benchmarks python benchmarks/curves.py requests   # requests in flight per task, server latency 100 ms
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyspark
from capsfusion_etl.engines import FuserConfig, Question
from capsfusion_etl.spark.session import get_session
from capsfusion_etl.stages.caption.worker import caption_batches
from capsfusion_etl.stages.fuse.worker import fuse_batches
from capsfusion_etl.tables import FUSED_CAPTIONS, SYNTHETIC_CAPTIONS
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).parent))
import jobs
import nocost
import saturation

BATCHES, REQUESTS = (16, 64, 256, 1000, 4000, 10000), (1, 4, 16, 64, 256)
ROWS, PICTURES = 40_000, 8_000


def curve(name: str, points: dict[str, Callable[[], object]], rows: int, rounds: int) -> None:
    """Print rows per second at each point: median and range."""
    for point, seconds in jobs.take_turns(points, rounds).items():
        rates = [rows / s for s in seconds]
        spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
        print(f"{name}, {point}: {statistics.median(rates):,.0f} rows/s {spread}", flush=True)


def nowhere(rows: DataFrame) -> None:
    rows.write.format("noop").mode("overwrite").save()


def judged(spark: SparkSession, folder: Path, tasks: int | None = None) -> DataFrame:
    """Return ROWS texts, fused by the no-cost fuser and judged, not yet computed."""
    run = jobs.new_run(spark, folder, "texts")
    jobs.fill(run, ROWS)
    rows = run.lake.read("pairs").select("pair_id", "raw_caption", F.lit("a bridge.").alias("caption"))
    job = partial(fuse_batches, config=jobs.FUSER, strategy="fused", params_hash="p", run_id="r", allowance=None)
    return (rows.repartition(tasks) if tasks else rows).mapInArrow(job, FUSED_CAPTIONS.schema())


def batches(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        texts = judged(spark, Path(folder))
        run = jobs.new_run(spark, Path(folder), "pictures")
        jobs.fill(run, PICTURES, image_kb=20)
        seen = run.lake.read("images").select(F.sha2("url", 256).alias("pair_id"), "image_id", "bytes")
        job = partial(caption_batches, config=jobs.CAPTIONER, run_id="r", allowance=None)
        images = seen.withColumn("given", F.lit("")).mapInArrow(job, SYNTHETIC_CAPTIONS.schema())
        for name, rows, count in (("texts", texts, ROWS), ("pictures", images, PICTURES)):
            curve(name, {f"batches of {n}": partial(at_size, spark, n, rows) for n in BATCHES}, count, rounds)
        spark.stop()


def at_size(spark: SparkSession, size: int, rows: DataFrame) -> None:
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", size)
    nowhere(rows.select("*"))  # a new plan picks up the new size


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
        texts = judged(spark, Path(folder), tasks=8)
        curve("executors", {f"{count} of one core": partial(nowhere, texts)}, ROWS, rounds)
        spark.stop()


def requests(rounds: int) -> None:
    with saturation.serving(latency_ms=100) as url:
        config = FuserConfig(name="openai", model="m", base_url=url, retries=0)
        for n in REQUESTS:
            count = 40 * n if n < 64 else 1500
            questions = [Question(f"{i:064x}", raw, seen) for i, (_, raw, seen) in enumerate(nocost.rows(count))]
            go = partial(saturation.ours, replace(config, concurrency=n), questions, None)
            curve("requests", {f"{n} in flight": go}, count, rounds)


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
