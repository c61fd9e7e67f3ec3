"""Apply an export of changes to a copy of the earlier one: take out what is gone, put in what is new."""

import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.exports.export import finish
from capsfusion_etl.exports.formats import format_of
from capsfusion_etl.exports.formats.base import Format, ShardRecord, Written, schema_of
from capsfusion_etl.exports.gone import read_gone
from capsfusion_etl.exports.output import WORK
from capsfusion_etl.exports.record import INDEX, NAME, ExportRecord, is_as_recorded, shard_of
from capsfusion_etl.exports.shards import shard_name
from capsfusion_etl.exports.write import write_index
from capsfusion_etl.storage import remove, write_whole


def apply(changes: Path, copy: Path) -> ExportRecord:
    """Bring a copy of an export on this machine to the state of an export of changes; idempotent, also after a kill.

    Shards with pairs that are gone or changed are written again without them; the shards of the changes are written
    behind the others. `export.json` changes last.

    Args:
        changes: folder of the export of changes (`capsfusion export --since`).
        copy: folder of the copy.

    Returns:
        The new record of the copy.

    Raises:
        InputError: a folder has no export, the changes do not follow the state of the copy, or another process applies
            changes to it.
    """
    new = ExportRecord.read(changes / NAME)
    with _alone(copy):
        old = ExportRecord.read(copy / NAME)
        if new.id in old.applied:
            say(f"apply     {copy} has these changes already: nothing to do")
            remove(copy / WORK, within=copy)
            return old
        done = copy / WORK / f"apply-{new.id[:16]}"
        _check(new, old, changes, copy, done)
        try:
            return _applied(new, old, changes, copy, done)
        except (pa.ArrowInvalid, tarfile.TarError, ValueError, KeyError, EOFError) as error:
            said = first_line(str(error))
            raise InputError(f"cannot read the shards of {copy}: is one damaged? ({said})") from None


@contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """Keep other processes from applying changes to a copy; the lock of a process that is killed ends with it.

    Raises:
        InputError: another process has the lock, or there is no export.
    """
    ExportRecord.read(copy / NAME)  # no lock in a folder that is none
    lock = FileLock(copy / ".apply.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process applies changes to {copy}: wait until it ends, then repeat this") from None
    try:
        yield
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _check(new: ExportRecord, old: ExportRecord, changes: Path, copy: Path, done: Path) -> None:
    """Refuse changes that do not follow the state of a copy, or are damaged."""
    if new.since is None:
        raise InputError(f"{changes} is a whole export: changes are exported with --since")
    if old.since is not None:
        raise InputError(f"{copy} has changes only: apply them to a copy of the whole export, in the order of exports")
    if new.since["id"] != old.state:
        raise InputError(
            f"{changes} follows the export {new.since['id'][:12]}, {copy} is at {old.state[:12]}: apply the changes in "
            f"the order in which they were exported, or export them with --since {copy / NAME}"
        )
    for name in ("form", "columns", "images"):
        if getattr(new, name) != getattr(old, name):
            raise InputError(
                f"{changes} has {name} {getattr(new, name)}, {copy} {getattr(old, name)}: export both alike"
            )
    if others := [path.name for path in (copy / WORK).glob("apply-*") if path != done]:
        raise InputError(f"{copy} has a part of other changes ({others[0]}): apply those again first, then these")
    for folder, record in ((copy, old), (changes, new)):
        names = (f"{INDEX}/{shard.name}.parquet" for shard in record.shards if shard.rows)
        if lost := next((name for name in names if not (folder / name).is_file()), None):
            raise InputError(f"{folder} has no {lost}, which tells its pairs: restore it, or export the whole anew")
    if faults := new.faults(changes):
        raise InputError(f"{changes} is damaged: {'; '.join(faults[:3])}")


def _applied(new: ExportRecord, old: ExportRecord, changes: Path, copy: Path, done: Path) -> ExportRecord:
    form, gone = format_of(old.form), read_gone(changes)["pair_id"]
    shards = []
    for shard in old.shards:
        shards.append(_once(done, shard.name, partial(_without, form, copy, shard, gone, old)))
        if not shards[-1].rows:
            form.remove(copy, shard)
    shards += _added(form, changes, copy, new, old, done)
    files = form.finish(copy, shards)
    record = replace(
        old,
        shards=tuple(shards),
        files=tuple(files),
        snapshot=new.snapshot,
        card=new.card,
        applied=(*old.applied, new.id),
    )
    finish(copy, record)
    return record


def _once(done: Path, name: str, make: Callable[[], ShardRecord]) -> ShardRecord:
    """Return the record of a shard that was made before a kill, or make it."""
    path = done / f"{name}.json"
    if path.is_file():
        return shard_of(json.loads(path.read_text(encoding="utf-8")))
    record = make()
    done.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(record)))
    return record


def _without(form: Format, copy: Path, shard: ShardRecord, gone: pa.ChunkedArray, old: ExportRecord) -> ShardRecord:
    """Write a shard again without the pairs in `gone`, if it has some; what has none left is removed later."""
    index = pq.read_table(copy / INDEX / f"{shard.name}.parquet")
    stays = pc.invert(pc.is_in(index["pair_id"], gone))
    left = pc.sum(stays).as_py() or 0
    if left == shard.rows:
        return shard
    say(f"apply     removing {shard.rows - left} of {shard.rows} pairs from {shard.name}")
    written = Written(())
    if left:
        rows = _filtered(form, copy, shard, gone, left)
        written = form.write(copy, shard.name, rows, schema_of(old.columns, images=old.images))
    write_index(copy, shard.name, index.filter(stays))
    return replace(shard, rows=left, files=written.files, note=written.note)


def _filtered(form: Format, copy: Path, shard: ShardRecord, gone: pa.ChunkedArray, left: int) -> Iterator[pa.Table]:
    """Yield the rows of a shard that stay.

    Raises:
        InputError: they are not `left`, as the index says, or the files are not those of the record; the shard is then
            not replaced.
    """
    found = read = 0
    same = all(is_as_recorded(copy, file) for file in shard.files)
    for table in form.read(copy, shard):
        rows = table.filter(pc.invert(pc.is_in(table["pair_id"], gone)))
        found, read = found + rows.num_rows, read + table.num_rows
        if rows.num_rows:
            yield rows
    if found != left:
        raise InputError(f"{shard.name} of {copy} is damaged: {found} pairs would stay, not {left}")
    if not same and read != found:  # without any pair that is gone, it was written by a try that was killed
        raise InputError(f"{shard.name} of {copy} is damaged: its files differ from {NAME}")


def _added(
    form: Format, changes: Path, copy: Path, new: ExportRecord, old: ExportRecord, done: Path
) -> list[ShardRecord]:
    """Write the shards of the changes behind those of the copy."""
    made = list[ShardRecord]()
    for shard in (one for one in new.shards if one.rows):
        number = sum(one.split == shard.split for one in (*old.shards, *made))
        name = shard_name(shard.split, number)
        made.append(_once(done, name, partial(_copied, form, changes, copy, shard, name, old)))
    return made


def _copied(form: Format, changes: Path, copy: Path, shard: ShardRecord, name: str, old: ExportRecord) -> ShardRecord:
    ids = list[pa.ChunkedArray]()

    def rows() -> Iterator[pa.Table]:
        for table in form.read(changes, shard):
            ids.extend(table["pair_id"].chunks)
            yield table

    written = form.write(copy, name, rows(), schema_of(old.columns, images=old.images))
    index = pq.read_table(changes / INDEX / f"{shard.name}.parquet")
    write_index(copy, name, index.filter(pc.is_in(index["pair_id"], pa.chunked_array(ids))))
    return replace(shard, name=name, files=written.files, note=written.note)
