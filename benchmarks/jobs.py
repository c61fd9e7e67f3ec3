"""Measure the overhead of the jobs: rows/s of a stage with an engine that costs nothing, against a bare copy.

The bare copy is `mapInArrow` with the identity over the same rows of the same Delta table. It is compared with the
job's function in the same place ("work") and with the whole stage ("stage": due rows, slices, spend, rejects). All
sides write their output to a Delta table. The sides run in turn; medians, the ratio of each round and its spread are
printed.

    PYTHONPATH=benchmarks python benchmarks/jobs.py text --rows 200000      # the stages caption and fuse
    PYTHONPATH=benchmarks python benchmarks/jobs.py caption --rows 1000000  # the stage caption, engine copies
    PYTHONPATH=benchmarks python benchmarks/jobs.py images --rows 20000     # the stage caption over JPEGs of 20 kB
    PYTHONPATH=benchmarks python benchmarks/jobs.py memory                  # peak of a worker, 10,000 and 200,000 rows
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
from capsfusion_etl.budget.budget import BudgetConfig
from capsfusion_etl.engines import CaptionerConfig, FuserConfig, captioner_hash
from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.session import get_session
from capsfusion_etl.stages.caption.stage import caption, from_source
from capsfusion_etl.stages.caption.worker import caption_batches
from capsfusion_etl.stages.fuse.stage import fuse
from capsfusion_etl.stages.fuse.worker import fuse_batches
from capsfusion_etl.stages.ingest.stage import with_pair_id
from capsfusion_etl.tables import FUSED_CAPTIONS, SYNTHETIC_CAPTIONS
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).parent))
import nocost

CAPTIONER = CaptionerConfig(name="nocost:Caption")
COLUMN = CaptionerConfig(name="column")
FUSER = FuserConfig(name="nocost:Fuse", canaries=0.0, abstain=False)


def new_run(spark: SparkSession, folder: Path, name: str) -> Run:
    return Run(open_lake(spark, str(folder / name)))


def fill(run: Run, count: int, image_kb: int = 0) -> None:
    """Append `count` pairs with source captions, and images of `image_kb` kB, as the earlier stages would."""
    spark = run.lake.spark
    table = pa.Table.from_pylist(
        [dict(zip(("url", "raw_caption", "seen"), row, strict=True)) for row in nocost.rows(count)]
    )
    source = with_pair_id(spark.createDataFrame(table).repartition(8))
    pairs = source.select(
        "pair_id", "url", "raw_caption", F.lit("made").alias("source"), F.lit("1").alias("source_version"),
        F.current_timestamp().alias("ingested_at"), F.create_map(F.lit("synthetic_caption"), "seen").alias("extra"),
    )  # fmt: skip
    run.lake.append("pairs", pairs, app_id="fill", version=0)
    if image_kb:
        pictures = [nocost.jpeg(image_kb, seed) for seed in range(16)]

        def with_picture(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                data = pa.array([pictures[hash(u) % 16] + u.encode() for u in batch.column("url").to_pylist()])
                yield pa.RecordBatch.from_arrays([batch.column("url"), data], ["url", "bytes"])

        images = run.lake.read("pairs").select("url").mapInArrow(with_picture, "url string, bytes binary")
        images = images.withColumn("image_id", F.sha2("bytes", 256)).withColumn("run_id", F.lit("fill"))
        rest = [c for c in run.lake.read("images").columns if c not in images.columns]
        kinds = dict(run.lake.read("images").dtypes)
        images = images.select("*", *(F.lit(None).cast(kinds[c]).alias(c) for c in rest))
        run.lake.append("images", images, app_id="fill/images", version=0)


def bare_copy(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Copy the batches without the image bytes, which the job reads but does not return."""
    for batch in batches:
        yield batch.drop_columns(["bytes"]) if "bytes" in batch.schema.names else batch


def write(rows: DataFrame, folder: Path) -> None:
    rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(str(folder / "out"))


def take_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run the sides in turn; return the seconds of each side per round, without the warm-up round."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for n in range(rounds + 1):
        for side, go in sides.items():
            started = time.perf_counter()
            go()
            if n:  # the first round warms up
                seconds[side].append(time.perf_counter() - started)
    return seconds


def compare(name: str, count: int, bare: Callable[[], None], rounds: int, **ours: Callable[[], None]) -> None:
    """Run all sides in turn; print the rate of each side and its ratio to `bare`."""
    seconds = take_turns({"bare copy": bare, **ours}, rounds)
    for side, mine in seconds.items():
        ratios = sorted(b / m for b, m in zip(seconds["bare copy"], mine, strict=True))
        rate = count / statistics.median(mine)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {rounds} rounds)"
        print(f"{name}, {side}: {rate:,.0f} rows/s, ratio to the bare copy {spread}", flush=True)


def again(lake: Lake, table: str) -> Run:
    """Empty `table` and return a new run, for which all rows are due."""
    lake.spark.sql(f"DELETE FROM {lake.ref(table)}")
    return Run(lake)


def captions(run: Run, folder: Path, config: CaptionerConfig, count: int, rounds: int, name: str) -> None:
    """Compare the caption stage with a bare copy: its function over joined rows, then the whole stage."""
    lake = run.lake
    images = lake.read("images").select("url", "image_id", "bytes")
    rows = lake.read("pairs").join(images, "url", "left")
    rows = rows.select("pair_id", "image_id", "bytes", F.col("extra")["synthetic_caption"].alias("given"))
    job = partial(caption_batches, config=config, run_id="r", allowance=None)
    made = from_source(rows, config, "r") if config == COLUMN else rows.mapInArrow(job, SYNTHETIC_CAPTIONS.schema())
    compare(
        name,
        count,
        lambda: write(rows.mapInArrow(bare_copy, rows.drop("bytes").schema), folder),
        rounds,
        work=lambda: write(made, folder),
        stage=lambda: caption(again(lake, "synthetic_captions"), config, BudgetConfig()),
    )


def text(spark: SparkSession, folder: Path, count: int, rounds: int) -> None:
    run = new_run(spark, folder, "lake")
    fill(run, count)
    captions(run, folder, COLUMN, count, rounds, "caption")
    rows = run.lake.read("pairs").join(run.lake.read("synthetic_captions"), "pair_id")
    rows = rows.select("pair_id", "raw_caption", "caption")
    job = partial(fuse_batches, config=FUSER, strategy="fused", params_hash="p", run_id="r", allowance=None)
    params_hash = captioner_hash(COLUMN)
    compare(
        "fuse and judge",
        count,
        lambda: write(rows.mapInArrow(bare_copy, rows.schema), folder),
        rounds,
        work=lambda: write(rows.mapInArrow(job, FUSED_CAPTIONS.schema()), folder),
        stage=lambda: fuse(again(run.lake, "fused_captions"), FUSER, BudgetConfig(), captioner_params_hash=params_hash),
    )


def copies(spark: SparkSession, folder: Path, count: int, rounds: int) -> None:
    run = new_run(spark, folder, "lake")
    fill(run, count)
    captions(run, folder, COLUMN, count, rounds, "caption")


def images(spark: SparkSession, folder: Path, count: int, rounds: int) -> None:
    run = new_run(spark, folder, "lake")
    fill(run, count, image_kb=20)
    captions(run, folder, CAPTIONER, count, rounds, "caption over images")


def peak_of_a_worker(count: int) -> None:
    """Fuse `count` rows in Arrow batches, as Spark passes them; print the peak memory of this process."""

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, count, 256):
            rows = [(f"{start + i:064x}", raw, seen) for i, (_, raw, seen) in enumerate(nocost.rows(256, seed=start))]
            columns = zip(("pair_id", "raw_caption", "synthetic_caption"), zip(*rows, strict=True), strict=True)
            yield pa.RecordBatch.from_pydict({name: list(values) for name, values in columns})

    done = sum(len(b) for b in fuse_batches(batches(), FUSER, "fused", "p", "r", None))
    print(f"{done:,} rows: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB peak", flush=True)


def memory() -> None:
    for count in (10_000, 200_000):
        subprocess.run([sys.executable, __file__, "worker", "--rows", str(count)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("text", "caption", "images", "memory", "worker"))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.what == "memory":
        memory()
    elif options.what == "worker":
        peak_of_a_worker(options.rows)
    else:
        stages(options)


def stages(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spark = get_session(Path(folder) / "spark.log")
        sides = {"text": text, "caption": copies, "images": images}
        sides[options.what](spark, Path(folder), options.rows, options.rounds)
        spark.stop()


if __name__ == "__main__":
    main()
