"""MDS, for MosaicML Streaming (see `capsfusion_etl.mds`)."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from capsfusion_etl.exports.formats.base import Format, ShardRecord, Written
from capsfusion_etl.exports.output import FileRecord, write_bytes, written
from capsfusion_etl.exports.shards import split_and_number
from capsfusion_etl.mds import Columns, decoded, encoded


class Mds(Format):
    """An MDS file for each shard, and an `index.json` in the folder of each split."""

    def write(self, target: Path, shard: str, rows: Iterable[pa.Table], schema: pa.Schema) -> Written:
        """Write an MDS file; see `Format`."""
        columns, count = Columns.plain(schema.names, binary=("image",)), 0

        def counted() -> Iterator[dict[str, Any]]:
            nonlocal count
            for table in rows:
                count += table.num_rows
                yield from table.to_pylist()

        with written(target, _file(shard)) as out:
            for part in encoded(counted(), columns):
                out.write(part)
        return Written((out.record(_file(shard)),), columns.told() | {"samples": count})

    def read(self, target: Path, shard: ShardRecord) -> Iterator[pa.Table]:
        """Yield the samples of an MDS file; see `Format`."""
        columns = Columns.of(shard.note)
        for row in decoded((target / _file(shard.name)).read_bytes(), columns, columns.names):
            yield pa.Table.from_pylist([{name: value or None for name, value in row.items()}])

    def finish(self, target: Path, shards: list[ShardRecord]) -> list[FileRecord]:
        """Write the index of each split; see `Format`."""
        made = []
        for split in dict.fromkeys(shard.split for shard in shards):
            told = [_told(shard) for shard in shards if shard.split == split and shard.files]
            text = json.dumps({"version": 2, "shards": told}, sort_keys=True)
            made.append(write_bytes(target, f"{split}/index.json", text.encode()))
        return made

    def paths(self, splits: Iterable[str]) -> dict[str, str]:
        """Return the patterns of the MDS files."""
        return {split: f"{split}/shard.*.mds" for split in splits}


def _file(shard: str) -> str:
    split, number = split_and_number(shard)
    return f"{split}/shard.{number}.mds"


def _told(shard: ShardRecord) -> dict[str, Any]:
    [file] = shard.files
    raw = {"basename": Path(file.path).name, "bytes": file.size, "hashes": {}}
    return shard.note | {"raw_data": raw, "zip_data": None}
