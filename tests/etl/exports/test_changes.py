"""Test that the changes since an earlier export reach its copies, in every format."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.changes import apply
from capsfusion_etl.exports.config import FORMATS
from capsfusion_etl.exports.formats import format_of
from capsfusion_etl.exports.record import ExportRecord
from capsfusion_etl.lake.run import Run
from capsfusion_etl.operations.takedown import take_down
from exported import Pairs, Published, photo
from filelock import FileLock
from searching import holding


def pairs_in(folder: Path) -> Pairs:
    """Return the pairs of an export in any format, as its own reader has them."""
    record = ExportRecord.read(folder / "export.json")
    tables = [t for shard in record.shards if shard.rows for t in format_of(record.form).read(folder, shard)]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(rows) == record.rows
    return {row["pair_id"]: (row["caption"], row["image"]) for row in rows}


def spoil(copy: Path, pair_id: str) -> None:
    """Change a byte in the shard of a pair."""
    shards = ExportRecord.read(copy / "export.json").shards
    ids = {s.name: pq.read_table(copy / f"_index/{s.name}.parquet")["pair_id"].to_pylist() for s in shards}
    path = copy / next(shard for shard in shards if pair_id in ids[shard.name]).files[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class Killed(BaseException):
    """Stands for SIGKILL."""


def stopped_at(step: int, changes: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Apply changes, and stop before a file is renamed or removed for the `step`th time; false if it ended before."""
    count = 0
    with monkeypatch.context() as patch:
        for name, do in (("replace", Path.replace), ("unlink", Path.unlink)):

            def counted(path: Path, *given: object, do: Callable[..., object] = do, **more: object) -> object:
                nonlocal count
                count += 1
                if count >= step:
                    raise Killed
                return do(path, *given, **more)

            patch.setattr(Path, name, counted)
        try:
            apply(changes, copy)
        except Killed:
            return True
    return False


def check_refusals(old: Path, changes: Path, copy: Path, gone: str, home: Path) -> None:
    """Check what `apply` refuses, and that a copy stays as it is; this damages `changes`."""
    record = ExportRecord.read(changes / "export.json")
    form, before = record.form, pairs_in(old)
    with pytest.raises(InputError, match="is a whole export: changes are exported with --since"):
        apply(old, copy)
    with pytest.raises(InputError, match="has changes only: apply them to a copy of the whole export"):
        apply(changes, changes)
    if form not in ("lance", "llava"):  # they have no hashes of pictures
        spoilt = Path(shutil.copytree(old, home / "spoilt" / form))
        spoil(spoilt, gone)
        with pytest.raises(InputError, match=r"is damaged: its files differ|cannot read the shards"):
            apply(changes, spoilt)
    file = changes / next(file.path for shard in record.shards for file in shard.files)
    file.write_bytes(file.read_bytes()[:-700])
    fresh = Path(shutil.copytree(old, home / "fresh" / form))
    with pytest.raises(InputError, match=f"{form} is damaged: .*{file.name} differs from export.json"):
        apply(changes, fresh)
    with FileLock(fresh / ".apply.lock"), pytest.raises(InputError, match="another process applies changes"):
        apply(changes, fresh)
    assert pairs_in(fresh) == before


def test_changes_reach_copies(
    published: Published, tmp_path: Path, large_jpeg: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"columns": ("raw", "url"), "shard_mb": 1}
    for form in FORMATS:
        published.export(tmp_path / "old" / form, form, **told)
    before = published.pairs("first")
    [gone] = published.lake.read("pairs").where("url LIKE '%site3.%'").collect()
    take_down(Run(published.lake), [("pair_id", gone["pair_id"])])
    photo(published.photos, 3, large_jpeg("red"), "Nothing of it is left")
    (published.photos / "größe.4.jpg").unlink()
    photo(published.photos, 12, large_jpeg("snow"), "Quokka 12 on Rottnest Island in 1912")
    photo(published.photos, 5, large_jpeg("gold"), "Quokka 5 on Rottnest Island in 1905")
    published.publish("second")
    now = published.pairs("second")
    assert gone["pair_id"] not in now
    with pytest.raises(InputError, match="first holds pairs that were taken down since: publish a new one"):
        published.export(tmp_path / "x", "mds")

    for form in FORMATS:
        old, changes, copy = (tmp_path / which / form for which in ("old", "changes", "copy"))
        record = published.export(changes, form, "second", since=str(old / "export.json"), **told)
        removed = {row["pair_id"]: row["reason"] for row in pq.read_table(changes / "removed.parquet").to_pylist()}
        assert removed[gone["pair_id"]] == "taken_down"
        assert set(removed) == {p for p in before if before[p] != now.get(p)}
        assert {p for p, reason in removed.items() if reason == "changed"} == set(removed) & set(now)
        assert pairs_in(changes) == {p: what for p, what in now.items() if before.get(p) != what}
        assert record.since is not None
        assert record.since["taken_down"] == 1
        assert "only the changes since an earlier export" in (changes / "README.md").read_text()
        # The list itself shows nothing of what was taken down.
        assert not holding(changes, before[gone["pair_id"]][0].encode())

        for step in range(1, 60, 3):  # killed at a step: the same command goes on
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(old, copy)
            if not stopped_at(step, changes, copy, monkeypatch):
                break
            apply(changes, copy)
            assert pairs_in(copy) == now, (form, step)
        assert step > 10
        assert apply(changes, copy).rows == len(now)
        assert pairs_in(copy) == now
        assert not holding(copy, before[gone["pair_id"]][0].encode())
        index = ds.dataset([str(path) for path in (copy / "_index").glob("*.parquet")]).to_table()
        assert sorted(index["pair_id"].to_pylist()) == sorted(now)
        assert apply(changes, copy).applied == (record.id,)  # again: nothing to do
        check_refusals(old, changes, copy, gone["pair_id"], tmp_path)

    # The next changes follow the copy.
    since = str(tmp_path / "copy" / "mds")
    none = published.export(tmp_path / "next", "mds", "second", since=since, **told)
    assert none.since is not None
    assert {what: count for what, count in none.since.items() if what != "id"} == dict.fromkeys(
        ("added", "changed", "removed", "taken_down"), 0
    )
    with pytest.raises(InputError, match="changes must be exported as the copy was"):
        published.export(tmp_path / "other", "mds", "second", since=since)
    with pytest.raises(InputError, match="apply the changes in the order in which they were exported"):
        apply(tmp_path / "next", tmp_path / "old" / "mds")
    assert json.loads((tmp_path / "copy" / "mds" / "export.json").read_text())["snapshot"]["name"] == "second"
