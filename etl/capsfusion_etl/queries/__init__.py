"""Queries in SQL over the tables of a lake: by DuckDB, which needs no JVM, if it can read the lake, else by Spark.

`embedded_sql` is the side of DuckDB, `dialect` what Spark's dialect and DuckDB's have in common. The functions of ours
that queries may call need no model: `capsfusion_grounding` and `capsfusion_takedown_names`.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from capsfusion_etl.errors import InputError, first_line
from capsfusion_etl.lake.blocklist import NAMES, names_udf
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.queries.embedded_sql import NotHereError, answered, connected, files_as, save_partitioned
from capsfusion_etl.spark.persist import persisted
from capsfusion_etl.storage import as_path, is_remote
from capsfusion_etl.tables.arrow import schema_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from pyspark.sql import DataFrame


class Queries(Protocol):
    """Runs several queries over the same tables, in what Spark's dialect and DuckDB's have in common."""

    def define(self, name: str, query: str, *, once: bool = False) -> None:
        """Let later queries use the result of `query` as the table `name`; with `once`, keep it in memory."""

    def read(self, name: str, files: Sequence[str], *columns: str) -> None:
        """Let later queries use some columns of Parquet files as the table `name`.

        Raises:
            InputError: a file is missing or damaged.
        """

    def give(self, name: str, schema: str, parts: Sequence[Any], read: Callable[[Any], pa.Table]) -> None:
        """Let later queries use, as the table `name`, the rows that `read` returns for each of `parts`.

        Args:
            name: name of the table.
            schema: its columns, as a Spark schema string.
            parts: what `read` is called with: by one task each, where Spark runs the queries.
            read: a function that can be pickled.
        """

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query as dicts; a struct is a dict, too."""

    def save(self, query: str, folder: str, by: str) -> None:
        """Write the rows of a query as Parquet files: those of each value of the column `by` into `by=value`."""


@contextmanager
def queries(lake: Lake, *tables: str, by_spark: bool = False) -> Iterator[Queries]:
    """Yield what runs queries over `tables` of a lake: DuckDB, or Spark where DuckDB cannot read it, or if asked."""
    with ExitStack() as stack:
        found: Queries
        try:
            if by_spark:
                raise NotHereError("Spark was asked for")
            found = _ByDuckDB(stack.enter_context(connected(lake, tables)))
        except NotHereError:
            found = _BySpark(lake, tables, stack)
        yield found


class _ByDuckDB:
    def __init__(self, connection: "DuckDBPyConnection") -> None:
        self._connection = connection

    def define(self, name: str, query: str, *, once: bool = False) -> None:
        self._answered(query, into=f"{'TABLE' if once else 'VIEW'} {name}")

    def read(self, name: str, files: Sequence[str], *columns: str) -> None:
        files_as(self._connection, name, files, columns)

    def give(self, name: str, schema: str, parts: Sequence[Any], read: Callable[[Any], pa.Table]) -> None:
        kind = schema_of(schema)
        batches = (batch for part in parts for batch in read(part).cast(kind).to_batches())
        self._connection.register("given", pa.RecordBatchReader.from_batches(kind, batches))
        self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
        self._connection.unregister("given")

    def rows(self, query: str) -> list[dict[str, Any]]:
        columns, rows = self._answered(query)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def save(self, query: str, folder: str, by: str) -> None:
        if not is_remote(folder):
            save_partitioned(self._connection, query, folder, by)
            return
        with tempfile.TemporaryDirectory() as here:
            save_partitioned(self._connection, query, here, by)
            for file in (path for path in Path(here).rglob("*") if path.is_file()):
                (as_path(folder) / file.relative_to(here).as_posix()).write_bytes(file.read_bytes())

    def _answered(self, query: str, into: str | None = None) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        try:
            return answered(self._connection, query, into=into)
        except NotHereError as error:  # our own queries suit DuckDB: a file is damaged, or memory is short
            raise InputError(f"the tables of this lake cannot be queried: {error}") from None


class _BySpark:
    def __init__(self, lake: Lake, tables: tuple[str, ...], stack: ExitStack) -> None:
        self._spark, self._stack = lake.spark, stack
        self._spark.udf.register(NAMES, names_udf())
        for table in tables:
            self._view(table, lake.read(table))

    def define(self, name: str, query: str, *, once: bool = False) -> None:
        self._view(name, self._stack.enter_context(persisted(self._spark.sql(query))))

    def read(self, name: str, files: Sequence[str], *columns: str) -> None:
        from pyspark.errors import PySparkException

        try:
            rows = self._spark.read.parquet(*files).select(*columns)
            rows.agg(dict.fromkeys(columns, "max")).collect()  # a damaged file fails here
        except PySparkException as error:
            raise InputError(first_line(str(error))) from None
        self._view(name, rows)

    def give(self, name: str, schema: str, parts: Sequence[Any], read: Callable[[Any], pa.Table]) -> None:
        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for part in map(parts.__getitem__, batch.column("id").to_pylist()):
                    yield from read(part).to_batches()

        # A task each; `mapInArrow` fails on no partition at all.
        rows = self._spark.range(0, len(parts), 1, max(1, len(parts))).mapInArrow(work, schema)
        self._view(name, self._stack.enter_context(persisted(rows)))

    def rows(self, query: str) -> list[dict[str, Any]]:
        return [row.asDict(recursive=True) for row in self._spark.sql(query).collect()]

    def save(self, query: str, folder: str, by: str) -> None:
        rows = self._spark.sql(query)
        # With its scheme: a cluster may have another default than its own disk.
        place = folder if is_remote(folder) else Path(folder).absolute().as_uri()
        rows.repartition(by).write.partitionBy(by).mode("overwrite").parquet(place)

    def _view(self, name: str, frame: "DataFrame") -> None:
        frame.createOrReplaceTempView(name)
        self._stack.callback(self._spark.catalog.dropTempView, name)
