"""Test how an export begins, goes on after a stop, and is refused."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.write import Task, write_shard
from capsfusion_etl.queries import embedded_sql
from exported import Published

Cli = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command(published: Published, capsfusion: Cli, tmp_path: Path) -> None:
    lake, to = f"{published.lake.root}@latest", tmp_path / "out"
    told = ("--snapshot", lake, "--to", to, "--format", "parquet", "--contact", "takedown@example.org")
    status, out, err = capsfusion("export", *told)
    assert (status, out) == (0, f"12 pairs in 2 shards; {to}/README.md is the card\n")
    assert "write to takedown@example.org" in (to / "README.md").read_text()
    before = contents(to)
    status, out, err = capsfusion("export", *told)
    assert status == 0
    assert f"{to} is complete: nothing to do" in err
    assert contents(to) == before
    for wrong, words in (
        (("--format", "tfrecord"), "there is no format 'tfrecord'; there are webdataset"),
        (("--columns", "raw,crude"), "there is no column 'crude'; there are raw, synthetic"),
        (("--format", "webdataset"), "has another export (of snapshot first): choose an empty folder"),
        (("--shard-mb", "0"), "--shard-mb: must be at least 1"),
        (("--engine", "ray"), "there is no engine 'ray'"),
        (("--snapshot", "lake"), "--snapshot wants LAKE@NAME"),
        (("--format", "llava", "--no-images"), "llava's JSON names files of pictures"),
    ):
        status, out, err = capsfusion("export", *told, *wrong)
        assert (status, words in err) == (2, True), err
    assert contents(to) == before


def test_a_folder_with_other_files_is_refused(published: Published, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty \(notes.txt\): choose an empty folder"):
        published.export(tmp_path, "webdataset")
    assert contents(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(InputError, match="lies in a Delta table, whose VACUUM would remove it"):
        published.export(f"{published.lake.root}/training_pairs/x", "mds")


def test_it_goes_on_after_a_stop(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.export(tmp_path / "whole", "mds", shard_mb=1, columns=("raw",))
    written: list[str] = []

    def stops(task: Task) -> str:
        if len(written) == 1:
            raise OSError(28, "No space left on device")
        written.append(task.rows.shard.name)
        return write_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr("capsfusion_etl.exports.export.write_shard", stops)
        patch.setattr("capsfusion_etl.exports.export.spread", lambda work, items, _: map(work, items))
        with pytest.raises(OSError, match="No space"):
            published.export(tmp_path / "out", "mds", shard_mb=1, columns=("raw",))
    assert not (tmp_path / "out" / "export.json").exists()
    with pytest.raises(InputError, match="has a part of another export"):
        published.export(tmp_path / "out", "mds", shard_mb=1)
    shard = next((tmp_path / "out").rglob("shard.*.mds"))
    before = shard.stat().st_mtime_ns
    published.export(tmp_path / "out", "mds", shard_mb=1, columns=("raw",))
    assert shard.stat().st_mtime_ns == before  # it was not written again
    published.export(tmp_path / "order", "mds", columns=("url", "raw"))
    published.export(tmp_path / "order", "mds", columns=("raw", "url"))  # the same export
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.storm
def test_a_kill_at_any_moment(published: Published, tmp_path: Path) -> None:
    def command(to: Path) -> list[str | Path]:
        lake = f"{published.lake.root}@first"
        told = ("--snapshot", lake, "--to", to, "--format", "webdataset", "--columns", "raw,url", "--shard-mb", "1")
        return [Path(sys.executable).with_name("capsfusion"), "export", *told]

    subprocess.run(command(tmp_path / "whole"), check=True)
    for tenths in range(8, 40, 4):
        running = subprocess.Popen(command(tmp_path / "out"), start_new_session=True)
        time.sleep(tenths / 10)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    subprocess.run(command(tmp_path / "out"), check=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk(published: Published, capsfusion: Cli, small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    disk = small_disk(1_500_000)
    told = ("--snapshot", f"{published.lake.root}@first", "--format", "webdataset", "--shard-mb", "1")
    status, _, err = capsfusion("export", *told, "--to", disk / "out")
    assert status == 3
    assert err.splitlines()[-1] == ("capsfusion: no space left on the disk: make room and run the same command again")
    small_disk(20_000_000)
    assert capsfusion("export", *told, "--to", disk / "out")[0] == 0
    assert capsfusion("export", *told, "--to", tmp_path / "whole")[0] == 0
    assert contents(disk / "out") == contents(tmp_path / "whole")


def test_a_changed_file_of_the_snapshot(published: Published, tmp_path: Path) -> None:
    lake = shutil.copytree(published.lake.root, tmp_path / "lake")
    file = next((lake / "training_pairs").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    other = type(published)(type(published.lake)(published.lake.spark, str(lake)), published.photos, published.settings)
    with pytest.raises(InputError, match=r"snapshot first is broken: .*has changed since it was published"):
        other.export(tmp_path / "out", "parquet")


def test_spark_writes_the_same_bytes(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"columns": ("raw", "synthetic", "fused", "ledger", "verdict", "source", "extra"), "shard_mb": 1}
    published.export(tmp_path / "local", "webdataset", **told)

    def not_here(*_: object) -> None:
        raise embedded_sql.NotHereError("in this test Spark answers")

    monkeypatch.setattr("capsfusion_etl.queries.connected", not_here)
    published.export(tmp_path / "spark", "webdataset", spark=published.lake.spark, **told)
    assert contents(tmp_path / "spark") == contents(tmp_path / "local")


def test_to_an_object_store(published: Published, s3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"columns": ("raw", "ledger"), "shard_mb": 1}
    for form in ("webdataset", "huggingface", "llava", "mds"):
        published.export(tmp_path / form, form, **told)
        published.export(f"s3a://bucket/{form}", form, **told)
        assert contents(s3 / "bucket" / form) == contents(tmp_path / form)
    with pytest.raises(InputError, match="lance is exported to a folder on this machine"):
        published.export("s3a://bucket/lance", "lance")

    def breaks(*_: object) -> bytes:
        raise OSError("the store is away")

    monkeypatch.setattr("capsfusion_etl.exports.formats.webdataset.header", breaks)
    monkeypatch.setattr("capsfusion_etl.exports.export.spread", lambda work, items, _: map(work, items))
    with pytest.raises(OSError, match="the store is away"):
        published.export("s3a://bucket/half", "webdataset", shard_mb=256)
    assert not list((s3 / "bucket").glob("half/*.tar"))


def test_a_snapshot_taken_down_meanwhile(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capsfusion_etl.exports.export.taken_down", lambda *_: True)
    with pytest.raises(InputError, match=r"first was taken down while it was exported: remove .*, and export a new"):
        published.export(tmp_path / "out", "llava")
    assert not (tmp_path / "out" / "export.json").exists()
