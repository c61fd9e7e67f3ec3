"""Test fusion strategies, abstention, shifted answers, alarms and the SQL functions of the engines."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.engines import Answer, CaptionerConfig, FuserConfig, Picture, Question
from capsfusion_etl.errors import InputError
from capsfusion_etl.judge import judge
from capsfusion_etl.judge.abstain import abstain
from capsfusion_etl.settings import section
from capsfusion_etl.stages.caption.stage import from_source
from capsfusion_etl.stages.caption.worker import caption_all
from capsfusion_etl.stages.fuse.attempts import SHIFTED, Settled, settle
from capsfusion_etl.stages.fuse.worker import mark_shifted
from capsfusion_etl.strategies import source_of
from pyspark.errors import PySparkException

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Start = Callable[..., tuple[str, Behaviour]]
Cli = Callable[..., tuple[int, str, str]]
PLACES = ["Lisbon", "Ghent", "Oslo", "Zurich", "Kew", "Porto", "Turin", "Bergen", "Leiden", "Graz"]


def settled(raw: str, fused: str) -> Settled:
    question = Question("a" * 64, raw, "A bridge.")
    return Settled(question, judge(raw, "A bridge.", fused), Answer(fused), 1)


def test_answers_of_other_rows_are_found() -> None:
    well = [settled(f"Old Bridge, {p}", f"The old Bridge in {p}.") for p in PLACES]
    assert mark_shifted(well) == well
    moved = [settled(f"Old tower, {p}", f"The old tower in {q}.") for p, q in pairwise(PLACES)]
    assert {s.judgement.verdict for s in mark_shifted(moved)} == {SHIFTED, "invented_name"}
    assert [s.judgement.verdict for s in mark_shifted(moved)].count(SHIFTED) == 8  # no row asked about the last place


def test_a_stray_answer_or_two_are_the_judges_business() -> None:
    part = [settled(f"Old tower, {p}", f"The old tower in {p}.") for p in PLACES]
    part[0] = settled("Old tower, Lisbon", "The old tower in Ghent.")
    assert mark_shifted(part) == part


@pytest.mark.parametrize(
    "raw", ["Click to enlarge image", "IMG 2041", "product photo 3 - full size", "DSC_0042", "404"]
)
def test_a_caption_about_no_picture_is_not_fused(raw: str) -> None:
    assert abstain(raw, "A bridge over water.")


@pytest.mark.parametrize("raw", ["Lisbon", "Gallery in Porto", "a dog", "橋", "Bridge photo"])
def test_a_caption_about_something_is(raw: str) -> None:
    assert abstain(raw, "A bridge over water.") is None


def test_an_image_of_an_icon_may_say_icon() -> None:
    assert abstain("Home icon", "An icon of a house.") is None


def test_who_abstains_is_not_asked_and_none_is_lost() -> None:
    asked: list[str] = []

    class Echo:
        model, revision = "echo", "1"

        def fuse(self, questions: Sequence[Question]) -> list[Answer]:
            asked.extend(q.raw_caption for q in questions)
            return [Answer(f"{q.raw_caption} is seen.") for q in questions]

    texts = ["Click to enlarge", "Lisbon", "IMG 1"]
    out = list(settle(Echo(), [Question(f"{i:064x}", t, "A bridge.") for i, t in enumerate(texts)], FuserConfig()))
    assert asked == ["Lisbon"]
    assert sorted(s.judgement.verdict for s in out)[0] == "abstained"
    assert sorted(s.question.raw_caption for s in out) == sorted(texts)


def test_mixed_goes_by_the_pair() -> None:
    ids = [f"{i * 2654435761 % 2**32:064x}" for i in range(2000)]
    share = sum(source_of("mixed", i, 0.3) == "raw" for i in ids) / len(ids)
    assert 0.25 < share < 0.35
    assert source_of("raw", ids[0], 0.0) == "raw"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategies": ["fusion"]}, "there is no strategy 'fusion'"),
        ({"strategies": []}, "at least one"),
        ({"strategies": ["raw", "raw"]}, "none twice"),
        ({"fallback": "none"}, "fallback must be one of"),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        section({"fuser": values}, "fuser", FuserConfig)


def test_strategies_side_by_side_and_published_one_by_one(
    start: Start, capsfusion: Cli, spark: "SparkSession", pairs_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lake, (base_url, behaviour) = tmp_path / "lake", start()
    settings = [
        "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m", "--set", "fuser.retries=0", "--set",
        "fuser.strategies=[fused, language-rewrite, raw]", "--set", "fuser.usd_per_million_in=5.0",
    ]  # fmt: skip
    code, out, _ = capsfusion("ingest", "--lake", lake, "--pairs", pairs_file)
    code, out, err = capsfusion("plan", "--lake", lake, "--captioner", "column", "--fuser", "openai", *settings)
    assert code == 0, err
    lines = {line[:24].strip(): line for line in out.splitlines()}
    assert "2 more rejected" in lines["filter"]
    assert lines["caption"].split()[1] == "5"
    assert lines["fuse fused"].split()[2] == "5"
    assert "tokens, $0.01 to $0.0" in lines["fuse fused"]
    assert behaviour.asked == {}
    run = ("run", "--lake", lake, "--pairs", pairs_file, "--captioner", "column", "--fuser", "openai", *settings)
    code, _, err = capsfusion(*run)
    assert code == 0, err
    assert "forecast" in err
    assert behaviour.asked == {"answered": 2 * (5 + 8)}  # two strategies call the engine, also for 8 canary rows
    counts = "strategy, count(*), count(distinct pair_id), sum(attempts)"
    rows = spark.sql(f"select {counts} from delta.`{lake}/fused_captions` group by 1").collect()
    assert {tuple(r) for r in rows} == {
        ("fused", 5, 5, 5), ("language-rewrite", 5, 5, 5), ("raw", 5, 5, 0),
    }  # fmt: skip

    def refused(*_: object) -> None:  # as on Databricks serverless
        raise PySparkException("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute")

    with monkeypatch.context() as patch:
        patch.setattr(type(spark.range(1)), "persist", refused)
        code, out, _ = capsfusion("plan", "--lake", lake)
    assert code == 0
    assert [line.split()[-3 if "fuse" in line else 1] for line in out.splitlines() if line.startswith("caption")] == [
        "0"
    ]
    assert all(line[24:35].strip() == "0" for line in out.splitlines()[1:])
    code, out, err = capsfusion("publish", "as-raw", "--lake", lake, "--set", "publish.strategy=raw")
    assert code == 0, err
    both = spark.sql(f"select strategy, caption, caption_from from delta.`{lake}/training_pairs`").collect()
    assert {r["strategy"] for r in both} == {"fused", "raw"}
    from capsfusion_etl.snapshots.manifest import Manifest

    manifest = Manifest.parse((lake / "_capsfusion/snapshots/as-raw.json").read_text())
    assert manifest.rows == 5
    assert all("strategy=raw" in file.path for file in manifest.files)


def test_a_server_that_answers_everyone_alike_is_not_published(
    start: Start, capsfusion: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    base_url, behaviour = start()
    behaviour.says = "A picture."
    source = tmp_path / "p.jsonl"
    rows = [
        {"url": f"http://a.example/{i}.jpg", "raw_caption": f"house {i} of the town", "synthetic_caption": "x"}
        for i in range(30)
    ]
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    lake = tmp_path / "lake"
    code, _, err = capsfusion(
        "run", "--lake", lake, "--pairs", source, "--captioner", "column", "--fuser", "openai", "--set",
        f"fuser.base_url={base_url}", "--set", "fuser.model=m", "--set", "filters.language=null", "--set",
        "fuser.canaries=0.0",
    )  # fmt: skip
    assert code == 1, err
    assert "alarm: one_caption_many_images" in err
    assert "no other alarm is raised" in err


def test_functions_in_sql(start: Start, capsfusion: Cli, run: object, spark: "SparkSession") -> None:
    from capsfusion_etl.engines import CaptionerConfig
    from capsfusion_etl.operations.udfs import register

    base_url, _ = start()
    fuser = FuserConfig(name="openai", model="m", base_url=base_url, retries=0)
    register(spark, CaptionerConfig(name="openai", model="m", base_url=base_url), fuser)
    rows = spark.sql(
        "select raw, capsfusion_fuse(raw, 'A bridge.') f "
        "from values ('Lisbon bridge'), ('Click to enlarge'), (null) t(raw)"
    ).collect()
    assert {r["raw"]: (r["f"]["caption"], r["f"]["verdict"]) for r in rows} == {
        "Lisbon bridge": ("Lisbon bridge.", "accepted"),
        "Click to enlarge": ("A bridge.", "abstained"),
        None: ("A bridge.", "abstained"),
    }
    assert spark.sql("select capsfusion_caption(X'00') c").collect()[0]["c"] is None
    found = spark.sql("select capsfusion_grounding('Lisbon 1998', 'A bridge.', 'A bridge in Porto.') g").collect()[0][
        "g"
    ]
    assert found["verdict"] == "invented_name"


def test_a_source_s_captions_are_copied_by_sql_as_by_the_engine(spark: "SparkSession") -> None:
    config = CaptionerConfig(name="column")
    given = ["A cat.", "  A dog.\n", "\u00a0\u3000A bird.\x1f\t", " ", "", None, "It's 'a'  b", "\x85é\u2028"]
    rows = spark.createDataFrame(
        [(str(i), "x", text) for i, text in enumerate(given)], "pair_id string, image_id string, given string"
    )
    made = {row["pair_id"]: row for row in from_source(rows, config, "run").collect()}
    answers = caption_all(config, [Picture(str(i), None, text) for i, text in enumerate(given)])
    assert [made[str(i)]["caption"] for i in range(len(given))] == [answer.text for answer in answers]
    assert {(row["engine"], row["error"], row["cost_usd"]) for row in made.values()} == {("column", None, 0.0)}
    assert rows.count() == len(made)
