"""Test what a lake on this machine answers without Spark, and that Spark sees the same."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.run import Run, StageRecord, row_of
from capsfusion_etl.tables import REJECTS
from pyspark.sql import SparkSession


def no_spark() -> SparkSession:
    raise AssertionError("Spark was started")


def test_small_records_are_written_once_and_read_back_by_both(run: Run) -> None:
    now = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
    stages = [StageRecord("r1", name, now, now, rows_in=3, status="ok") for name in ("ingest", "fetch")]
    for _ in range(2):
        for stage in stages:
            run.lake.record("runs", [row_of(stage)], app_id=f"r1/{stage.stage}")
    alone = Lake(no_spark, run.lake.root)
    assert sorted(row["stage"] for row in alone.rows("runs")) == ["fetch", "ingest"]
    assert alone.rows("runs", "stage", prefix="in")[0]["started_at"] == now
    assert [r["rows_in"] for r in run.lake.read("runs").where("stage = 'fetch'").collect()] == [3]
    assert alone.version("runs") == 2


def test_rows_with_any_text_are_found(run: Run) -> None:
    odd = ["it's", 'say "so"', "a\\b", "红色", ""]
    frame = run.lake.spark.createDataFrame([(text, "filter", "too_long", None, "r1") for text in odd], REJECTS.schema())
    run.lake.append("rejects", frame, app_id="odd", version=0)
    alone = Lake(no_spark, run.lake.root)
    for text in odd:
        assert [row["pair_id"] for row in alone.rows("rejects", "pair_id", among=(text,))] == [text]
    assert alone.metrics("rejects")["numOutputRows"] == len(odd)
    assert len(alone.at({"rejects": 0}).rows("rejects")) == 0
    assert "detail" not in alone.rows("rejects", without=("detail",))[0]


def test_a_table_that_is_not_there_or_lacks_columns(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no table"):
        Lake(no_spark, str(tmp_path / "none")).rows("pairs")
    with pytest.raises(InputError, match="there is no table pairs"):
        Lake(no_spark, str(tmp_path / "none")).version("pairs")
    run.lake.spark.sql(f"ALTER TABLE {run.lake.ref('rejects')} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    run.lake.spark.sql(f"ALTER TABLE {run.lake.ref('rejects')} DROP COLUMN detail")
    with pytest.raises(InputError, match="rejects has no detail"):
        Lake(run.lake.spark, run.lake.root).rows("rejects")


def test_commands_that_look_up_little_need_no_java(run: Run, tmp_path: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "capsfusion_etl.cli", *words, "--lake", run.lake.root]
        environment = {"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path), "HOME": str(tmp_path)}
        return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)

    listed = command("snapshots", "list")
    assert (listed.returncode, listed.stdout.split()[0]) == (0, "name"), listed.stderr
    written = command("report")
    assert (written.returncode, Path(written.stdout.strip()).name) == (0, "report.html"), written.stderr
    for words in (
        ("explain", "0123"),
        ("snapshots", "show", "s0001"),
        ("takedown", "--dry-run", "--domain", "a.example"),
    ):
        missing = command(*words)
        assert missing.returncode == 2, missing.stderr
        assert "Java" not in missing.stderr
