"""`export.json`: what an export is made of. It is written last, so that an export with it is complete."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.formats.base import ShardRecord
from capsfusion_etl.exports.output import FileRecord, write_bytes
from capsfusion_etl.snapshots.manifest import sha256_of, stays_within

NAME = "export.json"
INDEX = "_index"  # folder with the index of each shard; readers of tables skip names with an underscore
GONE = "removed.parquet"  # pairs of an earlier export that are gone or changed


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """An export: of what, as what, and its files.

    Attributes:
        id: sha256 of what was asked for: equal exports have equal ids.
        form: format of the shards.
        columns: columns beside those that are always there.
        images: whether it has the pictures.
        snapshot: its name, manifest_sha256, table_id, version, strategy, rows.
        shards: its shards.
        files: other files with data.
        card: the facts of the data card.
        since: id of the earlier export that it follows, and how many pairs were added, changed, removed and taken_down.
        applied: ids of the exports of changes that were applied to it, in order.
    """

    id: str
    form: str
    columns: tuple[str, ...]
    images: bool
    snapshot: dict[str, Any]
    shards: tuple[ShardRecord, ...]
    files: tuple[FileRecord, ...]
    card: dict[str, Any]
    since: dict[str, Any] | None = None
    applied: tuple[str, ...] = field(default=())

    @property
    def state(self) -> str:
        """Id of the newest export that its pairs are those of."""
        return self.applied[-1] if self.applied else self.id

    @property
    def rows(self) -> int:
        """Number of exported pairs."""
        return sum(shard.rows for shard in self.shards)

    def faults(self, folder: Path) -> list[str]:
        """Return what is wrong with the files of an export on this machine: a line for each that is gone or differs."""
        faults = []
        for file in (*(file for shard in self.shards for file in shard.files), *self.files):
            if not (folder / file.path).is_file():
                faults.append(f"{file.path} is gone")
            elif not is_as_recorded(folder, file):
                faults.append(f"{file.path} differs from {NAME}")
        return faults

    def write(self, target: Path) -> None:
        """Write `export.json`."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_bytes(target, NAME, text.encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an `export.json`.

        Raises:
            InputError: the file is missing, or is none.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            shards = tuple(shard_of(shard) for shard in data["shards"])
            files = tuple(FileRecord(**file) for file in data["files"])
            if outside := [file.path for file in files if not stays_within(file.path)]:
                raise ValueError(f"the file {outside[0]!r} lies outside of it")
            tuples = {name: tuple(data[name]) for name in ("columns", "applied")}
            return cls(**(data | tuples | {"shards": shards, "files": files}))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}; is the export complete?") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the {NAME} of an export: {error}") from None


def is_as_recorded(folder: Path, file: FileRecord) -> bool:
    """Return whether a file of an export has the recorded size and, if one was recorded, the hash."""
    path = folder / file.path
    same = path.is_file() and path.stat().st_size == file.size
    return same and (not file.sha256 or sha256_of(path) == file.sha256)


def shard_of(data: dict[str, Any]) -> ShardRecord:
    """Return a shard from its form in JSON."""
    return ShardRecord(**(data | {"files": tuple(FileRecord(**file) for file in data["files"])}))
