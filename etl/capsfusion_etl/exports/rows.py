"""The rows of a shard: from the files of the snapshot, with columns of other tables beside them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from capsfusion_etl.errors import InputError
from capsfusion_etl.exports.config import ALWAYS
from capsfusion_etl.exports.shards import Shard
from capsfusion_etl.storage import filesystem_of
from capsfusion_etl.tables import TRAINING_PAIRS


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of a shard come from.

    Attributes:
        shard: the shard.
        paths: for each of its parts the path or URL of the file, in the table or held.
        strategy: strategy of the captions.
        columns: other columns that are exported.
        images: whether the pictures are.
        beside: folder of the Parquet files with these other columns; None: there are none.
        chosen: whether only the pairs that are there are exported: those that changed since an earlier export.
    """

    shard: Shard
    paths: tuple[str, ...]
    strategy: str
    columns: tuple[str, ...]
    images: bool
    beside: str | None = None
    chosen: bool = False

    def batches(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yield for each row group all its rows without pictures, and the rows to export.

        Raises:
            InputError: a file is missing or damaged.
        """
        beside = self._beside()
        for part, path in zip(self.shard.parts, self.paths, strict=True):
            try:
                files, within = filesystem_of(path)
                with pq.ParquetFile(within, filesystem=files) as parquet:
                    for group in range(part.first, part.end):
                        wanted = [n for n in (*ALWAYS, "image") if self.images or n != "image"]
                        there = [name for name in wanted if name not in TRAINING_PAIRS.partition_by]
                        rows = self._ordered(parquet.read_row_group(group, columns=there), wanted)
                        yield rows.drop_columns(["image"]) if self.images else rows, self._joined(rows, beside)
            except (OSError, pa.ArrowInvalid) as error:
                raise InputError(f"cannot read {part.file} of the snapshot: {error}") from None

    def _ordered(self, rows: pa.Table, names: list[str]) -> pa.Table:
        """Add the columns by which the table is partitioned, which its files do not have."""
        same = {"strategy": self.strategy, "split": self.shard.split}
        for name, value in same.items():
            rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
        return rows.select(names)

    def _joined(self, rows: pa.Table, beside: pa.Table | None) -> pa.Table:
        if beside is None:
            return rows
        at = pc.index_in(rows["pair_id"], beside["pair_id"])
        if self.chosen:
            there = at.is_valid()
            rows, at = rows.filter(there), at.filter(there)
        found = beside.take(at)
        for name in self.columns:
            rows = rows.append_column(name, _as_text(found[name]))
        return rows

    def _beside(self) -> pa.Table | None:
        if self.beside is None:
            return None
        files, within = filesystem_of(self.beside)
        names = ["pair_id", *self.columns]
        if files.get_file_info(within).type == fs.FileType.NotFound:
            if not self.chosen:
                raise InputError(f"{self.beside} is gone: remove the unfinished export, and begin again")
            # No pair of this shard was chosen.
            return pa.table({name: pa.array([], pa.string()) for name in names})
        return ds.dataset(within, filesystem=files, format="parquet").to_table(columns=names)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts; structs and maps become JSON."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.string())
    return pa.chunked_array([pa.array([_json(value) for value in column.to_pylist()], pa.string())])


def _json(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(dict(value) if isinstance(value, list) else value, ensure_ascii=False, sort_keys=True)
