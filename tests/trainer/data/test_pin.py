"""Tests of pinning: resolving a snapshot or table version, its gate, and holds."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots import holds
from capsfusion_etl.snapshots.address import NOT_ASKED, open_snapshot
from capsfusion_etl.snapshots.manifest import GateResult
from capsfusion_trainer.data.pin import keep
from capsfusion_trainer.data.snapshot import Split
from deltalake import DeltaTable, write_deltalake

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Snapshot = Callable[..., Path]


def publish(lake: Path, name: str, version: int, *, passed: bool) -> None:
    """Write the manifest of another snapshot over the same files."""
    first = open_snapshot(f"{lake}@first")
    gate = GateResult(passed, 1, () if passed else ("captions: too short",), "report")
    other = replace(first, name=name, version=version, gate=gate)
    (lake / f"_capsfusion/snapshots/{name}.json").write_text(other.text())


def test_a_snapshot_by_name_by_path_by_version_and_the_newest_that_passed(snapshot: Snapshot) -> None:
    lake = snapshot()
    publish(lake, "second", 7, passed=True)
    publish(lake, "third", 9, passed=False)
    names = [open_snapshot(f"{lake}@{name}").name for name in ("first", "latest", "7", "0")]
    assert names == ["first", "second", "second", "first"]
    assert open_snapshot(str(lake / "_capsfusion/snapshots/second.json")).version == 7


def test_a_snapshot_whose_gate_failed_is_refused_unless_told(snapshot: Snapshot) -> None:
    lake = snapshot()
    publish(lake, "third", 9, passed=False)
    with pytest.raises(InputError, match="did not pass its quality gate: captions: too short"):
        open_snapshot(f"{lake}@third")
    assert open_snapshot(f"{lake}@third", failed_gate=True).name == "third"


def test_a_version_without_a_snapshot(snapshot: Snapshot) -> None:
    lake = snapshot(9, files=2)
    table = DeltaTable(lake / "training_pairs")
    version = table.version()
    with pytest.raises(InputError, match=NOT_ASKED):
        open_snapshot(f"{lake}@{version}")
    manifest = open_snapshot(f"{lake}@{version}", failed_gate=True)
    assert (manifest.rows, len(list(Split(manifest, "train")))) == (11, 9)
    with pytest.raises(InputError, match=rf"has no version {version + 5} \(any more\): the newest is {version}"):
        open_snapshot(f"{lake}@{version + 5}", failed_gate=True)
    with pytest.raises(InputError, match="no captions of strategy raw"):
        open_snapshot(f"{lake}@{version}", failed_gate=True, strategy="raw")


def test_a_version_that_was_vacuumed_names_the_files(snapshot: Snapshot) -> None:
    lake = snapshot(9, files=2)
    table = DeltaTable(lake / "training_pairs")
    version = table.version()
    old = [str(f) for f in table.get_add_actions(flatten=True)["path"].to_pylist()]
    table.optimize.compact()
    DeltaTable(lake / "training_pairs").vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(InputError, match=r"is broken: .*\.parquet gone; was it vacuumed") as caught:
        open_snapshot(f"{lake}@{version}", failed_gate=True)
    assert any(name in str(caught.value) for name in old)


def test_deletion_vectors_are_refused(snapshot: Snapshot, spark: "SparkSession") -> None:
    lake = snapshot(9)
    table = f"delta.`{lake}/training_pairs`"
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    spark.sql(f"DELETE FROM {table} WHERE pair_id LIKE '%2'")
    with pytest.raises(InputError, match=r"has deletion vectors.*REORG TABLE"):
        open_snapshot(f"{lake}@{DeltaTable(lake / 'training_pairs').version()}", failed_gate=True)
    spark.sql(f"REORG TABLE {table} APPLY (PURGE)")
    manifest = open_snapshot(f"{lake}@{DeltaTable(lake / 'training_pairs').version()}", failed_gate=True)
    assert len(list(Split(manifest, "train"))) == 8


def test_a_copied_or_moved_lake_reads_its_own_files(snapshot: Snapshot, tmp_path: Path) -> None:
    lake = snapshot()
    pinned = open_snapshot(f"{lake}@first")
    copy = Path(shutil.copytree(lake, tmp_path / "copy"))
    [file] = [f for f in pinned.files if f.split == "train"]
    (lake / "training_pairs" / file.path).unlink()
    here = open_snapshot(f"{copy}@first")
    assert here.locate(file) == copy / "training_pairs" / file.path
    assert here.sha256() == pinned.sha256()
    holds.hold(here, "me")
    assert (copy / "_holds" / "first").is_dir()
    assert not (lake / "_holds").exists()
    moved = lake.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"is broken: .* is gone"):
        open_snapshot(f"{moved}@first")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("TBLPROPERTIES ('delta.columnMapping.mode' = 'name')", "has column mapping .name."),
        ("TBLPROPERTIES ('delta.dataSkippingNumIndexedCols' = '0')", None),
        ("", "is not partitioned by strategy, split"),
        ("SHALLOW CLONE", "shallow clone"),
    ],
)
def test_delta_tables_of_others(snapshot: Snapshot, spark: "SparkSession", how: str, message: str | None) -> None:
    lake = snapshot(9)
    given, made = lake / "training_pairs", lake / "other"
    if how == "SHALLOW CLONE":
        spark.sql(f"CREATE TABLE delta.`{made}` SHALLOW CLONE delta.`{given}`")
    else:
        parts = "PARTITIONED BY (strategy, split)" if how else ""
        spark.sql(f"CREATE TABLE delta.`{made}` USING DELTA {parts} {how} AS SELECT * FROM delta.`{given}`")
    shutil.rmtree(given) if how != "SHALLOW CLONE" else given.rename(lake / "original")
    made.rename(given)
    (lake / "_capsfusion" / "snapshots" / "first.json").unlink()  # of the table before
    address = f"{lake}@{DeltaTable(given).version()}"
    if message is None:
        assert len(list(Split(open_snapshot(address, failed_gate=True), "train"))) == 9
        return
    with pytest.raises(InputError, match=message):
        open_snapshot(address, failed_gate=True)


def test_a_widened_type(snapshot: Snapshot, spark: "SparkSession") -> None:
    lake = snapshot(9)
    table = f"delta.`{lake}/training_pairs`"
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')")
    spark.sql(f"ALTER TABLE {table} ADD COLUMN (score SHORT)")
    spark.sql(f"ALTER TABLE {table} ALTER COLUMN score TYPE INT")
    manifest = open_snapshot(f"{lake}@3", failed_gate=True)
    assert len(list(Split(manifest, "train"))) == 9


def test_a_lake_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no snapshot at .*; there are: none"):
        open_snapshot(f"{tmp_path}@first")
    with pytest.raises(InputError, match="there is no table at"):
        open_snapshot(f"{tmp_path}@3")
    with pytest.raises(InputError, match="cannot read the manifest"):
        open_snapshot(str(tmp_path / "none.json"))


def test_the_pin_as_json(snapshot: Snapshot, capsfusion: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    lake = snapshot()
    code, out, _ = capsfusion("pin", "--snapshot", f"{lake}@latest")
    said, manifest = json.loads(out), open_snapshot(f"{lake}@first")
    assert code == 0
    assert (said["version"], said["manifestSha256"]) == (0, manifest.sha256())
    assert said["bytes"] == sum(file.size for file in manifest.files)
    assert said["gate"]["result"] == "passed"
    message = tmp_path / "message"
    assert capsfusion("pin", "--snapshot", f"{tmp_path}@latest", "--message", message)[0] == 0
    assert json.loads(message.read_text())["reason"] == "NoPassingSnapshot"
    assert capsfusion("pin", "--snapshot", f"{tmp_path}@none")[0] == 2
    assert said["name"] == "first"
    # A table version without a snapshot gets the version as its name.
    code, out, _ = capsfusion("pin", "--snapshot", f"{lake}@{DeltaTable(lake / 'training_pairs').version()}")
    assert json.loads(out)["name"] == str(DeltaTable(lake / "training_pairs").version())


def test_training_refuses_another_manifest_than_the_pinned_one(
    snapshot: Snapshot, capsfusion: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    train = ["train", "--snapshot", f"{snapshot()}@first", "--out", tmp_path / "out", "--manifest-sha256", "0" * 64]
    code, _, error = capsfusion(*train)
    assert (code, "no longer the snapshot that was pinned" in error) == (2, True)


def test_files_are_held_until_the_last_holder_lets_go(
    snapshot: Snapshot, capsfusion: Callable[..., tuple[int, str, str]]
) -> None:
    lake = snapshot()
    names = pa.table({"name": ["first"], "state": ["published"]})
    write_deltalake(lake / "snapshots", names)
    manifest, address = open_snapshot(f"{lake}@first"), f"{lake}@first"

    def state() -> str:
        return str(DeltaTable(lake / "snapshots").to_pyarrow_table()["state"][0])

    for who in ("ml.july.1", "ml.august.2", "ml.july.1"):
        assert capsfusion("pin", "--snapshot", address, "--hold", who)[0] == 0
    assert (holds.holders(manifest), state()) == (["ml.august.2", "ml.july.1"], "held")
    for file in manifest.files:
        (Path(manifest.table) / file.path).unlink()  # vacuumed
    assert open_snapshot(address).verify() == []
    assert capsfusion("pin", "--snapshot", address, "--release", "ml.july.1")[1].strip().endswith("held by ml.august.2")
    assert (open_snapshot(address).verify(), state()) == ([], "held")
    assert capsfusion("pin", "--snapshot", address, "--release", "ml.august.2")[1].strip().endswith("held by nobody")
    assert state() == "published"
    with pytest.raises(InputError, match="is broken"):
        open_snapshot(address)
    code, _, error = capsfusion("pin", "--snapshot", address, "--hold", "../../etc")
    assert code == 2
    assert "is broken" in error or "cannot be the name" in error
    code, _, error = capsfusion("pin", "--snapshot", address, "--hold", "a", "--release", "b")
    assert (code, "exclude each other" in error) == (2, True)
    code, _, error = capsfusion("pin", "--snapshot", address, "--days", "3")
    assert (code, "name the holder" in error) == (2, True)


def test_a_hold_of_what_has_no_name_or_of_somebody_with_none(snapshot: Snapshot) -> None:
    lake = snapshot()
    version = DeltaTable(lake / "training_pairs").version()
    with pytest.raises(InputError, match="has no name: only a snapshot can be held"):
        keep(f"{lake}@{version}", "me")
    with pytest.raises(InputError, match="cannot be the name of a holder"):
        keep(f"{lake}@first", "../../etc")
    assert not open_snapshot(f"{lake}@first").hold.exists()


def test_a_manifest_in_a_lake_is_that_of_the_lake(snapshot: Snapshot, tmp_path: Path) -> None:
    """By its path, too: a copy reads and holds its own files, and takedowns hold for it."""
    lake, copy = snapshot(), tmp_path / "copy"
    shutil.copytree(lake, copy)
    shutil.rmtree(lake)
    path = copy / "_capsfusion/snapshots/first.json"
    assert open_snapshot(str(path)) == open_snapshot(f"{copy}@first")
    (copy / "_capsfusion/snapshots/first.taken_down").touch()
    with pytest.raises(InputError, match="holds pairs that were taken down since"):
        open_snapshot(str(path))


def test_a_hold_ends_unless_it_is_renewed(snapshot: Snapshot, capsfusion: Callable[..., tuple[int, str, str]]) -> None:
    lake = snapshot()
    write_deltalake(lake / "snapshots", pa.table({"name": ["first"], "state": ["published"]}))
    manifest, address = open_snapshot(f"{lake}@first"), f"{lake}@first"
    held = lake / "_holds" / "first"
    holds.hold(manifest, "ml.gone.1", until=datetime.now(UTC) - timedelta(seconds=1))
    assert holds.holders(manifest) == []
    holds.hold(manifest, "ml.july.1", until=datetime.now(UTC) + timedelta(days=1))
    assert (holds.holders(manifest), holds.sweep(manifest)) == (["ml.july.1"], [])
    holds.hold(manifest, "ml.july.1", until=datetime.now(UTC) - timedelta(days=1))
    (lake / "_holds" / "in-the-making" / "split=train").mkdir(parents=True)  # its marker comes last
    assert holds.sweep(manifest) == ["first"]
    assert (held.exists(), (lake / "_holds" / "in-the-making").exists()) == (False, True)
    # Whoever holds a snapshot sweeps what has ended.
    holds.hold(manifest, "ml.gone.1", until=datetime.now(UTC) - timedelta(days=1))
    (held / "_by" / "ml.gone.1").rename(lake / "gone")
    code, out, _ = capsfusion("pin", "--snapshot", address, "--hold", "ml.july.2", "--days", "30")
    assert (code, out.strip().endswith("is held by ml.july.2")) == (0, True)
    until = datetime.fromisoformat((held / "_by" / "ml.july.2").read_text())
    assert timedelta(days=29) < until - datetime.now(UTC) < timedelta(days=31)
