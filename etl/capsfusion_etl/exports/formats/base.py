"""What a format of exports can do, and what several of them need."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from capsfusion_etl.exports.config import ALWAYS
from capsfusion_etl.exports.output import FileRecord
from capsfusion_etl.exports.shards import split_and_number
from capsfusion_etl.snapshots.manifest import stays_within

_GROUP = 2**26  # bytes
_NAME = re.compile(r"(train|held_out)-\d{5,}")
# How the files of pictures begin -> suffix.
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """A shard that is written.

    Attributes:
        name: its name.
        split: train or held_out.
        rows: number of rows that it has.
        files: its files; none if it has no rows.
        note: what the format needs to finish the export.
    """

    name: str
    split: str
    rows: int
    files: tuple[FileRecord, ...] = ()
    note: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names: a record may come from a stranger, and files are written and removed by it.

        Raises:
            ValueError: a name leads out of the export.
        """
        outside = next((file.path for file in self.files if not stays_within(file.path)), None)
        if outside is not None or not _NAME.fullmatch(self.name) or split_and_number(self.name)[0] != self.split:
            raise ValueError(f"a shard named {self.name!r} with the file {outside!r}")


class Format(Protocol):
    """Writes and reads the shards of an export. Rows are tables with ALWAYS, `image` if it has pictures, and others."""

    def write(self, target: Path, shard: str, rows: Iterable[pa.Table], schema: pa.Schema) -> "Written":
        """Write a shard; the file that names its rows appears last. Writing it again replaces it."""

    def read(self, target: Path, shard: ShardRecord) -> Iterator[pa.Table]:
        """Yield the rows of a shard."""

    def remove(self, target: Path, shard: ShardRecord) -> None:
        """Remove a shard, of which no pair is left; idempotent."""
        for file in shard.files:
            (target / file.path).unlink(missing_ok=True)

    def finish(self, target: Path, shards: list[ShardRecord]) -> list[FileRecord]:
        """Write the files that tell of all shards, such as an index; return them."""

    def paths(self, splits: Iterable[str]) -> dict[str, str]:
        """Return for each split the glob pattern of its files."""


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a shard, and what the format needs to finish the export."""

    files: tuple[FileRecord, ...]
    note: dict[str, Any] = field(default_factory=dict)


def schema_of(columns: Iterable[str], *, images: bool) -> pa.Schema:
    """Return the schema of the rows of an export with these columns beside ALWAYS."""
    return typed([*ALWAYS, *(["image"] if images else []), *columns])


def typed(names: Iterable[str]) -> pa.Schema:
    """Return the schema of these columns of an export: all but `image` are texts."""
    return pa.schema([(name, pa.binary() if name == "image" else pa.string()) for name in names])


def regrouped(rows: Iterable[pa.Table], size: int = _GROUP) -> Iterator[pa.Table]:
    """Join tables until they have `size` bytes."""
    parts, full = list[pa.Table](), 0
    for table in rows:
        parts, full = [*parts, table], full + table.nbytes
        if full >= size:
            yield pa.concat_tables(parts)
            parts, full = [], 0
    if parts:
        yield pa.concat_tables(parts)


def suffix_of(image: bytes) -> str:
    """Return the suffix of a file with this picture, by its first bytes."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    if image[4:12] in (b"ftypavif", b"ftypheic"):
        return image[8:12].decode()
    return next((suffix for magic, suffix in _MAGIC if image.startswith(magic)), "img")


def told(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of a row that go into JSON: all that have a value, but for the picture."""
    return {name: value for name, value in row.items() if name != "image" and value is not None}
