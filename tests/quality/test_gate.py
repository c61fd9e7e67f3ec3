from pathlib import Path

from capsfusion_etl.ids import pair_id
from capsfusion_etl.runlog import Run
from capsfusion_etl.tables import FUSED_CAPTIONS, PAIRS, TABLES, TRAINING_PAIRS
from capsfusion_quality.gate import bind
from capsfusion_quality.suites import GateConfig
from pyspark.sql import DataFrame

GOOD = "A 1998 postcard of the Old Harbour Bridge."
IDS = [pair_id(f"http://a.example/{i}", "x") for i in range(4)]


def frames(run: Run, *captions: str, verdict: str = "accepted") -> dict[str, DataFrame]:
    """A lake with four pairs, of which the first len(captions) are published."""
    spark = run.lake.spark

    def rows(name: str, values: list[dict[str, object]]) -> DataFrame:
        columns = [c for c, _, _ in TABLES[name].columns]
        return spark.createDataFrame([tuple(v.get(c) for c in columns) for v in values], TABLES[name].schema())

    pairs = [{"pair_id": i, "raw_caption": "x"} for i in IDS]
    fused = [{"pair_id": i, "verdict": verdict, "caption": c} for i, c in zip(IDS, captions, strict=False)]
    product = [{**f, "caption_from": "fused"} for f in fused]
    return {
        "pairs": rows(PAIRS.name, pairs),
        "images": run.lake.read("images"),
        "rejects": rows(
            "rejects", [{"pair_id": i, "stage": "filter", "reason": "language"} for i in IDS[len(captions) :]]
        ),
        "fused_captions": rows(FUSED_CAPTIONS.name, fused),
        "training_pairs": rows(TRAINING_PAIRS.name, product),
        "alarms": run.lake.read("alarms"),
    }


def test_a_sound_lake_passes_and_leaves_results_and_docs(run: Run) -> None:
    result = bind(GateConfig())(run, frames(run, GOOD, GOOD), "a")
    assert (result.passed, result.failures) == (True, ())
    assert Path(result.report).is_file()
    rows = run.lake.read("quality_results").collect()
    assert len(rows) == result.expectations
    assert {r["table_name"] for r in rows} >= {"pairs", "rejects", "fused_captions", "training_pairs", "lost_pairs"}


def test_a_kept_result_is_about_the_same_rows_only(run: Run) -> None:
    gate = bind(GateConfig())
    assert gate(run, frames(run, GOOD, GOOD), "a").passed
    count = run.lake.read("quality_results").count()
    assert gate(run, frames(run, GOOD, GOOD), "a").passed
    assert run.lake.read("quality_results").count() == count
    assert not gate(run, frames(run, GOOD, verdict="cut_off"), "b").passed


def test_each_fault_is_named(run: Run) -> None:
    sound = frames(run, GOOD, "See https://a.example for Sentence 1")
    broken = {
        **sound,
        "pairs": sound["pairs"].union(sound["pairs"].limit(1)),
        "rejects": sound["rejects"].limit(1),
    }
    result = bind(GateConfig(min_accepted=0.9))(run, broken, "a")
    assert not result.passed
    words = "\n".join(result.failures)
    for fault in (
        "pairs: pair_id is unique",
        "training_pairs: no URL, HTML or e-mail in captions",
        "training_pairs: no words of the prompt in captions",
        "lost_pairs: every pair is published or has a row in rejects (seen: 1)",
    ):
        assert fault in words
    assert "accepted" not in words


def test_too_few_accepted(run: Run) -> None:
    result = bind(GateConfig())(run, frames(run, GOOD, verdict="cut_off"), "a")
    assert [f.split(" (")[0] for f in result.failures] == ["fused_captions: at least 50% accepted"]
