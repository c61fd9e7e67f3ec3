r"""Measure recall, precision and time of near-duplicate detection on generated captions, 10 % of them planted.

Captions have 8 to 20 words from a vocabulary of 20,000. A planted caption is a copy of another one with a word replaced
or left out, or with different case and punctuation. Recall is the share of copies in the same cluster as their
original. Precision is the share of edges whose two captions come from the same original. Each size runs in a separate
process on a new lake.

    python benchmarks/dedup.py --sizes 100000,1000000
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, rows: int) -> None:
    """Write `rows` pairs as JSONL; a tenth are copies, with URLs that name their original."""
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(3, 9))) for _ in range(20_000)]
    originals = [" ".join(chance.choices(words, k=chance.randint(8, 20))) for _ in range(rows * 9 // 10)]
    with path.open("w") as out:
        for i, text in enumerate(originals):
            out.write(json.dumps({"url": f"http://a.example/{i}-o", "raw_caption": text}) + "\n")
        for i in range(rows - len(originals)):
            source = chance.randrange(len(originals))
            told = originals[source].split()
            kind, at = chance.randrange(3), chance.randrange(len(told))
            if kind == 0:
                told[at] = chance.choice(words)
            elif kind == 1:
                del told[at]
            text = " ".join(told) if kind < 2 else f"{' '.join(told).title()}!"
            out.write(json.dumps({"url": f"http://a.example/{source}-c{i}", "raw_caption": text}) + "\n")


def one(rows: int) -> None:
    """Ingest and deduplicate `rows` pairs; print time, recall and precision as JSON."""
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.spark.session import get_session
    from capsfusion_etl.stages.dedup.sketches import DedupConfig
    from capsfusion_etl.stages.dedup.stage import dedup
    from capsfusion_etl.stages.ingest.config import SourceConfig
    from capsfusion_etl.stages.ingest.stage import ingest
    from pyspark.sql import functions as F

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "pairs.jsonl"), rows)
        spark = get_session(Path(folder, "spark.log"))
        run = Run(open_lake(spark, f"{folder}/lake"))
        ingest(run, SourceConfig(pairs=f"{folder}/pairs.jsonl"))
        started = time.perf_counter()
        dedup(run, DedupConfig(near_images=None, near_captions=0.7))
        seconds = time.perf_counter() - started
        origin = run.lake.read("pairs").select(
            "pair_id", F.regexp_extract("url", r"/(\d+)-", 1).alias("origin"), F.col("url").contains("-c").alias("copy")
        )
        clusters = origin.join(run.lake.read("near_clusters"), "pair_id", "left")
        originals = clusters.where("NOT copy").select("origin", F.col("cluster").alias("of_original"))
        copies = clusters.where("copy").join(originals, "origin")
        recall = copies.agg(F.avg((F.col("cluster") == F.col("of_original")).cast("int"))).collect()[0][0]
        edges = run.lake.read("near_edges")
        for side in ("a", "b"):
            edges = edges.join(origin.select(F.col("pair_id").alias(side), F.col("origin").alias(f"from_{side}")), side)
        same_origin = (F.col("from_a") == F.col("from_b")).cast("int")
        precision, count = edges.agg(F.avg(same_origin), F.count("*")).collect()[0]
        told = {"rows": rows, "seconds": round(seconds, 1), "recall": recall, "precision": precision, "edges": count}
        print("RESULT", json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--size", type=int)
    given = parser.parse_args()
    if given.size:
        one(given.size)
        return
    for size in given.sizes.split(","):
        subprocess.run([sys.executable, __file__, "--size", size], check=True)


if __name__ == "__main__":
    main()
