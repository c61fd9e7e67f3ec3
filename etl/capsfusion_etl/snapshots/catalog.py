"""What can be done with a snapshot that was published: look at it, compare two, hold its files, check them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name
from capsfusion_etl.lake.run import Run
from capsfusion_etl.snapshots import holds
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import as_path
from capsfusion_etl.tables import literal

PUBLISHED, HELD, TAKEN_DOWN = "published", "held", "taken_down"


def overview(run: Run) -> list[dict[str, Any]]:
    """Every snapshot, oldest first, with `missing`: how many of its files are gone."""
    rows = run.lake.read("snapshots").orderBy("created_at").collect()
    return [row.asDict() | {"missing": len(manifest_of(row).missing())} for row in rows]


def hold(run: Run, name: str) -> Manifest:
    """Keep the files of a snapshot whatever happens to the table. Done twice it is done once.

    Raises:
        InputError: no such snapshot, or files of it are gone already.
    """
    manifest = find(run, name)
    holds.hold(manifest)
    set_state(run, name, HELD)
    return manifest


def release(run: Run, name: str) -> list[str]:
    """Let go of a hold; returns who still holds: if nobody does, the table's retention decides from now on.

    Raises:
        InputError: no such snapshot.
    """
    manifest = find(run, name)
    if holds.holders(manifest) in ([], [holds.PEOPLE]):
        set_state(run, name, PUBLISHED)
    return holds.release(manifest)


def set_state(run: Run, name: str, state: str) -> None:
    """Write the state of a snapshot into the table `snapshots`, if it is another one."""
    new, named = literal(state), literal(name)
    run.lake.spark.sql(f"UPDATE {run.lake.ref('snapshots')} SET state = {new} WHERE name = {named} AND state <> {new}")


def faults(run: Run, name: str) -> list[str]:
    """Read every file of a snapshot again: what is gone, and what has another size or content."""
    return find(run, name).verify()


@dataclass(frozen=True, slots=True)
class Difference:
    """From snapshot to snapshot: pairs in one only, and pairs whose caption is another; None where rows are gone."""

    added: int
    removed: int
    changed: int
    kept: int
    examples: tuple[tuple[str, str, str], ...]  # pair_id, caption before, caption now


def diff(run: Run, before: str, now: str, *, limit: int = 5) -> Difference:
    """Compare two snapshots row by row.

    Raises:
        InputError: no such snapshot, or files of it are gone.
    """
    old, new = (_rows(run, find(run, name)) for name in (before, now))
    both = old.withColumnRenamed("caption", "old").join(new.withColumnRenamed("caption", "new"), "pair_id", "full")
    is_new, is_gone = F.col("old").isNull(), F.col("new").isNull()
    other = F.col("old") != F.col("new")
    counts = both.agg(
        F.count_if(is_new).alias("added"),
        F.count_if(is_gone).alias("removed"),
        F.count_if(other).alias("changed"),
        F.count_if(F.col("old") == F.col("new")).alias("kept"),
    ).collect()[0]
    shown = both.where(other).orderBy("pair_id").limit(limit).collect() if counts["changed"] else []
    return Difference(**counts.asDict(), examples=tuple((r["pair_id"], r["old"], r["new"]) for r in shown))


def _rows(run: Run, manifest: Manifest) -> DataFrame:
    """pair_id and caption, from the very files of the snapshot."""
    gone = manifest.missing()
    if gone:
        raise InputError(f"snapshot {manifest.name} is broken: {_words(gone)}")
    try:
        return rows_of(run, manifest).select("pair_id", "caption")
    except PySparkException as error:
        raise InputError(f"snapshot {manifest.name} cannot be read: {str(error).splitlines()[0]}") from None


def rows_of(run: Run, manifest: Manifest) -> DataFrame:
    """Rows of training_pairs from the very files of a snapshot, held or in the table.

    Raises:
        PySparkException: a file is gone or damaged, here or when the rows are used.
    """
    return run.lake.spark.read.parquet(*(str(manifest.locate(file)) for file in manifest.files))


def _words(gone: Iterable[str]) -> str:
    names = list(gone)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} gone from the table: was it vacuumed?"


def draft_of(path: Path, run_id: str) -> Path:
    return path.with_name(f".{path.stem}.{run_id}.json")


def manifest_of(row: Row) -> Manifest:
    """The manifest of a row of `snapshots`; a kill may have left it under its draft's name.

    Raises:
        InputError: it is gone.
    """
    path = as_path(row["manifest"])
    draft = draft_of(path, row["run_id"])
    if draft.is_file():
        draft.rename(path)
    try:
        return Manifest.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the manifest of snapshot {row['name']} is gone: {error}") from None


def find(run: Run, name: str | None) -> Manifest:
    """The snapshot `name`, or the newest.

    Raises:
        InputError: there is none of that name, or none at all.
    """
    if name is not None:
        check_name(name, "snapshot")
    rows = run.lake.read("snapshots").orderBy(F.col("created_at").desc()).collect()
    for row in rows:
        if name in (None, row["name"]):
            return manifest_of(row)
    there = ", ".join(r["name"] for r in rows) or "none yet: `capsfusion publish` makes one"
    raise InputError(f"there is no snapshot {name or ''}; there are: {there}")
