"""The manifest of a snapshot: files of a table version with sizes and hashes, and the gate that let it pass.

Pure but for reading files: `trainer` reads a snapshot through it, without Spark.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from capsfusion_etl.errors import InputError
from capsfusion_etl.ids import check_name, is_name
from capsfusion_etl.storage import as_path


@dataclass(frozen=True, slots=True)
class GateResult:
    """Verdict of the quality gate; `failures` and `warnings` in words, `report` is where people read more.

    `checked_at`: when, UTC. `profile`: the shape of what was looked at, which the next gate compares with.
    `suites`: each suite that was asked, and whether it passed.
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
        """From what `asdict` made of one, by JSON."""
        return cls(**(data | {k: tuple(data.get(k, ())) for k in ("failures", "warnings")}))


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a snapshot: path within the table, bytes, sha256, rows, all of one split."""

    path: str
    size: int
    sha256: str
    rows: int
    split: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A pinned version of `training_pairs`, its captions of one strategy. `table` is its folder or URL."""

    name: str
    table: str
    table_id: str
    version: int
    strategy: str
    rows: int
    columns: tuple[str, ...]
    files: tuple[DataFile, ...]
    gate: GateResult

    def text(self) -> str:
        """JSON with sorted keys: equal manifests are equal bytes."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """Hash of `text()`."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        """The manifest in `text`.

        Raises:
            InputError: it is none.
        """
        try:
            data = json.loads(text)
            files = tuple(DataFile(**f) for f in data["files"])
            outside = next((f.path for f in files if not _stays_within(f.path)), None)
            manifest = cls(
                **(data | {"files": files, "columns": tuple(data["columns"]), "gate": GateResult.of(data["gate"])})
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a snapshot manifest: {error}") from None
        if outside is not None:
            raise InputError(f"not a snapshot manifest: the file {outside!r} lies outside of its table")
        return manifest

    @property
    def hold(self) -> Path:
        """Folder of the files of a held snapshot: outside of the table, so that no VACUUM goes there.

        Raises:
            InputError: the snapshot has no valid name, so that it cannot be held.
        """
        return as_path(self.table).parent / "_holds" / check_name(self.name, "snapshot")

    def locate(self, file: DataFile) -> Path:
        """Where a file is: held, or in the table."""
        held = self.hold / file.path if is_name(self.name) else None
        return held if held is not None and held.is_file() else as_path(self.table) / file.path

    def missing(self) -> list[str]:
        """Files that are gone."""
        return [file.path for file in self.files if not self.locate(file).is_file()]

    def verify(self, *, hashes: bool = True) -> list[str]:
        """What is wrong with the files, one line each; empty if all are as they were when published."""
        faults = []
        for file in self.files:
            path = self.locate(file)
            if not path.is_file():
                faults.append(f"{file.path} is gone: was the table vacuumed?")
            elif path.stat().st_size != file.size:
                faults.append(f"{file.path} has {path.stat().st_size} bytes, not {file.size}")
            elif hashes and sha256_of(path) != file.sha256:
                faults.append(f"{file.path} has other content than when it was published")
        return faults


def sha256_of(path: Path) -> str:
    """sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(table: str, actions: Any, strategy: str) -> tuple[DataFile, ...]:
    """Files of one strategy within `table`, by split and path.

    Args:
        actions: what `DeltaTable.get_add_actions(flatten=True)` says; the table is partitioned by strategy and split.

    Raises:
        InputError: the table refers to files outside of itself, as a shallow clone does.
        OSError: a file is gone.
    """
    names = ("path", "num_records", "partition.strategy", "partition.split")
    files = zip(*(actions[name].to_pylist() for name in names), strict=True)
    mine = sorted((split, path, rows) for path, rows, part, split in files if part == strategy)
    return tuple(_described(table, path, rows, split) for split, path, rows in mine)


def _stays_within(path: str) -> bool:
    """Is this a relative path that does not lead out of its folder?"""
    return not path.startswith("/") and "://" not in path and ".." not in path.split("/")


def _described(table: str, path: str, rows: int, split: str) -> DataFile:
    if not _stays_within(path):
        raise InputError(f"{table} holds the file {path!r} of another table: is it a shallow clone? Copy it whole")
    full = as_path(table) / path
    return DataFile(path, full.stat().st_size, sha256_of(full), rows, split)
