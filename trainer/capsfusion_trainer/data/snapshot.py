"""Read the rows of a pinned snapshot through its manifest, without Spark: exactly the files that the gate checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import pyarrow as pa
import pyarrow.parquet as pq
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import DataFile, Manifest
from capsfusion_etl.storage import filesystem_of


@dataclass(frozen=True, slots=True)
class Sample:
    """One training pair; `image` is the bytes as fetched, or None. A table that others wrote may lack a caption."""

    pair_id: str
    image: bytes | None
    caption: str | None


class Split:
    """Rows of one split of a snapshot. Row groups are read on demand; workers receive a split by pickle."""

    def __init__(self, manifest: Manifest, name: str) -> None:
        self.snapshot = manifest.name
        self.files: list[DataFile] = [file for file in manifest.files if file.split == name]
        self.rows = sum(file.rows for file in self.files)
        self._paths = [str(manifest.locate(file)) for file in self.files]
        self._start()

    def _start(self) -> None:
        # Weak: all readers share one copy of a row group, which is freed with its last reader.
        self._tables: WeakValueDictionary[tuple[int, int], pa.Table] = WeakValueDictionary()
        self._opened = lru_cache(maxsize=512)(self._open)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_tables", "_opened")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._start()

    def has_images(self) -> bool:
        """Return whether the first file has images: they are fetched for a whole lake or not at all."""
        if not self.files:
            return False
        footer = self._opened(0).metadata
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        column = footer.schema.to_arrow_schema().names.index("image")
        found = [(g.num_rows, g.column(column).statistics) for g in groups]
        return any(s is None or not s.has_null_count or s.null_count < rows for rows, s in found)

    @property
    def file_rows(self) -> list[int]:
        """Number of rows of each file."""
        return [file.rows for file in self.files]

    def groups(self, file: int) -> Sequence[int]:
        """Return the number of rows of each row group of a file.

        Raises:
            InputError: The file is missing or unreadable, or its number of rows is not the manifest's.
        """
        footer = self._opened(file).metadata
        rows = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        if sum(rows) != self.files[file].rows:
            raise self._broken(file, f"has {sum(rows)} rows, not {self.files[file].rows}")
        return rows

    def table(self, file: int, group: int) -> pa.Table:
        """Return pair_id, image and caption of a row group.

        Raises:
            InputError: The file is missing or unreadable.
        """
        found = self._tables.get((file, group))
        if found is None:
            try:
                found = self._opened(file).read_row_group(group, columns=["pair_id", "image", "caption"])
            except (OSError, pa.ArrowInvalid) as error:
                raise self._broken(file, f"cannot be read: {error}") from None
            self._tables[file, group] = found
        return found

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of some columns for every row, file by file, without reading the images."""
        for file in range(len(self.files)):
            table = self._opened(file).read(columns=[*names])
            yield from zip(*(table.column(name).to_pylist() for name in names), strict=True)

    def __iter__(self) -> Iterator[Sample]:
        """Yield every row, file by file."""
        for file in range(len(self.files)):
            for group, rows in enumerate(self.groups(file)):
                table = self.table(file, group)
                yield from (self.sample(table, row) for row in range(rows))

    def sample(self, table: pa.Table, row: int) -> Sample:
        """Return one row of a row group that `table` returned."""
        pair_id, image, caption = (table.column(i)[row].as_py() for i in range(3))
        return Sample(pair_id, image, caption)

    def _open(self, file: int) -> pq.ParquetFile:
        try:
            files, path = filesystem_of(self._paths[file])
            return pq.ParquetFile(path, filesystem=files)
        except FileNotFoundError:
            raise self._broken(file, "is gone: was the table vacuumed?") from None
        except (OSError, pa.ArrowInvalid) as error:
            raise self._broken(file, f"cannot be read: {error}") from None

    def _broken(self, file: int, what: str) -> InputError:
        return InputError(f"snapshot {self.snapshot}: {self.files[file].path} {what}")


class SortedSplit(Split):
    """A split held in memory as one file, ordered by pair_id: the same pairs are then always at the same places."""

    _GROUP = 128  # rows

    @property
    def file_rows(self) -> list[int]:
        """Number of rows of the one file."""
        return [self.rows]

    def _start(self) -> None:
        super()._start()
        self._sorted: pa.Table | None = None

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in super().__getstate__().items() if name != "_sorted"}

    def groups(self, file: int) -> Sequence[int]:
        """Return the number of rows of each part that `table` returns."""
        return [min(self._GROUP, self.rows - start) for start in range(0, self.rows, self._GROUP)]

    def table(self, file: int, group: int) -> pa.Table:
        """Return pair_id, image and caption of some rows; see `Split.table`."""
        if self._sorted is None:
            parts = []
            for at in range(len(self.files)):
                for part in range(len(super().groups(at))):
                    parts.append(super().table(at, part))
            rows = pa.concat_tables(parts)
            large = rows.schema.set(1, pa.field("image", pa.large_binary()))  # more than 2 GiB of images
            self._sorted = rows.cast(large).sort_by("pair_id")
        return self._sorted.slice(group * self._GROUP, self._GROUP)
