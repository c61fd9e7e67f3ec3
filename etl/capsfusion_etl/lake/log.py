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
from capsfusion_etl.tables import VERSION, VERSION_PROPERTY, Table
from capsfusion_etl.tables.arrow import arrow_schema, batch_of_rows

_COMMIT = re.compile(r"\d{20}\.json")


def newest_version(location: str) -> int | None:
    """Return the newest version of the table at `location`, or None if there is none."""
    commits = [file.name for file in _log(location).glob("*.json") if _COMMIT.fullmatch(file.name)]
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
        values = ", ".join(map(_literal, among))
        query += f" WHERE {f'starts_with({column}, {_literal(prefix)})' if prefix else f'{column} IN ({values})'}"
    # Not through pyarrow's datasets: their threads abort some processes that end soon afterwards.
    found = QueryBuilder().register("stored", stored).execute(query).read_all()
    rows: list[dict[str, Any]] = pa.table(found).to_pylist()
    return rows


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


def append_rows(location: str, table: Table, rows: Sequence[tuple[object, ...]], *, app_id: str, version: int) -> None:
    """Append a few rows to a table in a folder on this machine, once for each (app_id, version)."""
    stored = DeltaTable(location)
    written = stored.transaction_version(app_id)
    if written is not None and written >= version:
        return
    names = [name for name, _, _ in table.columns]
    batch = batch_of_rows(arrow_schema(table), [dict(zip(names, row, strict=True)) for row in rows])
    once = CommitProperties(app_transactions=[Transaction(app_id, version)])
    write_deltalake(stored, pa.Table.from_batches([batch]), mode="append", commit_properties=once)


def _literal(text: str) -> str:
    """Return `text` as a string literal of DataFusion, which knows no escapes but a doubled quote."""
    return "'" + text.replace("'", "''") + "'"


def _log(location: str) -> Path:
    return Path(location) / "_delta_log"
