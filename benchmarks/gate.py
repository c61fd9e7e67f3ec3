"""Time the quality gate over a million captions against hand-written aggregations over the same columns.

`hand` is one aggregation over each of the three tables with a million rows; `facts` is the gate's measurement of the
same tables; `gate` is the whole gate, with references between tables, drift, Great Expectations and Data Docs. The
sides run in turn; medians and ratios are printed.

    PYTHONPATH=benchmarks python benchmarks/gate.py --rows 1000000 --rounds 3
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.spark.session import get_session
from capsfusion_etl.tables import FUSED_CAPTIONS, PAIRS, TRAINING_PAIRS
from capsfusion_quality.gate import gate
from capsfusion_quality.measure import measure
from capsfusion_quality.rules import ECHO, RESIDUE
from capsfusion_quality.thresholds import GateConfig, bounded
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

HAND = {
    "pairs": """count(*), count_if(pair_id IS NULL), count(*) - count(DISTINCT pair_id),
count_if(NOT pair_id RLIKE '^[0-9a-f]{64}$'), count_if(raw_caption IS NULL)""",
    "fused_captions": """count(*) - count(DISTINCT pair_id), count_if(verdict IS NULL), avg(int(verdict = 'accepted')),
avg(if(verdict = 'accepted', ledger.recall, NULL)),
count_if(verdict = 'accepted' AND size(ledger.invented_names) + size(ledger.invented_numbers) > 0)""",
    "training_pairs": f"""count(*), count(*) - count(DISTINCT pair_id), count_if(caption IS NULL),
min(length(caption)), max(length(caption)), avg(size(split(trim(caption), ' +'))),
count_if(NOT caption_from IN ('fused', 'raw', 'synthetic')), count_if(NOT split IN ('train', 'held_out')),
count_if(caption RLIKE r'{RESIDUE}'), count_if(caption RLIKE r'{ECHO}')""",
}


def frames(spark: SparkSession, run: Run, folder: Path, count: int) -> dict[str, DataFrame]:
    """Return the tables of a lake with `count` pairs, all of them published."""
    ids = spark.range(count).select(
        F.sha2(F.col("id").cast("string"), 256).alias("pair_id"),
        F.concat(F.lit("http://site"), F.col("id") % 997, F.lit(".example/"), F.col("id"), F.lit(".jpg")).alias("url"),
        F.concat(
            F.lit("A view of the old bridge number "), F.col("id"), F.lit(" over the river in the town of Ghent in "),
            1900 + F.col("id") % 120, F.lit(", "), F.repeat(F.lit("with boats "), (F.col("id") % 7).cast("int")),
        ).alias("caption"),
    )  # fmt: skip
    ids.write.format("delta").save(str(folder / "ids"))
    ids = spark.read.format("delta").load(str(folder / "ids"))
    grounding = F.expr(
        "named_struct('kept', array('Ghent'), 'lost', array(''), 'invented_numbers', cast(array() AS array<string>), "
        "'invented_names', cast(array() AS array<string>), 'recall', 0.9D)"
    )

    def table(like: str, columns: dict[str, str | Column]) -> DataFrame:
        kinds = dict(run.lake.read(like).dtypes)
        chosen = [columns.get(name, F.lit(None)) for name in kinds]
        values = [F.col(c) if isinstance(c, str) else c for c in chosen]
        made = ids.select(*(v.cast(kinds[n]).alias(n) for n, v in zip(kinds, values, strict=True)))
        made.write.format("delta").mode("overwrite").save(str(folder / like))
        return spark.read.format("delta").load(str(folder / like))

    here = {"pair_id": "pair_id", "caption": "caption", "caption_from": F.lit("fused")}
    return {
        **{name: run.lake.read(name) for name in ("images", "rejects", "synthetic_captions", "alarms")},
        "pairs": table(PAIRS.name, {"pair_id": "pair_id", "url": "url", "raw_caption": "caption"}),
        "fused_captions": table(FUSED_CAPTIONS.name, here | {"verdict": F.lit("accepted"), "ledger": grounding}),
        "training_pairs": table(TRAINING_PAIRS.name, here | {"split": F.lit("train")}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        spark = get_session(folder / "spark.log")
        run = Run(open_lake(spark, str(folder / "lake")))
        tables = frames(spark, run, folder, options.rows)
        for name in HAND:
            tables[name].createOrReplaceTempView(name)
        rules = bounded(GateConfig())
        mine = [rule for rule in rules if rule.suite in HAND]
        counter = iter(range(1000))
        sides: dict[str, Callable[[], object]] = {
            "hand": lambda: [spark.sql(f"SELECT {HAND[t]} FROM {t}").collect() for t in HAND],
            "facts": lambda: measure(tables, mine),
            "gate": lambda: gate(Run(run.lake), tables, f"round {next(counter)}", rules),
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for round_ in range(options.rounds + 1):
            for side, go in sides.items():
                started = time.perf_counter()
                go()
                if round_:  # the first round warms up
                    seconds[side].append(time.perf_counter() - started)
        for side, taken in seconds.items():
            ratios = sorted(t / h for t, h in zip(taken, seconds["hand"], strict=True))
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {options.rounds} rounds)"
            print(f"{side}: {statistics.median(taken):.1f} s, ratio to hand {spread}", flush=True)
        spark.stop()


if __name__ == "__main__":
    main()
