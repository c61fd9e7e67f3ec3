"""Test the command line from end to end: exit status, output, tables and locking."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyspark
import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.lake.location import prepare
from capsfusion_etl.lake.lock import one_writer
from capsfusion_etl.lake.run import Run
from capsfusion_etl.operations.udfs import register
from deltalake import DeltaTable
from pyarrow.parquet import ParquetFile
from pyspark.sql import SparkSession

Cli = Callable[..., tuple[int, str, str]]
TABLES = ("pairs", "rejects", "synthetic_captions", "fused_captions", "training_pairs", "snapshots")


def ids(lake: Path, table: str) -> list[str]:
    return sorted(DeltaTable(lake / table).to_pandas()["pair_id"])


def test_the_main_job_over_captions_that_the_source_brings(
    capsfusion: Cli, start: Callable[..., tuple[str, Behaviour]], tmp_path: Path, pairs_file: Path
) -> None:
    lake = tmp_path / "lake"
    base_url, served = start(faults={"cut": 0.3})
    server = (
        "--set",
        "fuser.model=m",
        "--set",
        f"fuser.base_url={base_url}",
        "--set",
        "fuser.retries=0",
        "--set",
        "fuser.canaries=0.0",
    )
    job = ("run", "--lake", lake, "--pairs", pairs_file, "--captioner", "column", "--fuser", "openai", *server)
    lenient = ("--set", "gate.rules.fused_captions.accepted.min=0.0", "--set", "publish.row_group=2")
    status, _, err = capsfusion(*job, *lenient)
    assert status == 0, err
    assert sum(served.asked.values()) == 5
    assert "fetch     skipped: captioner column needs no pictures" in err
    assert "train     skipped: this lake has no pictures to train on" in err

    rejects = DeltaTable(lake / "rejects").to_pandas()
    assert dict(rejects[["reason", "stage"]].to_numpy()) == {"empty_caption": "filter", "file_name": "filter"}
    assert sorted(ids(lake, "fused_captions") + list(rejects["pair_id"])) == ids(lake, "pairs")
    assert ids(lake, "training_pairs") == ids(lake, "fused_captions")
    fused = DeltaTable(lake / "fused_captions").to_pandas()
    assert set(fused["verdict"]) <= {"accepted", "cut_off"}
    assert set(fused.loc[fused["verdict"] == "accepted", "caption_from"]) <= {"fused"}
    assert set(fused.loc[fused["verdict"] != "accepted", "caption_from"]) <= {"synthetic"}
    assert (lake / "report.html").read_text().count("<dt>raw</dt>") == 5
    manifest = json.loads((lake / "_capsfusion/snapshots/s0001.json").read_text())
    assert (manifest["rows"], manifest["gate"]["passed"]) == (5, True)
    assert sum(file["rows"] for file in manifest["files"]) == 5
    for file in manifest["files"]:
        assert f"split={file['split']}/" in file["path"]
        groups = ParquetFile(lake / "training_pairs" / file["path"]).num_row_groups
        if pyspark.__version__ >= "4.1":  # older versions bundle a Parquet that limits row groups by bytes only
            assert groups == -(-file["rows"] // 2)

    before = {t: DeltaTable(lake / t).version() for t in TABLES}
    status, _, err = capsfusion("run", "--lake", lake)
    assert status == 0, err
    assert "nothing has changed since the last run: snapshot s0001 is up to date" in err
    assert {t: DeltaTable(lake / t).version() for t in TABLES} == before
    (lake / "_capsfusion" / "complete.json").unlink()  # so that every stage looks again
    status, _, err = capsfusion("run", "--lake", lake)
    assert status == 0, err
    assert "(snapshot s0001 is up to date)" in err
    assert {t: DeltaTable(lake / t).version() for t in TABLES} == before
    assert sum(served.asked.values()) == 5

    status, out, _ = capsfusion("sql", "--lake", lake, "--format", "csv", "select count(*) as n from fused_captions")
    assert (status, out) == (0, "n\n5\n")
    status, out, _ = capsfusion("sql", "--lake", lake, "select raw_caption from pairs where raw_caption like 'Anna%'")
    assert "Anna Keller reads at the Oslo Book Fair" in out


def test_grounding_in_sql(spark: SparkSession) -> None:
    register(spark)
    [row] = spark.sql(
        "select capsfusion_grounding('Bridge Lisbon 1998', 'a bridge', 'A bridge in Porto, 1998.') as g, "
        "capsfusion_grounding(null, null, null).verdict as nothing"
    ).collect()
    assert (row["g"]["verdict"], row["g"]["kept"], row["g"]["lost"], row["g"]["recall"]) == (
        "invented_name",
        ["1998"],
        ["lisbon"],
        0.5,
    )
    assert row["nothing"] == "empty"


def test_a_refused_gate_publishes_nothing_and_says_why(
    capsfusion: Cli, start: Callable[..., tuple[str, Behaviour]], tmp_path: Path, pairs_file: Path
) -> None:
    lake = tmp_path / "lake"
    server = ("--set", "fuser.model=m", "--set", f"fuser.base_url={start()[0]}")
    job = (
        "run",
        "--lake",
        lake,
        "--pairs",
        pairs_file,
        "--captioner",
        "column",
        "--limit",
        2,
        "--fuser",
        "openai",
        *server,
    )
    status, _, err = capsfusion(*job, "--set", "gate.rules.training_pairs.rows.min=100")
    assert status == 1
    assert "capsfusion: not published: training_pairs: there are rows: at least 100 (seen: 2)" in err
    assert len(DeltaTable(lake / "snapshots").to_pandas()) == 0
    assert len(DeltaTable(lake / "training_pairs").to_pandas()) == 0
    assert (lake / "report.html").is_file()
    status, out, err = capsfusion("publish", "mine", "--lake", lake, "--set", "gate.rules.training_pairs.rows.min=1")
    assert (status, out) == (0, "mine\n"), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "--pairs", "none.parquet"], "no such file or folder: none.parquet"),
        (["ingest"], "no pairs given"),
        (["ingest", "--pairs", "{pairs}", "--column", "raw_caption=TEXT"], "has no column 'TEXT'"),
        (["ingest", "--pairs", "{pairs}", "--column", "TEXT"], "--column wants ours=theirs"),
        (["run", "--pairs", "{pairs}", "--captioner", "blip"], "captioner.name: there is no engine 'blip'"),
        (["run", "--pairs", "{pairs}", "--set", "fuser.max_tokens=3"], "fuser.max_tokens: unknown key"),
        (["run", "--pairs", "{pairs}", "--set", "trainer.recipe=big"], "there is no recipe 'big'"),
        (["run", "--pairs", "{pairs}", "--config", "none.yaml"], "cannot read the config none.yaml"),
        (["sql", "select 1"], "there is no lake at"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    capsfusion: Cli, tmp_path: Path, pairs_file: Path, arguments: list[str], message: str
) -> None:
    arguments = [a.format(pairs=pairs_file) for a in arguments]
    status, out, err = capsfusion(*arguments, "--lake", tmp_path / "lake")
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert "at org.apache" not in err


def test_who_only_reads_waits_for_nobody(capsfusion: Cli, run: Run) -> None:
    status, out, _ = capsfusion("sql", "--lake", run.lake.root, "--format", "csv", "select count(*) as n from pairs")
    assert (status, out.split()) == (0, ["n", "0"])
    assert not (run.lake.folder / "run.lock").exists()


def test_wrong_sql_is_one_line(capsfusion: Cli, tmp_path: Path, pairs_file: Path) -> None:
    lake = tmp_path / "lake"
    assert capsfusion("ingest", "--lake", lake, "--pairs", pairs_file)[0] == 0
    status, _, err = capsfusion("sql", "--lake", lake, "select nothing from pairs")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "nothing" in err


def test_a_refused_key_stops_the_job_in_one_line(
    capsfusion: Cli, start: Callable[..., tuple[str, Behaviour]], tmp_path: Path, pairs_file: Path
) -> None:
    lake = tmp_path / "lake"
    assert capsfusion("ingest", "--lake", lake, "--pairs", pairs_file, "--set", "captioner.name=column")[0] == 0
    assert capsfusion("caption", "--lake", lake)[0] == 0
    server = ("--set", "fuser.model=m", "--set", f"fuser.base_url={start(api_key='right')[0]}")
    status, _, err = capsfusion("fuse", "--lake", lake, "--fuser", "openai", *server)
    assert status == 2
    assert (
        "refuses the API key (Incorrect API key provided): set OPENAI_API_KEY or fuser.api_key_file"
        in err.splitlines()[-1]
    )
    assert len(DeltaTable(lake / "fused_captions").to_pandas()) == 0


def test_two_commands_that_write_to_one_lake_take_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hold = "import sys, filelock; l = filelock.FileLock(sys.argv[1]); l.acquire(); print('held', flush=1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(prepare(str(tmp_path)) / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=one_writer, args=(str(tmp_path),))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        other.kill()  # the operating system releases the lock
        waiting.join(30)
        assert not waiting.is_alive()
    assert "another run works on this lake: waiting for it to end" in capsys.readouterr().err
    one_writer(str(tmp_path))  # returns at once: this process holds the lock
