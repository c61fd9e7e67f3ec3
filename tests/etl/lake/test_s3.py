"""Test a lake on S3: Spark through s3a, all else through delta-rs, pyarrow and s3fs, on a server backed by a folder."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capsfusion_etl.dev_server import Behaviour
from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.create import check_commits
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.lease import Lease
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.storage import as_path
from capsfusion_trainer.data.pin import keep, told
from capsfusion_trainer.data.snapshot import Split
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from s3_server import SECRET
from searching import holding

LAKE = "s3a://bucket/captions"

# Runs several commands in one process, so that Spark starts only once.
COMMANDS = """
import json, sys
from capsfusion_etl.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["capsfusion", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""


def test_a_lake_on_s3_is_made_published_held_cleared_and_read_without_spark(
    s3: Path, start: Callable[..., tuple[str, Behaviour]], pairs_file: Path, tmp_path: Path
) -> None:
    base_url, served = start()
    source = as_path("s3a://bucket/source")
    (source / "pairs.jsonl").write_bytes(pairs_file.read_bytes())
    more = pa.table({"url": ["http://b.example/1.jpg"], "raw_caption": ["Ox in Bath"]})
    pq.write_table(more, tmp_path / "more.parquet")
    (source / "more.parquet").write_bytes((tmp_path / "more.parquet").read_bytes())
    run = [
        "run", "--lake", LAKE, "--pairs", "s3a://bucket/source/pairs.jsonl", "--captioner", "column",
        "--fuser", "openai", "--set", f"fuser.base_url={base_url}", "--set", "fuser.model=m",
        "--set", "fuser.canaries=0.0", "--set", "gate.rules.fused_captions.accepted.min=0",
    ]  # fmt: skip
    gone = ["takedown", "--lake", LAKE, "--url", "http://a.example/1.jpg", "--purge"]
    again, listed = ["run", "--lake", LAKE], ["snapshots", "list", "--lake", LAKE]
    out = ["export", "--snapshot", f"{LAKE}@latest", "--to", "s3a://bucket/out", "--format", "parquet", "--no-images"]
    commands = [run, again, listed, ["snapshots", "hold", "s0001", "--lake", LAKE], gone, again]
    commands.append([*out, "--columns", "raw,verdict", "--engine", "spark"])
    commands.append(["ingest", "--lake", LAKE, "--pairs", "s3a://bucket/source/*.parquet"])
    folder = s3 / "bucket" / "captions"
    trained = folder / "_capsfusion" / "checkpoints" / "s0001"
    trained.mkdir(parents=True)
    (trained / "complete.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        capture_output=True, text=True, timeout=900, check=False, cwd=tmp_path,
        env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "snapshot s0001 is up to date" in done.stderr
    assert "s0001" in done.stdout
    assert sum(served.asked.values()) == 5

    assert told(f"{LAKE}@s0001")["reason"] == "SnapshotUnusable"  # it contains a pair that was taken down
    assert holding(folder, b"Anna Keller") == []
    assert (trained / "taken_down.json").is_file()
    assert told(f"{LAKE}@latest")["gate"]["result"] == "passed"
    manifest = open_snapshot(f"{LAKE}@s0002")
    assert manifest.table == f"{LAKE}/training_pairs"
    rows = [row for split in ("train", "held_out") for row in Split(manifest, split)]
    captions = DeltaTable(f"{LAKE}/fused_captions").to_pyarrow_table(columns=["pair_id", "caption"]).to_pylist()
    assert {row.pair_id: row.caption for row in rows} == {row["pair_id"]: row["caption"] for row in captions}
    assert len(rows) == 4
    parts = [pq.read_table(file) for file in (s3 / "bucket" / "out").glob("*.parquet")]
    exported = pa.concat_tables(parts).to_pylist()
    assert {row["pair_id"]: row["caption"] for row in exported} == {row.pair_id: row.caption for row in rows}
    assert all(row["raw_caption"] and row["verdict"] and row["url"] for row in exported)
    assert not (s3 / "bucket" / "out" / "_export").exists()
    assert "Ox in Bath" in DeltaTable(f"{LAKE}/pairs").to_pyarrow_table()["raw_caption"].to_pylist()

    assert {"report.html", "_capsfusion"} < {path.name for path in folder.iterdir()}
    assert (folder / "_capsfusion" / "quality" / "index.html").is_file()
    assert keep(f"{LAKE}@s0002", "run-1") == ["run-1"]
    for file in (folder / "training_pairs").rglob("*.parquet"):
        file.unlink()
    assert open_snapshot(f"{LAKE}@s0002").sha256() == manifest.sha256()  # held: it reads the copies
    with pytest.raises(InputError, match="no snapshot at"):
        open_snapshot(f"{LAKE}@s0003")

    written = [file for place in (s3, tmp_path) for file in place.rglob("*") if file.is_file()]
    assert len(written) > 100
    assert [file for file in written if SECRET.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("folder", ["turns", "s3a://bucket/turns"])
def test_the_next_one_waits_until_a_writer_ends_or_is_dead(s3: Path, tmp_path: Path, folder: str) -> None:
    place = folder if "://" in folder else str(tmp_path / folder)
    first, told = Lease(place, expiry_s=30), threading.Event()
    took: list[Lease] = []
    other = threading.Thread(target=lambda: took.append(Lease(place, expiry_s=30, waiting=told.set)))
    other.start()
    assert told.wait(10)
    other.join(0.5)
    assert other.is_alive()
    first.release()
    other.join(20)
    assert len(took) == 1
    took[0].release()
    (as_path(place) / "killed.alive").write_text("7")  # a heartbeat that never changes
    began = time.monotonic()
    Lease(place, expiry_s=1).release()
    assert 1 <= time.monotonic() - began < 20


def test_a_store_without_atomic_commits_is_refused_by_name(spark: SparkSession) -> None:
    with pytest.raises(InputError, match=r"oss has no atomic rename .*spark\.delta\.logStore\.oss\.impl"):
        check_commits(Lake(spark, "oss://bucket/lake"))
    spark.conf.set("spark.delta.logStore.oss.impl", "some.LogStore")
    check_commits(Lake(spark, "oss://bucket/lake"))
    spark.conf.unset("spark.delta.logStore.oss.impl")
    check_commits(Lake(spark, "s3a://bucket/lake"))
