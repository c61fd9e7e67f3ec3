"""Arrow schemas of the tables, for the batches that Python workers send back."""

import pyarrow as pa

from capsfusion_etl.tables import LEDGER, Table

_STRINGS = pa.list_(pa.string())
_KINDS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "binary": pa.binary(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "map<string, string>": pa.map_(pa.string(), pa.string()),
    LEDGER: pa.struct(
        [
            ("kept", _STRINGS), ("lost", _STRINGS), ("invented_numbers", _STRINGS), ("invented_names", _STRINGS),
            ("recall", pa.float64()),
        ]
    ),
}  # fmt: skip


def arrow_schema(table: Table) -> pa.Schema:
    """The columns of `table` in Arrow, in their order."""
    return pa.schema([(name, _KINDS[kind]) for name, kind, _ in table.columns])
