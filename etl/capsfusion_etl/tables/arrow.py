"""Arrow schemas of the tables, and the record batches that Python workers return, built by column."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from capsfusion_etl.tables import LEDGER, Table

ROWS_WITH_IMAGES = 64  # in a record batch, so that it fits into memory
_STRINGS = pa.list_(pa.string())
_BETWEEN_COLUMNS = re.compile(r",\s*(?![^<]*>)")
_KINDS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "array<string>": _STRINGS,
    "array<bigint>": pa.list_(pa.int64()),
    "map<string, string>": pa.map_(pa.string(), pa.string()),
    LEDGER: pa.struct(
        [
            ("kept", _STRINGS), ("lost", _STRINGS), ("invented_numbers", _STRINGS), ("invented_names", _STRINGS),
            ("recall", pa.float64()), ("unsupported", _STRINGS), ("embellished", _STRINGS),
        ]
    ),
}  # fmt: skip


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of `table`, with its columns in order."""
    return pa.schema([(name, _KINDS[kind]) for name, kind, _ in table.columns])


def schema_of(ddl: str) -> pa.Schema:
    """Return the Arrow schema of a Spark schema string such as `pair_id string, keys array<bigint>`."""
    columns = (part.strip().split(" ", 1) for part in _BETWEEN_COLUMNS.split(ddl))
    return pa.schema([(name, _KINDS[kind]) for name, kind in columns])


def batch_of(schema: pa.Schema, rows: int, /, **columns: Any) -> pa.RecordBatch:
    """Build a record batch.

    Args:
        schema: the columns and their order.
        rows: number of rows.
        columns: for each column an Arrow array, a list, or one value for all rows; for a struct a list of its fields.
            Half of a surrogate pair in a string becomes U+FFFD.
    """
    return pa.RecordBatch.from_arrays([_array(columns[f.name], rows, f.type) for f in schema], schema=schema)


def batch_of_rows(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Build a record batch, as `batch_of` does, of rows given as dicts from column to value; a missing one is null."""
    columns = {field.name: [row.get(field.name) for row in rows] for field in schema}
    return batch_of(schema, len(rows), **columns)


def batches_of_rows(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    """Yield record batches of up to ROWS_WITH_IMAGES rows."""
    left = iter(rows)
    while part := list(islice(left, ROWS_WITH_IMAGES)):
        yield batch_of_rows(schema, part)


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return type(value)(_valid(item) for item in value)
    return {_valid(k): _valid(v) for k, v in value.items()} if isinstance(value, dict) else value


def _array(values: Any, rows: int, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return pa.repeat(pa.scalar(values, kind), rows)
    if pa.types.is_struct(kind):
        fields = [_array(v, rows, kind.field(i).type) for i, v in enumerate(values)]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array(_valid(values), kind)
