"""SQL over a lake on this machine by DuckDB, which answers before Spark has started.

Queries are written in Spark's dialect (see `dialect`). What means something else in DuckDB is left to Spark.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from deltalake import DeltaTable

from capsfusion_etl.errors import CapsfusionError, InputError, RetryError, explain, first_line
from capsfusion_etl.lake.blocklist import NAMES, names_of
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.views import VIEWS
from capsfusion_etl.queries.grounding import GROUNDING, grounding
from capsfusion_etl.tables import TABLES, Table, plain_literal
from capsfusion_etl.tables.arrow import arrow_schema

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BATCH = 1_000  # rows
_MISSING = re.compile(r'Referenced column "(\w+)" not found')
_IMPLICIT = re.compile(r"col\d*|key|value|pos|_metadata", re.IGNORECASE)  # names that Spark gives without being asked
_TYPES = {"string": "VARCHAR", "double": "DOUBLE", "array<string>": "VARCHAR[]"}  # of the fields of GROUNDING


class NotHereError(CapsfusionError):
    """DuckDB cannot run a query on this lake; the message says why. Spark may."""


def ask(lake: Lake, query: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run a query; return the names of its columns and its rows. Times are in UTC, without a time zone.

    Raises:
        InputError: the query names a column that does not exist; also later, if a file cannot be read.
        NotHereError: the lake is not on this machine, or Spark has to run the query.
    """
    connection = connected(lake, TABLES)
    for name, (_, sql) in VIEWS.items():
        answered(connection, sql.format(**{table: table for table in TABLES}), into=f"VIEW {name}")
    return answered(connection, query)


def connected(lake: Lake, tables: Iterable[str]) -> "DuckDBPyConnection":
    """Return a connection to DuckDB that knows some tables of a lake by their names, and the functions of `sql`.

    Raises:
        NotHereError: the lake is not on this machine, DuckDB is not installed, or it cannot read a table.
    """
    if not lake.is_local:
        raise NotHereError("the lake is not on this machine")
    for library in ("duckdb", "sqlglot"):
        if find_spec(library) is None:
            raise NotHereError(f"{library} is not installed: pip install 'capsfusion-lake[etl]'")
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    try:
        for table in tables:
            _create_view(connection, lake, TABLES[table])
    except duckdb.Error as error:
        connection.close()
        raise NotHereError(first_line(str(error))) from None
    _register(connection)
    return connection


def answered(
    connection: "DuckDBPyConnection", query: str, *, into: str | None = None
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run a query as `ask` does, or create `into` from it, such as "VIEW name"."""
    import duckdb

    from capsfusion_etl.queries.dialect import translated

    create = f"CREATE {into} AS " if into else ""
    try:
        answer = connection.execute(create + translated(query))
    except duckdb.Error as error:
        missing = _MISSING.search(str(error))
        if missing and not _IMPLICIT.fullmatch(missing[1]):
            raise InputError(f"SQL: {first_line(str(error))}") from None
        raise NotHereError(first_line(str(error))) from None
    return [column[0] for column in answer.description or ()], _rows(answer)


def files_as(connection: "DuckDBPyConnection", name: str, files: Iterable[str], columns: Iterable[str]) -> None:
    """Create a view of some columns of Parquet files.

    Raises:
        InputError: a file is missing or damaged.
    """
    import duckdb

    listed = ", ".join(map(plain_literal, files))
    try:
        connection.execute(f"CREATE VIEW {name} AS SELECT {', '.join(columns)} FROM read_parquet([{listed}])")
        connection.execute(f"SELECT {', '.join(f'max({column})' for column in columns)} FROM {name}")
    except duckdb.Error as error:
        raise InputError(first_line(str(error))) from None


def save_partitioned(connection: "DuckDBPyConnection", query: str, folder: str, by: str) -> None:
    """Write the rows of a query as Parquet files: those of each value of the column `by` into the folder `by=value`.

    Raises:
        InputError: a file of a table is missing or damaged.
        OSError: the disk is full.
    """
    import duckdb

    from capsfusion_etl.queries.dialect import translated

    what = f"({translated(query)}) TO {plain_literal(folder)}"
    try:
        connection.execute(f"COPY {what} (FORMAT parquet, PARTITION_BY ({by}), OVERWRITE_OR_IGNORE)")
    except duckdb.Error as error:
        if isinstance(explain(error), RetryError):
            raise OSError(str(error)) from None
        raise InputError(f"the tables of this lake cannot be queried: {first_line(str(error))}") from None


def _rows(answer: "DuckDBPyConnection") -> Iterator[tuple[Any, ...]]:
    import duckdb

    try:
        while batch := answer.fetchmany(_BATCH):
            yield from batch
    except duckdb.Error as error:
        raise InputError(f"SQL: {first_line(str(error))}; --engine spark may tell more") from None


def _create_view(connection: "DuckDBPyConnection", lake: Lake, table: Table) -> None:
    """Create a view of a table, with the columns of the schema in their order."""
    stored = DeltaTable(lake.location(table.name))
    if stored.protocol().min_reader_version > 1:
        raise NotHereError(f"the table {table.name} has features that DuckDB does not know")
    if table.partition_by and "=" in lake.root:
        raise NotHereError("the path of the lake has a `=`, as the folders of partitions have")
    files = ", ".join(plain_literal(unquote(uri)) for uri in stored.file_uris())
    if files:
        hive = f"hive_partitioning = {'true' if table.partition_by else 'false'}, hive_types_autocast = false"
        source = f"read_parquet([{files}], {hive}, union_by_name = true)"
    else:
        source = f"empty_{table.name}"
        connection.register(source, arrow_schema(table).empty_table())
    names = (f"CAST({n} AS TIMESTAMP) AS {n}" if kind == "timestamp" else n for n, kind, _ in table.columns)
    connection.execute(f"CREATE VIEW {table.name} AS SELECT {', '.join(names)} FROM {source}")


def _register(connection: "DuckDBPyConnection") -> None:
    """Register the SQL functions that need no model."""
    from duckdb.func import SPECIAL
    from duckdb.sqltypes import DuckDBPyType

    from capsfusion_etl.queries.dialect import HOST, host_of

    fields = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in (part.split() for part in GROUNDING.split(", ")))
    text, found = DuckDBPyType("VARCHAR"), DuckDBPyType(f"STRUCT({fields})")
    connection.create_function("capsfusion_grounding", grounding, [text] * 3, found, null_handling=SPECIAL)
    connection.create_function(HOST, host_of, [text], text)
    connection.create_function(NAMES, names_of, [text], DuckDBPyType("VARCHAR[]"))
