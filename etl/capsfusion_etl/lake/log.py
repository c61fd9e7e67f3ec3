"""The Delta log of a table, read and written without Spark, which runs several queries for each of these steps.

The log has a file `<version>.json` of 20 digits for each commit; its lines are actions, one of which is `commitInfo`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, QueryBuilder, Schema, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import as_path, is_remote
from capsfusion_etl.tables import VERSION, VERSION_PROPERTY, Table, plain_literal
from capsfusion_etl.tables.arrow import arrow_schema, batch_of_rows

SMALL_BYTES = 2**20  # size of the files of a table up to which reading it here is faster than a query in Spark
_COMMIT = re.compile(r"\d{20}\.json")


def newest_version(location: str) -> int | None:
    """Return the newest version of the table at `location`, or None if there is none."""
    folder = _log(location)
    if is_remote(location):
        folder.fs.invalidate_cache()  # type: ignore[attr-defined]  # it keeps listings and would miss commits
    commits = [file.name for file in folder.glob("*.json") if _COMMIT.fullmatch(file.name)]
    return int(max(commits)[:20]) if commits else None


def last_metrics(location: str) -> dict[str, int]:
    """Return the operation metrics of the newest commit, under Delta's names; empty if it has none."""
    version = newest_version(location)
    if version is None:
        return {}
    text = (_log(location) / f"{version:020d}.json").read_text(encoding="utf-8")
    actions = (json.loads(line) for line in text.splitlines() if '"commitInfo"' in line)
    found: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    return {name: int(value) for name, value in found.get("operationMetrics", {}).items() if str(value).isdigit()}


def properties(location: str) -> dict[str, str]:
    """Return the properties of a table in a folder on this machine."""
    return dict(DeltaTable(location).metadata().configuration)


def read_rows(
    location: str, version: int | None, columns: Sequence[str], column: str | None, among: Sequence[str], prefix: str
) -> list[dict[str, Any]]:
    """Return the `columns` of the rows whose `column` is one of `among`, or begins with `prefix`; of all rows if None.

    Raises:
        InputError: the stored table lacks columns.
        DeltaProtocolError: only Spark can read this table.
    """
    try:
        stored = DeltaTable(location, version=version)
    except TableNotFoundError:
        raise InputError(f"there is no table at {location}") from None
    missing = sorted(set(columns) - {field.name for field in stored.schema().fields})
    if missing:
        raise InputError(f"the table {Path(location).name} has no {', '.join(missing)}")
    names = ", ".join(f'"{name}"' for name in columns)
    query = f"SELECT {names} FROM stored"
    if column is not None:
        values = ", ".join(map(plain_literal, among))
        query += f" WHERE {f'starts_with({column}, {plain_literal(prefix)})' if prefix else f'{column} IN ({values})'}"
    rows: list[dict[str, Any]] = _asked(stored, query).to_pylist()
    return rows


def small_table(location: str, version: int | None, schema: pa.Schema) -> pa.Table | None:
    """Return all rows of a table on this machine; None if it is not small, has other columns or is for Spark alone."""
    stored = DeltaTable(location, version=version)
    there = {field.name: field.type for field in stored.schema().fields}
    same = all(there.get(field.name) == field.type for field in Schema.from_arrow(schema).fields)
    if not same or stored.protocol().min_reader_version > 1 or _size(stored) > SMALL_BYTES:
        return None
    names = ", ".join(f'"{name}"' for name in schema.names)
    return _asked(stored, f"SELECT {names} FROM stored").cast(schema)


def create_table(location: str, table: Table) -> None:
    """Create an empty table in a folder on this machine, if there is none."""
    fields = Schema.from_arrow(arrow_schema(table)).fields
    comments = {name: comment for name, _, comment in table.columns}
    described = [Field(f.name, f.type, nullable=True, metadata={"comment": comments[f.name]}) for f in fields]
    DeltaTable.create(
        location,
        Schema(described),
        mode="ignore",
        partition_by=list(table.partition_by) or None,
        description=table.comment,
        raise_if_key_not_exists=False,
        configuration={VERSION_PROPERTY: VERSION, "delta.dataSkippingStatsColumns": table.indexed()},
    )


def append_rows(location: str, rows: pa.Table, *, app_id: str, version: int) -> None:
    """Append a few rows to a table in a folder on this machine, once for each (app_id, version)."""
    stored = DeltaTable(location)
    written = stored.transaction_version(app_id)
    if written is not None and written >= version:
        return
    once = CommitProperties(app_transactions=[Transaction(app_id, version)])
    write_deltalake(stored, rows, mode="append", commit_properties=once)


def insert_new(location: str, rows: pa.Table, key: Sequence[str]) -> None:
    """Insert the rows whose key is not in a table on this machine; if there are none, make no new version."""
    on = " AND ".join(f"t.{name} = s.{name}" for name in key)
    merge = DeltaTable(location).merge(rows, on, source_alias="s", target_alias="t")
    merge.when_not_matched_insert_all().execute()


def replace_rows(location: str, rows: pa.Table, column: str, value: str) -> None:
    """Replace the rows whose `column` is `value` by a few rows, in one commit to a table on this machine."""
    condition = f"{column} = {plain_literal(value)}"
    write_deltalake(DeltaTable(location), rows, mode="overwrite", predicate=condition)


def arrow_rows(table: Table, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    """Return rows, given as tuples in the order of the columns, as an Arrow table."""
    names = [name for name, _, _ in table.columns]
    return pa.Table.from_batches(
        [batch_of_rows(arrow_schema(table), [dict(zip(names, row, strict=True)) for row in rows])]
    )


def size(location: str) -> int:
    """Return the size in bytes of the files of a table on this machine."""
    return _size(DeltaTable(location))


def _size(stored: DeltaTable) -> int:
    return sum(pa.table(stored.get_add_actions())["size_bytes"].to_pylist())


def count_rows(location: str, column: str, value: str) -> int:
    """Return the number of rows whose `column` is `value`."""
    query = f"SELECT count(*) AS n FROM stored WHERE {column} = {plain_literal(value)}"
    return int(_asked(DeltaTable(location), query)["n"][0].as_py())


def is_empty(location: str, version: int | None) -> bool:
    """Return whether a table in a folder on this machine has no files, and so no rows."""
    return not DeltaTable(location, version=version).file_uris()


def has_values(location: str, version: int | None, column: str) -> bool:
    """Return whether a column of a table on this machine has values, or may have, if its statistics are incomplete."""
    files = pa.table(DeltaTable(location, version=version).get_add_actions(flatten=True))
    nulls = f"null_count.{column}"
    if nulls not in files.column_names:
        return bool(files.num_rows)
    both = zip(files["num_records"].to_pylist(), files[nulls].to_pylist(), strict=True)
    return any(rows is None or empty is None or rows > empty for rows, empty in both)


def is_plain(location: str) -> bool:
    """Return whether the table has no feature, such as deletion vectors, that needs a newer protocol than ours."""
    protocol = DeltaTable(location).protocol()
    return bool(protocol.min_reader_version == 1 and protocol.min_writer_version <= 2)


def _asked(stored: DeltaTable, query: str) -> pa.Table:
    """Return the result of a query on the table `stored`."""
    # Not through pyarrow's datasets: their threads abort some processes that end soon afterwards.
    return pa.table(QueryBuilder().register("stored", stored).execute(query).read_all())


def _log(location: str) -> Path:
    return as_path(location) / "_delta_log"
