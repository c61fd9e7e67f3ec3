"""Lance: one data set for each split. Its library chooses the names of its files, so only its rows are reproducible."""

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from capsfusion_etl.errors import InputError, MissingDependencyError
from capsfusion_etl.exports.formats.base import Format, ShardRecord, Written, typed
from capsfusion_etl.exports.output import FileRecord
from capsfusion_etl.exports.shards import split_and_number
from capsfusion_etl.storage import is_remote, remove


class Lance(Format):
    """The data set `train.lance` has the shards of a split as its fragments."""

    def write(self, target: Path, shard: str, rows: Iterable[pa.Table], schema: pa.Schema) -> Written:
        """Write a fragment, which is a part of the data set once `finish` has committed it; see `Format`."""
        where = _place(target, split_and_number(shard)[0])
        batches = (batch for table in rows for batch in table.cast(schema).to_batches())
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        made = _lance().fragment.write_fragments(reader, where, schema=schema, max_rows_per_file=2**31)
        files = [f"{Path(where).name}/data/{file.path}" for fragment in made for file in fragment.files]
        records = tuple(FileRecord(file, (target / file).stat().st_size, "") for file in files)
        return Written(records, {"fragments": [one.to_json() for one in made], "columns": schema.names})

    def read(self, target: Path, shard: ShardRecord) -> Iterator[pa.Table]:
        """Yield the rows of a fragment; see `Format`."""
        _lance()
        from lance.file import LanceFileReader

        for file in shard.files:
            try:
                batches = LanceFileReader(str(target / file.path)).read_all().to_batches()
            except OSError as error:  # so it tells of damage, too
                raise ValueError(f"{file.path}: {error}") from None
            yield from (pa.Table.from_batches([batch]) for batch in batches)

    def remove(self, target: Path, shard: ShardRecord) -> None:
        """Do nothing: `finish` commits a data set without the fragment first, and removes its file then."""

    def finish(self, target: Path, shards: list[ShardRecord]) -> list[FileRecord]:
        """Commit the fragments, and remove the files of others; see `Format`."""
        lance = _lance()
        for split in dict.fromkeys(shard.split for shard in shards):
            own = [shard for shard in shards if shard.split == split and shard.files]
            if not own:
                remove(target / f"{split}.lance", within=target)
                continue
            schema = typed(own[0].note["columns"])
            told = [json.dumps(one) for shard in own for one in shard.note["fragments"]]
            fragments = [lance.fragment.FragmentMetadata.from_json(one) for one in told]
            where = _place(target, split)
            made = lance.LanceDataset.commit(where, lance.LanceOperation.Overwrite(schema, fragments))
            made.cleanup_old_versions(timedelta(0), delete_unverified=True)
        return []

    def paths(self, splits: Iterable[str]) -> dict[str, str]:
        """Return the patterns of the data files."""
        return {split: f"{split}.lance/data/*.lance" for split in splits}


def _place(target: Path, split: str) -> str:
    if is_remote(str(target)):
        raise InputError("lance is exported to a folder on this machine, which you can copy to an object store")
    return str(target / f"{split}.lance")


def _lance() -> Any:
    try:
        import lance
        import lance.fragment
    except ImportError:
        raise MissingDependencyError("lance needs pylance: pip install 'capsfusion-lake[export]'") from None
    return lance
