"""Test what analysts use: the queries of docs/sql.md, snapshots, and the report in a browser."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_etl.snapshots.manifest import GateResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Cli = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parent.parent.parent / "docs" / "sql.md"
HOSTILE = "</script><script>document.title='owned'</script> Lamp of Ghent"
PASSED = GateResult(True, 1, (), "report")


@pytest.fixture(scope="module")
def made(
    captioned_lake: Callable[..., Path], start: Any, tmp_path_factory: pytest.TempPathFactory, spark: "SparkSession"
) -> tuple[Path, Any]:
    """A lake with fused captions, some of them rejected, and the plan that produced it."""
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.lake.saved_settings import recall, remember
    from capsfusion_etl.pipeline import PipelineConfig
    from capsfusion_etl.stages.fuse.stage import fuse

    base_url, _ = start(faults={"cut": 0.2}, seed=1)
    raws = [f"Bridge number {i} in Lisbon, {1900 + i}" for i in range(40)] + [HOSTILE] * 2
    raws[5] = "IMG_0005.jpg"  # a filter rejects it
    pairs = tmp_path_factory.mktemp("analyst") / "pairs.jsonl"
    rows = (
        {"url": f"http://a{i % 3}.example/{i}.jpg", "raw_caption": r, "synthetic_caption": "A bridge."}
        for i, r in enumerate(raws)
    )
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lake = captioned_lake(pairs, language=None)
    fuser = {"name": "openai", "model": "m", "base_url": base_url, "retries": 0, "canaries": 0.0}
    settings = recall(str(lake)) | {"fuser": fuser | {"usd_per_million_in": 5.0}}
    remember(str(lake), settings)
    plan, run = PipelineConfig.of(settings), Run(open_lake(spark, str(lake)))
    fuse(run, plan.fuser, plan.budget, captioner_params_hash=plan.captioner_params_hash)
    return lake, plan


@pytest.fixture
def lake(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of that lake, for one test."""
    return Path(shutil.copytree(made[0], tmp_path / "lake"))


def test_every_query_of_the_page_has_an_answer(lake: Path, capsfusion: Cli, spark: "SparkSession") -> None:
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.views import create
    from capsfusion_etl.operations.embedded_sql import ask
    from capsfusion_etl.operations.udfs import register

    assert capsfusion("publish", "one", "--lake", lake)[0] == 0
    queries = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(queries) == 10
    create(open_lake(spark, str(lake)))
    register(spark)
    answers = [spark.sql(query).collect() for query in queries]
    assert all(answers)
    funnel = {(r["stage"], r["reason"]): r["pairs"] for r in answers[0]}
    assert funnel["publish", "fused"] + sum(n for (stage, _), n in funnel.items() if stage != "publish") == 42
    assert answers[9][0]["judgement"]["verdict"] == "invented_name"
    cost = spark.sql("select usd_per_1000_accepted c from v_spend where stage = 'fuse'").collect()[0]["c"]
    assert cost > 0
    for query in queries:
        whole = re.sub(r" LIMIT \d+$", "", query.strip())  # of rows that tie, the engines choose others
        columns, rows = ask(open_lake(spark, str(lake)), whole)
        by_spark = spark.sql(whole).collect()
        assert columns == list(by_spark[0].asDict())
        plain = [tuple(row.asDict(recursive=True).values()) for row in by_spark]
        assert sorted(map(repr, rows)) == sorted(map(repr, plain)), query


@pytest.mark.parametrize(
    "query",
    [
        "select strategy, count(*), round(sum(cost_usd), 4) from fused_captions group by 1",
        r"select url from pairs where url like '%a\_.jpg' or raw_caption like 'Bridge number 1%' order by url",
        "select max_by(a, b) as newest from (select null as a, 2 as b union all select 'x', 1)",
        "select p.raw_caption, fused, fused_verdict from v_captions join pairs p using (pair_id) order by 1",
    ],
)
def test_duckdb_and_spark_agree(lake: Path, capsfusion: Cli, query: str) -> None:
    by_spark, by_duckdb = (
        capsfusion("sql", query, "--lake", lake, "--format", "csv", "--engine", engine)
        for engine in ("spark", "duckdb")
    )
    assert by_spark[0] == 0, by_spark
    assert by_spark == by_duckdb


def test_duckdb_reads_a_lake_whose_path_is_strange(lake: Path, capsfusion: Cli, tmp_path: Path) -> None:
    strange = Path(shutil.copytree(lake, tmp_path / "my läke"))
    query = "select count(*) n from pairs"
    assert capsfusion("sql", query, "--lake", strange, "--format", "csv", "--engine", "duckdb")[:2] == (0, "n\n42\n")
    partition = Path(shutil.copytree(lake, tmp_path / "source=other" / "lake"))
    code, _, err = capsfusion("sql", query, "--lake", partition, "--format", "csv")
    assert code == 0
    assert "has a `=`" in err


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("select java_method('java.util.UUID', 'randomUUID') is null as x from pairs limit 1", "java_method"),
        ("select hash(pair_id) is null as x from pairs limit 1", "hash() may mean something else there"),
        ("select col from (select explode(ledger.kept) from fused_captions) limit 1", ""),
        ("describe pairs", "not a single SELECT"),
        ("select capsfusion_fuse('a', 'b').verdict is null as x", "capsfusion_fuse"),
    ],
)
def test_spark_answers_what_duckdb_cannot(lake: Path, capsfusion: Cli, query: str, why: str) -> None:
    code, out, err = capsfusion("sql", query, "--lake", lake, "--format", "csv")
    assert code == 0, err
    assert out
    [line] = err.splitlines()
    assert line.startswith("sql       by Spark, because DuckDB cannot run this query: ")
    assert why in line
    code, _, err = capsfusion("sql", query, "--lake", lake, "--engine", "duckdb")
    assert code == 2
    assert "use --engine spark" in err


def test_times_structs_and_bytes_look_the_same_by_both_engines(lake: Path, capsfusion: Cli) -> None:
    query = "select p.pair_id, p.ingested_at, p.extra, f.ledger, f.cost_usd, cast('ab' as binary) b, null n"
    query += " from pairs p join fused_captions f using (pair_id) order by pair_id limit 3"
    for output in ("json", "csv", "table"):
        by_spark, by_duckdb = (
            capsfusion("sql", query, "--lake", lake, "--format", output, "--engine", engine)
            for engine in ("spark", "duckdb")
        )
        assert by_spark == by_duckdb
        assert by_spark[0] == 0


def test_a_snapshot_that_is_held_outlives_every_vacuum(lake: Path, capsfusion: Cli, spark: "SparkSession") -> None:
    from deltalake import DeltaTable

    assert capsfusion("publish", "one", "--lake", lake)[0] == 0
    code, out, err = capsfusion("publish", "two", "--lake", lake, "--set", "publish.held_out=0.6")
    assert (code, out.strip()) == (0, "two"), err
    assert capsfusion("snapshots", "hold", "one", "--lake", lake)[0] == 0
    table = lake / "training_pairs"
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    spark.sql(f"VACUUM delta.`{table}` RETAIN 0 HOURS")
    spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert capsfusion("snapshots", "verify", "one", "--lake", lake)[0] == 0
    code, out, _ = capsfusion("snapshots", "diff", "one", "two", "--lake", lake)
    assert (code, out.split()[:6]) == (0, ["added", "0", "removed", "0", "changed", "0"])
    assert "held" in capsfusion("snapshots", "list", "--lake", lake)[1]
    assert capsfusion("snapshots", "release", "one", "--lake", lake)[0] == 0
    code, _, err = capsfusion("snapshots", "verify", "one", "--lake", lake)
    assert code == 2
    assert "snapshot one is broken: strategy=fused/" in err
    assert "is gone: was the table vacuumed?" in err
    files = json.loads(capsfusion("snapshots", "show", "one", "--lake", lake)[1])["files"]
    assert f"broken: {len(files)} files are gone" in capsfusion("snapshots", "list", "--lake", lake)[1]
    code, _, err = capsfusion("snapshots", "hold", "one", "--lake", lake)
    assert code == 2
    assert "cannot be held any more" in err
    assert json.loads(capsfusion("snapshots", "show", "two", "--lake", lake)[1])["gate"]["passed"]
    assert (
        "there is no snapshot three; there are: two, one"
        in capsfusion("snapshots", "verify", "three", "--lake", lake)[2]
    )


@pytest.mark.parametrize("name", ["..", ".", "../..", "bob's", "a/b"])
def test_no_name_of_a_snapshot_reaches_a_file_or_sql(lake: Path, capsfusion: Cli, name: str) -> None:
    before = sorted(path for path in lake.rglob("*") if "_capsfusion" not in path.parts)
    commands = [("publish", name), ("pin", "--snapshot", f"{lake}@{name}")]
    commands += [("snapshots", verb, name) for verb in ("hold", "release", "show", "verify")]
    for command in commands:
        code, _, err = capsfusion(*command, *([] if command[0] == "pin" else ["--lake", lake]))
        assert code == 2, (command, err)
        assert "cannot be the name of a snapshot" in err
    assert sorted(path for path in lake.rglob("*") if "_capsfusion" not in path.parts) == before


def test_a_lake_with_a_backtick_in_its_path(spark: "SparkSession", tmp_path: Path) -> None:
    from capsfusion_etl.lake.create import open_lake

    assert open_lake(spark, str(tmp_path / "it`s")).read("pairs").count() == 0


def test_of_two_publishers_one_wins_and_the_other_says_so(
    made: tuple[Path, Any], lake: Path, spark: "SparkSession"
) -> None:
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.run import Run
    from capsfusion_etl.snapshots.catalog import find
    from capsfusion_etl.stages.publish import publish

    config, ended = replace(made[1].publish, name="both"), []

    def go(held_out: float) -> None:
        run = Run(open_lake(spark, str(lake)))
        try:
            ended.append(publish(run, made[1].params_hash, replace(config, held_out=held_out), PASSED).name)
        except Exception as error:  # noqa: BLE001  what it is is what we look at
            ended.append(explain(error))

    threads = [threading.Thread(target=go, args=(share,)) for share in (0.1, 0.9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended.count("both") == 1, ended
    assert isinstance(next(e for e in ended if e != "both"), RetryError | InputError), ended
    assert find(Run(open_lake(spark, str(lake))), "both").verify() == []


def test_the_report_in_a_browser(lake: Path, capsfusion: Cli, tmp_path: Path) -> None:
    code, _, _ = capsfusion("validate", "--lake", lake)
    assert code == 0
    trained = lake / "_capsfusion" / "checkpoints"
    for name, metrics, loss in ("here", '{"step": 1, "loss": 3.25}\n', 2.5), ("elsewhere", "", None):
        (trained / name).mkdir(parents=True)
        (trained / name / "metrics.jsonl").write_text(metrics)
        (trained / name / "evaluation.json").write_text(json.dumps({"pairs": 2, "loss": loss, "untrained_loss": 5.0}))
    code, out, err = capsfusion("report", "--lake", lake)
    assert code == 0, err
    page = Path(out.strip())
    text = page.read_text()
    assert len(text) < 5_000_000
    assert "<script>document.title" not in text
    assert text.count("<script") == 1  # the report's own script
    assert "The quality gate passed" in text
    assert "1 steps, loss 3.250" in text
    assert "Another machine made its steps." in text
    assert text.count("Held-out pictures:") == 1
    assert '<mark class="kept" title="kept">Lisbon</mark>' in text
    browser = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)
    if browser is None:
        pytest.skip("no Chromium is installed: the page was not opened")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,2400"]

    def look(anchor: str, *more: str) -> str:
        command = [browser, *flags, f"--user-data-dir={tmp_path}/profile", *more, f"{page.as_uri()}{anchor}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    everything = look("", "--dump-dom")
    assert "<title>Captions of" in everything
    cards = everything.count("<article")
    assert f"{cards} of {cards} shown" in everything
    found = look("#words=Ghent", "--dump-dom")
    assert re.search(rf">[12] of {cards} shown<", found)
    refused = look("#verdict=cut_off", "--dump-dom")
    assert refused.count('data-verdict="cut_off"') == int(re.search(r">(\d+) of \d+ shown<", refused).group(1))  # type: ignore[union-attr]
    look("", f"--screenshot={tmp_path}/report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000
