"""The manifest of a snapshot: the files of a table version with sizes and hashes, and the result of the gate.

Needs no Spark: the trainer reads snapshots through it.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name, is_name
from capsfusion_etl.storage import as_path
from capsfusion_etl.tables import TRAINING_PAIRS

HASHED_AT_ONCE, LOOKED_AT_AT_ONCE = 4, 32  # files: the latter are requests without a body in object stores


@dataclass(frozen=True, slots=True)
class GateResult:
    """The result of the quality gate.

    Attributes:
        passed: whether the snapshot may be published.
        expectations: number of expectations that were checked.
        failures: one line for each failed expectation.
        report: where the report is.
        warnings: one line for each warning.
        checked_at: time of the check, UTC.
        profile: profile of the checked data, with which the next gate compares its own.
        suites: name of a suite -> whether it passed.
    """

    passed: bool
    expectations: int
    failures: tuple[str, ...]
    report: str
    warnings: tuple[str, ...] = ()
    checked_at: str = ""
    profile: dict[str, Any] = field(default_factory=dict)
    suites: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, data: dict[str, Any]) -> "GateResult":
        """Build a result from its `asdict` form, as parsed from JSON."""
        return cls(**(data | {k: tuple(data.get(k, ())) for k in ("failures", "warnings")}))


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a snapshot; all its rows belong to one split.

    Attributes:
        path: relative to the table.
        size: in bytes.
        sha256: in hex.
        rows: number of rows.
        split: train or held_out.
    """

    path: str
    size: int
    sha256: str
    rows: int
    split: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A pinned version of `training_pairs`, with the captions of one strategy.

    Attributes:
        name: name of the snapshot.
        table: folder or URL of the table.
        table_id: Delta's id of the table.
        version: Delta's version of the table.
        strategy: strategy of the captions.
        rows: number of rows of the strategy.
        columns: columns of the table, in order.
        files: the Parquet files of the strategy.
        gate: the result of the gate.
        at: where the table is now, if the lake was copied or moved since; not part of the manifest's text.
    """

    name: str
    table: str
    table_id: str
    version: int
    strategy: str
    rows: int
    columns: tuple[str, ...]
    files: tuple[DataFile, ...]
    gate: GateResult
    at: str | None = None

    def text(self) -> str:
        """Return the manifest as JSON with sorted keys, so that equal manifests have equal bytes."""
        told = asdict(self)
        del told["at"]
        return json.dumps(told, indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """Return the sha256 (hex) of `text()`."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        """Parse the JSON form of a manifest.

        Raises:
            InputError: `text` is not a manifest, or the path of a file leads out of the table.
        """
        try:
            data = json.loads(text)
            files = tuple(DataFile(**f) for f in data["files"])
            outside = next((f.path for f in files if not stays_within(f.path)), None)
            manifest = cls(
                **(data | {"files": files, "columns": tuple(data["columns"]), "gate": GateResult.of(data["gate"])})
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a snapshot manifest: {error}") from None
        if outside is not None:
            raise InputError(f"not a snapshot manifest: the file {outside!r} lies outside of its table")
        return manifest

    @property
    def folder(self) -> Path:
        """Folder of the table."""
        return as_path(self.at or self.table)

    @property
    def hold(self) -> Path:
        """Folder of the held files, outside of the table, so that no VACUUM visits it.

        Raises:
            InputError: the name of the snapshot is invalid, so it cannot be held.
        """
        return self.folder.parent / "_holds" / check_name(self.name, "snapshot")

    def locate(self, file: DataFile) -> Path:
        """Return the path of a file: of its held copy if it exists, else in the table."""
        held = self.hold / file.path if is_name(self.name) else None
        return held if held is not None and held.is_file() else self.folder / file.path

    def missing(self) -> list[str]:
        """Return the paths (within the table) of missing files."""
        return [file.path for file in self.files if not self.locate(file).is_file()]

    def verify(self, *, hashes: bool = True) -> list[str]:
        """Check that each file exists with the size and hash of the manifest.

        Args:
            hashes: whether to read the files and compare their sha256.

        Returns:
            One line for each faulty file; empty if all are unchanged.
        """
        threads = HASHED_AT_ONCE if hashes else LOOKED_AT_AT_ONCE
        with ThreadPoolExecutor(threads) as pool:
            faults = pool.map(lambda file: self.fault(file, hashes=hashes), self.files)
            return [fault for fault in faults if fault is not None]

    def fault(self, file: DataFile, *, hashes: bool = True) -> str | None:
        """Return what is wrong with one file (see `verify`), or None."""
        path = self.locate(file)
        if not path.is_file():
            return f"{file.path} is gone: was the table vacuumed?"
        if path.stat().st_size != file.size:
            return f"{file.path} has {path.stat().st_size} bytes, not {file.size}"
        if hashes and sha256_of(path) != file.sha256:
            return f"{file.path} has changed since it was published: its sha256 differs"
        return None


def sha256_of(path: Path) -> str:
    """Return the sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(location: str, table: DeltaTable, strategy: str) -> tuple[DataFile, ...]:
    """Return the files of one strategy, with sizes and hashes, sorted by split and path.

    Args:
        location: folder or URL of the table.
        table: the table at the version to describe.
        strategy: the strategy whose files are described.

    Raises:
        InputError: the trainer cannot read the files of the table (see `_check_plain`), or a file lies outside of it.
        OSError: a file is missing or cannot be read.
    """
    _check_plain(location, table)
    return tuple(_described(location, path, split) for split, path in files_of(table, strategy))


def files_of(table: DeltaTable, strategy: str) -> list[tuple[str, str]]:
    """Return split and path of the files of one strategy, sorted."""
    actions = pa.table(table.get_add_actions(flatten=True))
    names = ("path", "partition.strategy", "partition.split")
    files = zip(*(actions[name].to_pylist() for name in names), strict=True)
    return sorted((split, path) for path, part, split in files if part == strategy)


def _check_plain(location: str, table: DeltaTable) -> None:
    """Check that the Parquet files of a table say what the table says: the trainer reads them without Delta.

    Raises:
        InputError: the table has other partitions than ours, mapped columns, or deleted rows in its files.
    """
    settings, version = table.metadata().configuration, table.version()
    there = {column.name: str(getattr(column.type, "type", column.type)) for column in table.schema().fields}
    for name, kind in (("pair_id", "string"), ("image", "binary"), ("caption", "string")):
        if there.get(name) != kind:
            raise InputError(
                f"{location} is no table of training pairs: {name} must be {kind}, it is {there.get(name, 'missing')}"
            )
    if list(table.metadata().partition_columns) != list(TRAINING_PAIRS.partition_by):
        raise InputError(
            f"{location} is not partitioned by {', '.join(TRAINING_PAIRS.partition_by)}: `capsfusion publish` to "
            "another lake writes such a table"
        )
    if settings.get("delta.columnMapping.mode", "none") != "none":
        raise InputError(
            f"{location} has column mapping ({settings['delta.columnMapping.mode']}), so its files have other columns "
            "than the table: write it without (delta.columnMapping.mode=none)"
        )
    features = table.protocol().reader_features or ()
    if "deletionVectors" in features and table.deletion_vectors().read_all().num_rows:
        raise InputError(
            f"version {version} of {location} has deletion vectors, which the trainer does not apply: "
            f"run REORG TABLE delta.`{location}` APPLY (PURGE) and train on the version that this creates"
        )


def stays_within(path: str) -> bool:
    """Return whether `path` is relative and does not lead out of its folder."""
    return not path.startswith("/") and ":" not in path.partition("/")[0] and ".." not in path.split("/")


def _described(table: str, path: str, split: str) -> DataFile:
    if not stays_within(path):
        raise InputError(f"{table} refers to the outside file {path!r}: is it a shallow clone? Copy the whole table")
    full = as_path(table) / path
    try:
        with full.open("rb") as file:
            rows = pq.read_metadata(file).num_rows  # a table without statistics does not say
    except pa.ArrowException as error:
        raise InputError(f"{path} of {table} cannot be read: is it damaged? ({error})") from None
    return DataFile(path, full.stat().st_size, sha256_of(full), rows, split)
