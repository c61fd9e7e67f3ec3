"""Test SQL over a lake: the queries of docs/sql.md, and that DuckDB and Spark answer alike."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Cli = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parent.parent.parent / "docs" / "sql.md"


def test_every_query_of_the_page_has_an_answer(lake: Path, capsfusion: Cli, spark: "SparkSession") -> None:
    from capsfusion_etl.lake.create import open_lake
    from capsfusion_etl.lake.views import create
    from capsfusion_etl.operations.udfs import register
    from capsfusion_etl.queries.embedded_sql import ask

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
