"""Write one shard: what a task of an export does."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from capsfusion_etl.exports.config import INDEXED
from capsfusion_etl.exports.formats import format_of
from capsfusion_etl.exports.formats.base import ShardRecord, Written, schema_of
from capsfusion_etl.exports.output import WORK, FileRecord, write_bytes, written
from capsfusion_etl.exports.record import INDEX
from capsfusion_etl.exports.rows import Rows
from capsfusion_etl.storage import as_path


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to write: into which folder or URL, as which format, and its rows."""

    to: str
    form: str
    rows: Rows


def write_shard(task: Task) -> str:
    """Write a shard and its index, and return its record as JSON; one that is written already is not written again.

    Raises:
        InputError: a file of the snapshot is missing or damaged.
        OSError: the disk is full, or the store cannot be reached.
    """
    target, name = as_path(task.to), task.rows.shard.name
    done = target / WORK / "done" / f"{name}.json"
    if done.is_file():
        return done.read_text(encoding="utf-8")
    index, counted = list[pa.Table](), [0]

    def chosen() -> Iterator[pa.Table]:
        for whole, rows in task.rows.batches():
            index.append(whole.select(list(INDEXED)))
            counted[0] += rows.num_rows
            if rows.num_rows:
                yield rows

    rows = chosen()
    first = next(rows, None)
    schema, files = schema_of(task.rows.columns, images=task.rows.images), Written(())
    if first is not None:
        files = format_of(task.form).write(target, name, chain([first], rows), schema)
    write_index(target, name, pa.concat_tables(index))
    record = ShardRecord(name, task.rows.shard.split, counted[0], files.files, files.note)
    text = json.dumps(asdict(record))
    write_bytes(target, f"{WORK}/done/{name}.json", text.encode())
    return text


def write_index(target: Path, name: str, rows: pa.Table) -> FileRecord:
    """Write the index of a shard: its pairs with INDEXED."""
    with written(target, f"{INDEX}/{name}.parquet") as out:
        pq.write_table(rows, out, compression="zstd")
    return out.record(f"{INDEX}/{name}.parquet")
