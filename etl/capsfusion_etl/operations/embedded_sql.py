"""SQL over a lake on this machine by DuckDB, which answers before Spark has started.

Queries are written in Spark's dialect; sqlglot translates them. What cannot be translated, or has no counterpart in
DuckDB, is left to Spark.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deltalake import DeltaTable

from capsfusion_etl.errors import CapsfusionError, InputError, first_line
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.views import VIEWS
from capsfusion_etl.operations.grounding import GROUNDING, grounding
from capsfusion_etl.tables import TABLES, Table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlglot.expressions import Expr

_BATCH = 1_000  # rows
_TYPES = {
    "string": "VARCHAR", "binary": "BLOB", "int": "INTEGER", "timestamp": "TIMESTAMP",
    "map<string, string>": "MAP(VARCHAR, VARCHAR)", "array<string>": "VARCHAR[]", "array<bigint>": "BIGINT[]",
}  # fmt: skip


class NotHereError(CapsfusionError):
    """DuckDB cannot run a query on this lake; the message says why. Spark may."""


def ask(lake: Lake, query: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run a query; return the names of its columns and its rows. Times are in UTC, without a time zone.

    Raises:
        InputError: the query names a column that does not exist.
        NotHereError: the lake is not on this machine, or Spark has to run the query.
    """
    if not lake.is_local:
        raise NotHereError("the lake is not on this machine")
    try:
        import duckdb
        import sqlglot  # noqa: F401  used below
    except ModuleNotFoundError as error:
        raise NotHereError(f"{error.name} is not installed: pip install 'capsfusion-lake[etl]'") from None

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES.values():
        connection.execute(_view(lake, table))
    for name, (_, sql) in VIEWS.items():
        text = sql.format(**{table: table for table in TABLES})
        connection.execute(f"CREATE VIEW {name} AS {_translated(text)}")
    _register(connection)
    try:
        answer = connection.execute(_translated(query))
    except duckdb.BinderException as error:
        if "not found in FROM clause" in str(error):
            raise InputError(f"SQL: {first_line(str(error))}") from None
        raise NotHereError(first_line(str(error))) from None
    except duckdb.Error as error:
        raise NotHereError(first_line(str(error))) from None
    return [column[0] for column in answer.description or ()], _rows(answer)


def _rows(answer: "DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    while batch := answer.fetchmany(_BATCH):
        yield from batch


def _view(lake: Lake, table: Table) -> str:
    """Return the statement that creates a view of a table, with the columns of the schema in their order."""
    stored = DeltaTable(lake.location(table.name))
    if stored.protocol().min_reader_version > 1:
        raise NotHereError(f"the table {table.name} has features that DuckDB does not know")
    files = stored.file_uris()
    if files:
        listed = ", ".join(_literal(file) for file in files)
        options = "hive_partitioning = true, hive_types_autocast = false, union_by_name = true"
        names = (f"CAST({n} AS TIMESTAMP) AS {n}" if kind == "timestamp" else n for n, kind, _ in table.columns)
        return f"CREATE VIEW {table.name} AS SELECT {', '.join(names)} FROM read_parquet([{listed}], {options})"
    empty = (f"CAST(NULL AS {_type(kind)}) AS {name}" for name, kind, _ in table.columns)
    return f"CREATE VIEW {table.name} AS SELECT {', '.join(empty)} WHERE false"


def _type(kind: str) -> str:
    """Return DuckDB's name of a type of Spark."""
    if not kind.startswith("struct<"):
        return _TYPES.get(kind, kind)
    fields = (field.split(":", 1) for field in kind.removeprefix("struct<").removesuffix(">").split(", "))
    return f"STRUCT({', '.join(f'{name.strip()} {_type(of.strip())}' for name, of in fields)})"


def _translated(query: str) -> str:
    """Return a query of Spark's dialect in DuckDB's.

    Raises:
        NotHereError: it is not a single query, or uses what DuckDB lacks.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        statements = sqlglot.parse(query, read="spark")
        if len(statements) != 1 or not isinstance(statements[0], sqlglot.exp.Query):
            raise NotHereError("this is not a single SELECT")
        changed = statements[0].transform(_host)
        return str(changed.sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE))
    except SqlglotError as error:
        raise NotHereError(first_line(str(error))) from None


def _host(node: "Expr") -> "Expr":
    """Replace `parse_url(url, 'HOST')`, which DuckDB lacks, by a function of ours."""
    from sqlglot import exp

    if isinstance(node, exp.ParseUrl) and node.args["part_to_extract"].name == "HOST":
        return exp.Anonymous(this="capsfusion_host", expressions=[node.this])
    return node


def _host_of(url: str) -> str | None:
    """Return the host of `url` as `parse_url` does, in the case in which it is written."""
    try:
        place = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return None
    return re.sub(r":\d*$", "", place) or None


def _register(connection: "DuckDBPyConnection") -> None:
    """Register the SQL functions that need no model (see `udfs.register`)."""
    from duckdb.func import SPECIAL
    from duckdb.sqltypes import DuckDBPyType

    kinds = ", ".join(part.replace(" ", ":", 1) for part in GROUNDING.split(", "))
    text, found = DuckDBPyType("VARCHAR"), DuckDBPyType(_type(f"struct<{kinds}>"))
    connection.create_function("capsfusion_grounding", grounding, [text] * 3, found, null_handling=SPECIAL)
    connection.create_function("capsfusion_host", _host_of, [text], text)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
