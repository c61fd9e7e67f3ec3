"""Sources that other libraries stored: data sets that Hugging Face's `datasets` saved to disk, and MDS shards."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_schema

from capsfusion_etl.errors import InputError
from capsfusion_etl.mds import SPARK_TYPES, Columns, decoded
from capsfusion_etl.stages.ingest.columns import Group
from capsfusion_etl.stages.ingest.files import listed, of_each
from capsfusion_etl.storage import filesystem_of
from capsfusion_etl.tables.arrow import ROWS_WITH_IMAGES, batches_of_rows

_CODECS = {"zstd": "zstd", "gz": "gzip", "bz2": "bz2", "br": "brotli"}  # of MDS -> of pyarrow
_SCALARS = {"string": T.StringType(), "binary": T.BinaryType(), "bigint": T.LongType(), "double": T.DoubleType()}


def stored_layout(root: str) -> str | None:
    """Return the layout of a folder of stored shards, huggingface or mds; None if it is none of them."""
    names = [name.rpartition("/")[2] for name in listed(root)]
    if "state.json" in names and any(name.endswith(".arrow") for name in names):
        return "huggingface"
    found = "index.json" in names and any(".mds" in name for name in names)
    return "mds" if found else None


def read_stored(spark: SparkSession, layout: str, root: str) -> tuple[list[Group], dict[str, str]]:
    """Read stored shards; a task reads one file.

    Args:
        spark: the session.
        layout: huggingface or mds.
        root: path or URL of the folder.

    Returns:
        The rows with the same columns each, and the columns that cannot be read, with their types.

    Raises:
        InputError: there are no shards, or one cannot be read.
    """
    names = listed(root)
    if layout == "huggingface":
        found = _arrow_files(names)
        schemas = of_each(_arrow_schema, found)
    else:
        shards = [shard for name in names if name.endswith("index.json") for shard in _mds_shards(name)]
        found, schemas = [json.dumps(shard) for shard in shards], [_mds_schema(shard) for shard in shards]
    if not found:
        raise InputError(f"{root} has no shards of the layout {layout}")
    groups, left_out = list[Group](), dict[str, str]()
    for schema in dict.fromkeys(json.dumps(one) for one, _ in schemas):
        own = [item for item, (one, _) in zip(found, schemas, strict=True) if json.dumps(one) == schema]
        kind = T.StructType.fromJson(json.loads(schema))
        work = partial(_batches, items=own, kind=kind, read=_arrow_rows if layout == "huggingface" else _mds_rows)
        rows = spark.range(0, len(own), 1, len(own)).mapInArrow(work, kind)
        groups.append(Group(_name_of(own[0]), rows))
    for _, unread in schemas:
        left_out |= unread
    return groups, left_out


def _arrow_files(names: list[str]) -> list[str]:
    """Return the files that each `state.json` lists: beside them may lie caches of `map`, which have the rows again."""
    found = []
    for state in (name for name in names if name.endswith("/state.json")):
        try:
            with _opened(state) as file:
                listed_there = [one["filename"] for one in json.loads(file.read())["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read {state}: {error}") from None
        found += [f"{state.rpartition('/')[0]}/{name}" for name in listed_there]
    return found


def _name_of(item: str) -> str:
    return str(json.loads(item)["file"]) if item.startswith("{") else item


def _batches(
    ids: Iterator[pa.RecordBatch], items: Sequence[str], kind: T.StructType, read: Any
) -> Iterator[pa.RecordBatch]:
    schema = to_arrow_schema(kind)
    for batch in ids:
        for item in map(items.__getitem__, batch.column("id").to_pylist()):
            try:
                yield from read(item, schema)
            except (OSError, pa.ArrowInvalid, ValueError) as error:
                raise InputError(f"cannot read {_name_of(item)}: is it damaged? ({error})") from None


def _arrow_schema(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the columns of an Arrow file that Spark can have, as Spark's schema in JSON, and the others."""
    try:
        with _opened(name) as file, pa.ipc.open_stream(file) as reader:
            schema = reader.schema
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {name}: is it damaged? ({error})") from None
    fields, left_out = [], dict[str, str]()
    for field in schema:
        try:
            fields.append(T.StructField(field.name, from_arrow_type(field.type)))
        except (PySparkException, TypeError):
            left_out[field.name] = str(field.type)
    return T.StructType(fields).jsonValue(), left_out


def _arrow_rows(name: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with _opened(name) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            rows = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            yield from rows.to_batches(max_chunksize=ROWS_WITH_IMAGES)


def _mds_shards(index: str) -> list[dict[str, Any]]:
    """Return the shards in an index, each with the path of its `file`."""
    try:
        with _opened(index) as file:
            shards = json.loads(file.read())["shards"]
        folder = index.rpartition("/")[0]
        return [
            shard | {"file": f"{folder}/{(shard['zip_data'] or shard['raw_data'])['basename']}"}
            for shard in shards
            if shard["format"] == "mds"
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index} is not an index of MDS: {error}") from None


def _mds_schema(shard: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        columns = dict(zip(shard["column_names"], shard["column_encodings"], strict=True))
    except (KeyError, ValueError) as error:
        raise InputError(f"the index of {shard['file']} does not describe its columns: {error}") from None
    fields = [T.StructField(n, _SCALARS[SPARK_TYPES[kind]]) for n, kind in columns.items() if kind in SPARK_TYPES]
    return T.StructType(fields).jsonValue(), {n: kind for n, kind in columns.items() if kind not in SPARK_TYPES}


def _mds_rows(item: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    shard = json.loads(item)
    packing = (shard["compression"] or "").partition(":")[0]
    if packing and packing not in _CODECS:
        raise InputError(f"{shard['file']} is packed by {packing}, which is not read: unpack it")
    files, path = filesystem_of(shard["file"])
    with files.open_input_stream(path, compression=_CODECS.get(packing)) as file:
        data = file.read()
    yield from batches_of_rows(schema, decoded(data, Columns.of(shard), schema.names))


def _opened(name: str) -> pa.NativeFile:
    files, path = filesystem_of(name)
    if files.get_file_info(path).type != fs.FileType.File:
        raise OSError("there is no such file")
    return files.open_input_file(path)
