"""Plan an export: its identity, its tasks, and where an export that was stopped goes on."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.beside import Folders, write_beside
from capsfusion_etl.exports.config import ExportConfig
from capsfusion_etl.exports.output import WORK, write_bytes
from capsfusion_etl.exports.record import INDEX, NAME, ExportRecord
from capsfusion_etl.exports.rows import Rows
from capsfusion_etl.exports.shards import Part, Shard, cut, has_pictures
from capsfusion_etl.exports.write import Task
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import as_path, is_remote, remove

_PLAN = f"{WORK}/plan.json"


def asked_of(manifest: Manifest, config: ExportConfig) -> dict[str, Any]:
    """Return what decides the bytes of an export."""
    since = None if config.since is None else ExportRecord.read(as_path(config.since)).state
    told = asdict(replace(config, since=since, contact=None))
    return told | {"columns": config.asked, "manifest_sha256": manifest.sha256()}


def id_of(asked: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def begin(
    lake: Lake,
    manifest: Manifest,
    to: str,
    config: ExportConfig,
    asked: dict[str, Any],
    earlier: ExportRecord | None,
    *,
    by_spark: bool,
) -> list[Task]:
    """Return the tasks of an export: of the one that was stopped there, or of a new one.

    Raises:
        InputError: the target is not empty, or the snapshot has no pictures.
    """
    target = as_path(to)
    if (target / _PLAN).is_file():
        try:
            plan = json.loads((target / _PLAN).read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{target / _PLAN} is damaged: remove {to}, and begin again") from None
        if plan["id"] != id_of(asked):
            raise InputError(f"{to} has a part of another export: repeat that one, or choose an empty folder")
        shards = [
            Shard(**(shard | {"parts": tuple(Part(**part) for part in shard["parts"])})) for shard in plan["shards"]
        ]
        say(f"export    resuming in {to}")
        return _tasks(manifest, to, config, shards, earlier)
    if not is_remote(to) and any((folder / "_delta_log").is_dir() for folder in (target, *target.absolute().parents)):
        raise InputError(f"{to} lies in a Delta table, whose VACUUM would remove it: choose another folder")
    others = sorted(path.name for path in target.iterdir() if path.name != WORK) if target.is_dir() else []
    if others:
        raise InputError(f"{to} is not empty ({', '.join(others[:3])}): choose an empty folder")
    if config.images and not has_pictures(manifest):
        raise InputError(f"snapshot {manifest.name} has no pictures: export it with --no-images")
    remove(target / WORK, within=target)
    shards = cut(manifest, config.shard_mb * 10**6, images=config.images)
    tasks = _tasks(manifest, to, config, shards, earlier)
    if config.asked or earlier is not None:
        (target / WORK).mkdir(parents=True, exist_ok=True)
        index = [] if earlier is None else _index_of(config, earlier, manifest)
        write_beside(lake, config, [task.rows for task in tasks], index, folders_of(to), by_spark=by_spark)
    plan = {"id": id_of(asked), "shards": [asdict(shard) for shard in shards]}
    write_bytes(target, _PLAN, json.dumps(plan).encode())
    return tasks


def folders_of(to: str) -> Folders:
    base = f"{to.rstrip('/')}/{WORK}" if is_remote(to) else str(Path(to, WORK).absolute())
    return Folders(f"{base}/columns", f"{base}/gone")


def _tasks(
    manifest: Manifest, to: str, config: ExportConfig, shards: Sequence[Shard], earlier: ExportRecord | None
) -> list[Task]:
    """Return a task for each shard."""
    to = to if is_remote(to) else str(Path(to).absolute())
    files = {file.path: str(manifest.locate(file)) for file in manifest.files}
    given = bool(config.asked) or earlier is not None
    tasks = []
    for number, shard in enumerate(shards):
        paths = tuple(files[part.file] for part in shard.parts)
        beside = f"{folders_of(to).columns}/shard={number}" if given else None
        rows = Rows(shard, paths, manifest.strategy, config.asked, config.images, beside, earlier is not None)
        tasks.append(Task(to, config.form, rows))
    return tasks


def _index_of(config: ExportConfig, earlier: ExportRecord, manifest: Manifest) -> list[str]:
    """Return the files of the index of an earlier export.

    Raises:
        InputError: they are missing, or it has captions of another strategy, or is of another kind.
    """
    since = str(config.since)
    if earlier.snapshot["strategy"] != manifest.strategy:
        raise InputError(
            f"{since} has captions of the strategy {earlier.snapshot['strategy']}, {manifest.name} of "
            f"{manifest.strategy}: they cannot be compared"
        )
    same = {
        "format": (earlier.form, config.form),
        "columns": (earlier.columns, config.asked),
        "pictures": (earlier.images, config.images),
    }
    for what, (old, new) in same.items():
        if old != new:
            raise InputError(f"{since} has {what} {old}, this export {new}: changes must be exported as the copy was")
    folder = as_path(since).parent / INDEX
    found = sorted(str(path) for path in folder.glob("*.parquet"))
    if not found:
        raise InputError(f"{folder} is missing: keep the index beside {NAME}, to find out what changed")
    return found
