"""Cut a snapshot into shards: runs of Parquet row groups of about the same size."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import LOOKED_AT_AT_ONCE, DataFile, Manifest
from capsfusion_etl.storage import filesystem_of


@dataclass(frozen=True, slots=True)
class Part:
    """Row groups of one file of a snapshot: `first` up to, but not including, `end`."""

    file: str  # path within the table
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of an export, which one task writes.

    Attributes:
        number: its place among the shards of its split, from 0.
        split: train or held_out.
        rows: number of rows of the snapshot in it.
        parts: where they are.
    """

    number: int
    split: str
    rows: int
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Name of its files, without a suffix."""
        return shard_name(self.split, self.number)


def shard_name(split: str, number: int) -> str:
    """Return the name of a shard, which `split_and_number` takes apart."""
    return f"{split}-{number:05d}"


def split_and_number(name: str) -> tuple[str, str]:
    """Return the split of a shard and its number, as its name has it."""
    split, _, number = name.rpartition("-")
    return split, number


def cut(manifest: Manifest, size: int, *, images: bool = True) -> list[Shard]:
    """Cut a snapshot into shards; the same snapshot is always cut in the same way.

    Args:
        manifest: the snapshot.
        size: bytes from which a shard is full: those of its columns, as the Parquet files store them.
        images: whether the bytes of the pictures count.

    Raises:
        InputError: a file is missing or damaged.
    """
    with ThreadPoolExecutor(LOOKED_AT_AT_ONCE) as pool:
        found = list(pool.map(partial(_groups, manifest, images=images), manifest.files))
    splits = dict.fromkeys(file.split for file in manifest.files)
    return [shard for split in splits for shard in _of_split(split, size, manifest.files, found)]


def _of_split(
    split: str, size: int, files: Sequence[DataFile], found: Sequence[list[tuple[int, int]]]
) -> Iterator[Shard]:
    """Cut one split; `found` has the rows and bytes of the row groups of each file."""
    parts, rows, full, number = list[Part](), 0, 0, 0
    for file, groups in zip(files, found, strict=True):
        for at, (count, weight) in enumerate(groups if file.split == split else ()):
            if full >= size:
                yield Shard(number, split, rows, tuple(_joined(parts)))
                parts, rows, full, number = [], 0, 0, number + 1
            parts.append(Part(file.path, at, at + 1))
            rows, full = rows + count, full + weight
    if parts:
        yield Shard(number, split, rows, tuple(_joined(parts)))


def _joined(parts: list[Part]) -> Iterator[Part]:
    """Join the neighbours among parts of one row group each."""
    for file in dict.fromkeys(part.file for part in parts):
        of_file = [part for part in parts if part.file == file]
        yield Part(file, of_file[0].first, of_file[-1].end)


def _groups(manifest: Manifest, file: DataFile, *, images: bool) -> list[tuple[int, int]]:
    """Return the number of rows and the bytes of each row group of a file."""
    footer = _footer(manifest, file)
    names = footer.schema.to_arrow_schema().names
    counted = [names.index(name) for name in names if images or name != "image"]
    groups = (footer.row_group(at) for at in range(footer.num_row_groups))
    return [(g.num_rows, sum(g.column(c).total_compressed_size for c in counted)) for g in groups]


def _footer(manifest: Manifest, file: DataFile) -> pq.FileMetaData:
    try:
        files, path = filesystem_of(str(manifest.locate(file)))
        return pq.read_metadata(path, filesystem=files)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"snapshot {manifest.name}: {file.path} cannot be read: {error}") from None


def has_pictures(manifest: Manifest) -> bool:
    """Return whether a file of the snapshot has a picture.

    Raises:
        InputError: a file is missing or damaged.
    """
    for file in manifest.files:
        footer = _footer(manifest, file)
        column = footer.schema.to_arrow_schema().names.index("image")
        for group in map(footer.row_group, range(footer.num_row_groups)):
            found = group.column(column).statistics
            if found is None or not found.has_null_count or found.null_count < group.num_rows:
                return True
    return False
