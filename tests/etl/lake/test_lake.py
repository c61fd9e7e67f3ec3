"""Test the tables of a lake: creation, idempotent writes, layout version, slices and lakes in a catalog."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.create import open_lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.lake.slices import SlicedWork, _bound, commit_by_key_range
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.tables import LEDGER, REJECTS, SYNTHETIC_CAPTIONS, TABLES, VERSION
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

COMPARE = ("pair_id", "reason", "detail")


def rejects(spark: SparkSession, *ids: str) -> DataFrame:
    return spark.createDataFrame([(i, "filter", "too_long", "x", "run") for i in ids], REJECTS.schema())


def test_all_tables_are_made_with_their_columns_and_comments(run: Run) -> None:
    for table in TABLES.values():
        assert run.lake.read(table.name).columns == [c for c, _, _ in table.columns]
    described = {r["col_name"]: r["comment"] for r in run.lake.spark.sql(f"DESCRIBE {run.lake.ref('pairs')}").collect()}
    assert described["raw_caption"] == "alt-text, untouched"


def test_settle_writes_only_what_differs(run: Run) -> None:
    spark, lake = run.lake.spark, run.lake

    def settle(*ids: str) -> bool:
        return lake.settle("rejects", rejects(spark, *ids), column="stage", value="filter", compare=COMPARE)

    assert settle("a", "b")
    version = lake.version("rejects")
    assert not settle("b", "a")
    assert lake.version("rejects") == version
    assert settle("b")
    assert [r["pair_id"] for r in lake.read("rejects").collect()] == ["b"]


def test_an_append_happens_once(run: Run) -> None:
    for _ in range(2):
        run.lake.append("rejects", rejects(run.lake.spark, "a"), app_id="app", version=0)
    assert run.lake.read("rejects").count() == 1


def test_insert_new_keeps_what_is_there(run: Run) -> None:
    run.lake.insert_new("rejects", rejects(run.lake.spark, "a"))
    run.lake.insert_new("rejects", rejects(run.lake.spark, "a", "b"))
    version = run.lake.version("rejects")
    run.lake.insert_new("rejects", rejects(run.lake.spark, "b"))
    assert run.lake.read("rejects").count() == 2
    assert run.lake.version("rejects") == version


def test_a_lake_of_the_layout_before_is_brought_up_to_date(run: Run) -> None:
    lake, spark = run.lake, run.lake.spark
    old = TABLES["fused_captions"].ddl().replace(", unsupported: array<string>, embellished: array<string>", "")
    shutil.rmtree(lake.location("fused_captions"))
    spark.sql(f"CREATE TABLE {lake.ref('fused_captions')} ({old}) USING DELTA")
    columns = ", ".join(f"{name} {kind}" for name, kind, _ in TABLES["images"].columns if name != "redirects")
    shutil.rmtree(lake.location("images"))
    spark.sql(f"CREATE TABLE {lake.ref('images')} ({columns}) USING DELTA")
    spark.sql(f"ALTER TABLE {lake.ref('pairs')} SET TBLPROPERTIES ('capsfusion.tables' = '6')")
    for _ in range(2):
        opened = open_lake(spark, lake.root)
        ledger = opened.read("fused_captions").schema["ledger"].dataType.simpleString()
        assert ledger == LEDGER.replace(" ", "")
        assert "redirects" in opened.read("images").columns
    assert opened.properties("pairs")["capsfusion.tables"] == VERSION


def test_another_version_of_the_lake_is_refused(run: Run) -> None:
    run.lake.spark.sql(f"ALTER TABLE {run.lake.ref('pairs')} SET TBLPROPERTIES ('capsfusion.tables' = '0')")
    with pytest.raises(InputError, match=f"have layout 0, this version writes {VERSION}"):
        open_lake(run.lake.spark, run.lake.root)


def test_a_lake_that_is_not_there(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no lake at"):
        open_lake(spark, str(tmp_path / "none"), create=False)


def test_bounds_cover_every_key() -> None:
    assert _bound(0.0) <= "0" * 64
    assert _bound(0.5) == "8" + "0" * 11
    assert _bound(1.0) > "f" * 64


def test_a_stop_between_slices_loses_one_slice_and_doubles_none(run: Run) -> None:
    lake, spark = run.lake, run.lake.spark
    rows = spark.range(0, 200).select(F.sha2(F.col("id").cast("string"), 256).alias("pair_id"))
    done = 0

    def due() -> DataFrame:
        return rows.join(lake.read("synthetic_captions").select("pair_id"), "pair_id", "left_anti")

    def work(part: DataFrame, _: object) -> DataFrame:
        nonlocal done
        if done == 1:
            raise InterruptedError
        done += 1
        missing = [F.lit(None).cast(kind).alias(name) for name, kind, _ in SYNTHETIC_CAPTIONS.columns[1:]]
        return part.select("pair_id", *missing)

    def commit() -> int:
        return commit_by_key_range(run, due(), SlicedWork("caption", "synthetic_captions", work))

    with pytest.raises(InterruptedError):
        commit()
    settled = lake.read("synthetic_captions").count()
    assert 0 < settled < 200
    run.run_id, done = "second", 3
    assert commit() == 200 - settled
    written = lake.read("synthetic_captions")
    assert (written.count(), written.select("pair_id").distinct().count()) == (200, 200)


def test_a_lake_in_a_catalog_explains_itself_and_goes_all_the_way(
    spark: SparkSession,
    capsfusion: Callable[..., tuple[int, str, str]],
    start: Callable[..., tuple[str, object]],
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPSFUSION_WORK", str(tmp_path / "volume"))
    spark.sql(f"CREATE SCHEMA browsed LOCATION '{tmp_path}/warehouse'")
    lake, base_url = "spark_catalog.browsed", start()[0]
    try:
        code, _, err = capsfusion(
            "run", "--lake", lake, "--pairs", pairs_file, "--captioner", "column", "--fuser", "openai",
            "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m", "--set", "fuser.canaries=0.0",
            "--set", "gate.rules.fused_captions.accepted.min=0",
        )  # fmt: skip
        assert code == 0, err
        work = tmp_path / "volume" / lake
        manifest = Manifest.parse((work / "snapshots" / "s0001.json").read_text())
        assert manifest.verify() == []
        assert (work / "report.html").is_file()
        names = {row["tableName"] for row in spark.sql("SHOW TABLES IN browsed").collect()}
        assert set(TABLES) <= names
        for table in TABLES.values():
            told = {row["col_name"]: row for row in spark.sql(f"DESCRIBE EXTENDED browsed.{table.name}").collect()}
            assert told["Comment"]["data_type"] == table.comment
            assert all(told[name]["comment"] == comment for name, _, comment in table.columns)
        code, out, _ = capsfusion("sql", "--lake", lake, "--format", "csv", "select count(*) as n from fused_captions")
        assert (code, out) == (0, "n\n5\n")
    finally:
        spark.sql("DROP SCHEMA browsed CASCADE")
