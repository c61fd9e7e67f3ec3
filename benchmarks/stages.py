"""Time ingest, plan, filter and exact deduplication over generated rows, and a bare Spark job beside ingest.

The bare job reads the same file, computes the same pair_ids, drops duplicates and writes Parquet.

To compare two commits, run it in a checkout of each, in turn:

PYTHONPATH=benchmarks python benchmarks/stages.py --rows 200000 --format jsonl
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.lake.location import prepare
from capsfusion_etl.lake.run import Run
from capsfusion_etl.operations.plan import stage_forecasts
from capsfusion_etl.pipeline import PipelineConfig
from capsfusion_etl.settings import Settings
from capsfusion_etl.spark.session import get_session
from capsfusion_etl.stages.dedup.stage import dedup
from capsfusion_etl.stages.filters.stage import filter_pairs
from capsfusion_etl.stages.ingest.config import SourceConfig
from capsfusion_etl.stages.ingest.sources import read
from capsfusion_etl.stages.ingest.stage import ingest, with_pair_id
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parent))
import nocost

COLUMNS = ("url", "raw_caption", "synthetic_caption")


def write(source: Path, count: int) -> None:
    """Write `count` generated pairs as Parquet or JSON lines, by the suffix of `source`."""
    if source.suffix == ".parquet":
        columns = dict(zip(COLUMNS, map(list, zip(*nocost.rows(count), strict=True)), strict=True))
        pq.write_table(pa.table(columns), source, row_group_size=100_000)
        return
    with source.open("w", encoding="utf-8") as file:
        for row in nocost.rows(count):
            file.write(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n")


def seconds(spark: SparkSession, folder: Path, count: int, kind: str) -> dict[str, float]:
    """Return the seconds that each stage takes in a new lake with `count` pairs."""
    source, lake = folder / f"{count}.{kind}", str(folder / f"lake-{count}")
    write(source, count)
    settings: Settings = {
        "source": {"pairs": str(source)}, "captioner": {"name": "column"}, "fetch": {"enabled": False},
        "dedup": {"near_captions": None, "near_images": None},
    }  # fmt: skip
    prepare(lake)
    plan, run = PipelineConfig.of(settings), Run(open_lake(spark, lake))
    stages: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(spark, plan.source, folder / f"bare-{count}"),
        "ingest": lambda: ingest(run, plan.source),
        "plan": lambda: list(stage_forecasts(run, plan)),
        "filter": lambda: filter_pairs(run, plan.filters),
        "dedup": lambda: dedup(run, plan.dedup),
    }
    took = {}
    for name, go in stages.items():
        started = time.perf_counter()
        go()
        took[name] = round(time.perf_counter() - started, 1)
    return took


def bare(spark: SparkSession, source: SourceConfig, out: Path) -> None:
    rows = with_pair_id(read(spark, source).rows)
    rows.dropDuplicates(["pair_id"]).write.parquet(str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        seconds(spark, Path(folder), 5_000, options.format)  # warms up
        print(json.dumps(seconds(spark, Path(folder), options.rows, options.format)))
        spark.stop()


if __name__ == "__main__":
    main()
