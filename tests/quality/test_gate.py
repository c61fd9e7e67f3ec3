"""Test the quality gate on sound, broken and empty lakes, and with custom rules."""

from pathlib import Path

from capsfusion_etl.ids import pair_id
from capsfusion_etl.lake.run import Run
from capsfusion_etl.tables import FUSED_CAPTIONS, PAIRS, TABLES, TRAINING_PAIRS
from capsfusion_quality.gate import bind
from capsfusion_quality.thresholds import GateConfig
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

GOOD = "A 1998 postcard of the Old Harbour Bridge."
IDS = [pair_id(f"http://a.example/{i}", "x") for i in range(4)]


def frames(run: Run, *captions: str, verdict: str = "accepted") -> dict[str, DataFrame]:
    """A lake with four pairs, of which the first len(captions) are published."""
    spark = run.lake.spark

    def rows(name: str, values: list[dict[str, object]]) -> DataFrame:
        columns = [c for c, _, _ in TABLES[name].columns]
        return spark.createDataFrame([tuple(v.get(c) for c in columns) for v in values], TABLES[name].schema())

    nothing = ([], [], [], [], 1.0, [], [])  # kept, lost, invented numbers and names, recall, unsupported, embellished
    pairs = [{"pair_id": i, "raw_caption": "x", "url": f"http://a.example/{i}"} for i in IDS]
    fused = [
        {"pair_id": i, "verdict": verdict, "caption": c, "ledger": nothing} for i, c in zip(IDS, captions, strict=False)
    ]
    product = [{**f, "caption_from": "fused", "split": "train"} for f in fused]
    return {
        "pairs": rows(PAIRS.name, pairs),
        "images": run.lake.read("images"),
        "rejects": rows(
            "rejects",
            [
                {"pair_id": i, "stage": "ingest", "reason": "gone"}
                if i == IDS[-1]
                else {"pair_id": i, "stage": "filter", "reason": "language"}
                for i in IDS[len(captions) :]
            ],
        ),
        "synthetic_captions": run.lake.read("synthetic_captions"),
        "fused_captions": rows(FUSED_CAPTIONS.name, fused),
        "training_pairs": rows(TRAINING_PAIRS.name, product),
        "opinions": run.lake.read("opinions"),
        "alarms": run.lake.read("alarms"),
    }


def test_a_sound_lake_passes_and_leaves_results_and_docs(run: Run) -> None:
    result = bind(GateConfig())(run, frames(run, GOOD, GOOD), "a")
    assert (result.passed, result.failures) == (True, ())
    assert Path(result.report).is_file()
    rows = run.lake.read("quality_results").collect()
    assert len(rows) == result.expectations
    assert {r["table_name"] for r in rows} == {
        "pairs", "images", "rejects", "synthetic_captions", "fused_captions", "opinions", "training_pairs", "alarms",
        "references", "shape", "drift",
    }  # fmt: skip
    assert all(r["success"] for r in rows)


def test_a_kept_result_is_about_the_same_rows_only(run: Run) -> None:
    gate = bind(GateConfig())
    assert gate(run, frames(run, GOOD, GOOD), "a").passed
    count = run.lake.read("quality_results").count()
    assert gate(run, frames(run, GOOD, GOOD), "a").passed
    assert run.lake.read("quality_results").count() == count
    assert not gate(run, frames(run, GOOD, verdict="cut_off"), "b").passed


def test_each_fault_is_named_with_rows_that_show_it(run: Run) -> None:
    sound = frames(run, GOOD, "See https://a.example for Sentence 1", GOOD)
    broken = {
        **sound,
        "pairs": sound["pairs"].union(sound["pairs"].limit(1)),
        "rejects": sound["rejects"].where("false"),
        "fused_captions": sound["fused_captions"].withColumn("verdict", F.expr("if(pair_id > '8', null, verdict)")),
    }
    result = bind(GateConfig(rules={"fused_captions": {"accepted": {"min": 0.9}}}))(run, broken, "a")
    assert not result.passed
    words = "\n".join(result.failures)
    for fault in (
        "pairs: pair_id is unique (seen: 1)",
        "training_pairs: no URL, HTML or e-mail in captions (seen: 1 of 3 rows (33.33%); for example",
        "See https://a.example for Sentence 1",
        "training_pairs: no words of the prompt in captions",
        "fused_captions: verdict is there (seen: ",
        "references: every pair is published or has a row in rejects (seen: 1)",
    ):
        assert fault in words
    seen = {(r["table_name"], r["rule"]): r for r in run.lake.read("quality_results").collect()}
    residue = seen["training_pairs", "residue"]
    assert (residue["success"], residue["unexpected_rows"], round(residue["value"], 3)) == (False, 1, 0.333)
    docs = "".join(p.read_text() for p in Path(result.report).parent.rglob("validations/training_pairs/**/*.html"))
    assert "no URL, HTML or e-mail in captions" in docs
    assert "1 of 3 rows (33.33%)" in docs


def test_too_few_accepted_and_a_warning_that_does_not_block(run: Run) -> None:
    result = bind(GateConfig())(run, frames(run, GOOD, verdict="cut_off"), "a")
    assert [f.split(":")[0] for f in result.failures] == ["fused_captions"]
    assert "share of fused captions that passed: at least 0.5 (seen: 0)" in result.failures[0]
    lenient = GateConfig(rules={"fused_captions": {"accepted": {"severity": "warn"}}})
    result = bind(lenient)(run, frames(run, GOOD, verdict="cut_off"), "a")
    assert result.passed
    assert any("share of fused captions" in w for w in result.warnings)


def test_an_empty_lake_and_a_column_of_another_type(run: Run) -> None:
    empty = bind(GateConfig())(run, {**frames(run), "pairs": run.lake.read("pairs")}, "a")
    assert {f.split(" (")[0] for f in empty.failures} >= {
        f"{table}: there are rows: at least 1" for table in ("pairs", "training_pairs")
    }
    sound = frames(run, GOOD)
    changed = {**sound, "training_pairs": sound["training_pairs"].withColumn("caption", F.array("caption"))}
    wrong = "\n".join(bind(GateConfig())(run, changed, "b").failures)
    assert "columns and their types are as documented" in wrong
    assert "caption is array<string>, not string" in wrong
    assert "training_pairs: characters of the longest caption: at most 1000 (seen: [DATATYPE_MISMATCH" in wrong


def test_a_rule_of_ones_own_and_one_row(run: Run) -> None:
    rule = {"words": "no postcards", "broken": "caption LIKE '%postcard%'", "max_share": 0.5, "shows": "caption"}
    mine = {"training_pairs": {"no_postcards": rule}}
    [failure] = bind(GateConfig(rules=mine))(run, frames(run, GOOD), "a").failures
    assert failure.startswith("training_pairs: no postcards, but for 50 % of the rows (seen: 1 of 1 rows (100.00%)")


def test_what_others_write_meanwhile_is_not_looked_at(run: Run) -> None:
    lake = run.lake
    pinned = lake.pinned("alarms")
    lake.spark.sql(f"INSERT INTO {lake.ref('alarms')} (alarm, detail) VALUES ('canaries', 'x')")
    assert pinned.read("alarms").count() == 0
    assert lake.read("alarms").count() == 1
