"""Time ingest, plan, filter and exact deduplication over generated rows.

To compare two commits, run it in a checkout of each, in turn:

PYTHONPATH=benchmarks python benchmarks/stages.py --rows 200000
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.lake.location import prepare
from capsfusion_etl.lake.run import Run
from capsfusion_etl.operations.plan import stage_forecasts
from capsfusion_etl.pipeline import PipelineConfig
from capsfusion_etl.settings import Settings
from capsfusion_etl.spark.session import get_session
from capsfusion_etl.stages.dedup.stage import dedup
from capsfusion_etl.stages.filters.stage import filter_pairs
from capsfusion_etl.stages.ingest.stage import ingest
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parent))
import nocost


def seconds(spark: SparkSession, folder: Path, count: int) -> dict[str, float]:
    """Return the seconds that each stage takes in a new lake with `count` pairs."""
    source, lake = folder / f"{count}.jsonl", str(folder / f"lake-{count}")
    with source.open("w", encoding="utf-8") as file:
        for row in nocost.rows(count):
            file.write(json.dumps(dict(zip(("url", "raw_caption", "synthetic_caption"), row, strict=True))) + "\n")
    settings: Settings = {
        "source": {"pairs": str(source)}, "captioner": {"name": "column"}, "fetch": {"enabled": False},
        "dedup": {"near_captions": None, "near_images": None},
    }  # fmt: skip
    prepare(lake)
    plan, run = PipelineConfig.of(settings), Run(open_lake(spark, lake))
    stages: dict[str, Callable[[], object]] = {
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        seconds(spark, Path(folder), 50)  # warms up
        print(json.dumps(seconds(spark, Path(folder), rows)))
        spark.stop()


if __name__ == "__main__":
    main()
