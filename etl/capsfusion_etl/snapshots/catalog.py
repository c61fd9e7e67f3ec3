"""Operations on published snapshots: list, compare, hold, release and verify them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.run import Run
from capsfusion_etl.queries import Queries
from capsfusion_etl.snapshots import holds
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import as_path
from capsfusion_etl.tables import literal

PUBLISHED, HELD, TAKEN_DOWN = "published", "held", "taken_down"


def recorded(lake: Lake) -> list[dict[str, Any]]:
    """Return the rows of `snapshots`, oldest first."""
    return sorted(lake.rows("snapshots"), key=lambda row: row["created_at"])


def overview(run: Run) -> list[dict[str, Any]]:
    """Return the rows of `snapshots`, oldest first, with `missing`, the number of missing files.

    Raises:
        InputError: a manifest cannot be read.
    """
    return [row | {"missing": len(manifest_of(run.lake, row).missing())} for row in recorded(run.lake)]


def hold(run: Run, name: str) -> Manifest:
    """Keep the files of a snapshot from VACUUM, for the holder `holds.PEOPLE`, and mark it as held. Idempotent.

    Raises:
        InputError: the snapshot does not exist, or files of it are missing.
    """
    manifest = find(run, name)
    holds.hold(manifest)
    set_state(run, name, HELD)
    return manifest


def release(run: Run, name: str) -> list[str]:
    """Release the hold of `holds.PEOPLE` on a snapshot.

    Returns:
        The remaining holders. Without any, the files are subject to the table's retention again.

    Raises:
        InputError: the snapshot does not exist.
    """
    manifest = find(run, name)
    if holds.holders(manifest) in ([], [holds.PEOPLE]):
        set_state(run, name, PUBLISHED)
    return holds.release(manifest)


def set_state(run: Run, name: str, state: str) -> None:
    """Write the state of a snapshot to the table `snapshots`, if it differs; taken_down stays."""
    new, named, last = literal(state), literal(name), literal(TAKEN_DOWN)
    where = f"name = {named} AND state NOT IN ({new}, {last})"
    run.lake.spark.sql(f"UPDATE {run.lake.ref('snapshots')} SET state = {new} WHERE {where}")


def faults(run: Run, name: str) -> list[str]:
    """Check the size and hash of every file of a snapshot; return the faults (see `Manifest.verify`)."""
    return find(run, name).verify()


def rows_of(run: Run, manifest: Manifest) -> DataFrame:
    """Return the rows of a snapshot from its own files, held or in the table.

    Raises:
        PySparkException: a file is missing or damaged; raised here or when the rows are used.
    """
    return run.lake.spark.read.parquet(*(str(manifest.locate(file)) for file in manifest.files))


def as_table(ask: Queries, name: str, manifest: Manifest, *columns: str) -> None:
    """Let queries use some columns of a snapshot, from its own files, as the table `name`.

    Raises:
        InputError: a file is missing or damaged.
    """
    try:
        ask.read(name, [str(manifest.locate(file)) for file in manifest.files], *columns)
    except InputError as error:
        raise InputError(f"snapshot {manifest.name} cannot be read: {error}") from None


def draft_of(path: Path, run_id: str) -> Path:
    return path.with_name(f".{path.stem}.{run_id}.json")


def path_of(lake: Lake, row: Mapping[str, Any]) -> Path:
    """Return the path of the manifest of a row of `snapshots`: in this lake, also if it was copied or moved."""
    return as_path(row["manifest"]) if lake.in_catalog else lake.folder / "snapshots" / f"{row['name']}.json"


def manifest_of(lake: Lake, row: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a row of `snapshots`; if a killed run left it under its draft name, rename it first.

    Raises:
        InputError: the file cannot be read, or is not a manifest.
    """
    path = path_of(lake, row)
    draft = draft_of(path, row["run_id"])
    if draft.is_file():
        draft.rename(path)
    try:
        manifest = Manifest.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the manifest of snapshot {row['name']}: {error}") from None
    return manifest if lake.in_catalog else replace(manifest, at=lake.location("training_pairs"))


def find(run: Run, name: str | None) -> Manifest:
    """Return the manifest of the snapshot `name`, or of the newest one if `name` is None.

    Raises:
        InputError: `name` is not a valid name, or the snapshot does not exist.
    """
    if name is not None:
        check_name(name, "snapshot")
    rows = recorded(run.lake)[::-1]
    for row in rows:
        if name in (None, row["name"]):
            return manifest_of(run.lake, row)
    there = ", ".join(r["name"] for r in rows) or "none yet (`capsfusion publish` creates one)"
    raise InputError(f"there is no snapshot {name or ''}; there are: {there}")
