"""Export a snapshot for other trainers: the main flow."""

import json
from pathlib import Path

from pyspark.sql import SparkSession

from capsfusion_etl.cards.croissant import croissant
from capsfusion_etl.cards.facts import facts_of, pin_of
from capsfusion_etl.cards.holding import Holding
from capsfusion_etl.cards.readme import readme
from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.config import ExportConfig
from capsfusion_etl.exports.formats import format_of
from capsfusion_etl.exports.formats.base import ShardRecord, schema_of
from capsfusion_etl.exports.gone import write_gone
from capsfusion_etl.exports.output import WORK, write_bytes
from capsfusion_etl.exports.plan import asked_of, begin, folders_of, id_of
from capsfusion_etl.exports.record import NAME, ExportRecord, shard_of
from capsfusion_etl.exports.spread import spread
from capsfusion_etl.exports.write import write_shard
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.snapshots.address import broken, taken_down
from capsfusion_etl.snapshots.manifest import DataFile, Manifest
from capsfusion_etl.storage import as_path, remove


def export(lake: Lake, manifest: Manifest, to: str, config: ExportConfig, spark: SparkSession | None) -> ExportRecord:
    """Write a snapshot to a folder or URL; the same call resumes an export that was stopped.

    Args:
        lake: the lake of the snapshot.
        manifest: the snapshot; its files are checked here.
        to: a folder or a URL, empty or with the same export.
        config: what to export, and as what.
        spark: writes the shards in tasks; None: processes on this machine do.

    Raises:
        InputError: the target has something else, a file of the snapshot is missing or changed, or it was taken down.
        OSError: the disk is full, or the store cannot be reached.
    """
    target, asked = as_path(to), asked_of(manifest, config)
    if (target / NAME).is_file():
        there = ExportRecord.read(target / NAME)
        if there.id != id_of(asked):
            raise InputError(f"{to} has another export (of snapshot {there.snapshot['name']}): choose an empty folder")
        say(f"export    {to} is complete: nothing to do")
        remove(target / WORK, within=target)
        return there
    earlier = None if config.since is None else ExportRecord.read(as_path(config.since))
    _check(manifest, spark)
    tasks = begin(lake, manifest, to, config, asked, earlier, by_spark=spark is not None)
    shards = list[ShardRecord]()
    for text in spread(write_shard, tasks, spark):
        shards.append(shard_of(json.loads(text)))
        if len(shards) % (1 + len(tasks) // 10) == 0 or len(shards) == len(tasks):
            say(f"export    {len(shards)} of {len(tasks)} shards, {sum(s.rows for s in shards):,} pairs")
    shards.sort(key=lambda shard: shard.name)
    files, since = format_of(config.form).finish(target, shards), None
    if earlier is not None:
        list_of_gone, gone = write_gone(target, folders_of(to).gone)
        files.append(list_of_gone)
        since = {"id": earlier.state, "added": sum(shard.rows for shard in shards) - gone["changed"], **gone}
    record = ExportRecord(
        id_of(asked), config.form, config.asked, config.images, pin_of(manifest), tuple(shards), tuple(files),
        facts_of(lake, manifest, config.contact), since,
    )  # fmt: skip
    if taken_down(lake.root, manifest):
        raise InputError(
            f"snapshot {manifest.name} was taken down while it was exported: remove {to}, and export a new snapshot"
        )
    finish(target, record)
    return record


def _check(manifest: Manifest, spark: SparkSession | None) -> None:
    """Compare the files of a snapshot with their hashes.

    Raises:
        InputError: a file is missing or has changed.
    """
    if spark is None:
        faults = manifest.verify()
    else:
        items = [(manifest, file) for file in manifest.files]
        faults = [fault for fault in spread(_fault, items, spark) if fault]
    if faults:
        raise broken(manifest, faults)


def _fault(item: tuple[Manifest, DataFile]) -> str:
    manifest, file = item
    return manifest.fault(file) or ""


def finish(target: Path, record: ExportRecord) -> None:
    """Write the cards and, last, `export.json`; remove the working files."""
    splits = sorted({shard.split for shard in record.shards if shard.files}, reverse=True)
    holding = Holding(
        name=f"{record.snapshot['name']} ({record.form})", version=record.state, form=record.form,
        paths=format_of(record.form).paths(splits),
        columns=tuple(schema_of(record.columns, images=record.images).names), images=record.images, copy=True,
        changes={name: count for name, count in (record.since or {}).items() if name != "id"},
    )  # fmt: skip
    write_bytes(target, "README.md", readme(record.card, holding).encode())
    write_bytes(target, "croissant.json", croissant(record.card, holding).encode())
    record.write(target)
    remove(target / WORK, within=target)
