"""The lake: Delta tables in a folder, in an object store or in a catalog schema, and the ways in which jobs write them.

Every write is idempotent: a MERGE on the key, an append with a Delta transaction id, or a replacement of the rows in a
scope. Only the DataFrame and SQL APIs are used, because the code must also run on Spark Connect.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

from deltalake.exceptions import DeltaProtocolError
from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake import log
from capsfusion_etl.lake.stored import Stored
from capsfusion_etl.tables import TABLES


class Lake(Stored):
    """The tables of one lake, to read and write.

    Args:
        spark: a session with Delta, or a function that starts one when it is needed.
        root: a folder, a URL, or the name of a schema in a catalog, as `catalog.schema`.

    Attributes:
        versions: version of a table to read instead of the newest.
    """

    def __init__(self, spark: SparkSession | Callable[[], SparkSession], root: str) -> None:
        super().__init__(spark, root)
        self.versions: dict[str, int] = {}
        self._overridden: dict[str, DataFrame] = {}

    def read(self, table: str) -> DataFrame:
        """Return the newest version of a table, or the pinned one, with the columns of the schema in their order.

        Raises:
            InputError: the stored table lacks columns of the schema.
        """
        if table in self._overridden:
            return self._overridden[table]
        at = f" VERSION AS OF {self.versions[table]}" if table in self.versions else ""
        rows = self.spark.sql(f"SELECT * FROM {self.ref(table)}{at}")
        wanted = [name for name, _, _ in TABLES[table].columns]
        missing = sorted(set(wanted) - set(rows.columns))
        if missing:
            raise InputError(f"the table {table} has no {', '.join(missing)}; it has {', '.join(rows.columns)}")
        return rows.select(*wanted)

    def rows(
        self,
        table: str,
        column: str | None = None,
        *,
        among: Sequence[str] = (),
        prefix: str = "",
        without: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Return a few rows as dicts: those whose `column` is one of `among`, or begins with `prefix`; by default all.

        Rows of a table on this machine are read without Spark, unless the table has features that only Spark knows.

        Args:
            without: columns to leave out, such as the bytes of images.
        """
        columns = [name for name, _, _ in TABLES[table].columns if name not in without]
        if self.is_local and table not in self._overridden:
            with suppress(DeltaProtocolError):
                return log.read_rows(self.location(table), self.versions.get(table), columns, column, among, prefix)
        rows = self.read(table).select(*columns)
        if column is not None:
            rows = rows.where(F.col(column).startswith(prefix) if prefix else F.col(column).isin(*among))
        return [row.asDict() for row in rows.collect()]

    def pinned(self, *tables: str) -> "Lake":
        """Return this lake with `tables` pinned to their current versions, so that later writes are not visible."""
        return self.at({table: self.version(table) for table in tables if table not in self.versions})

    def at(self, versions: dict[str, int]) -> "Lake":
        """Return this lake with the tables in `versions` pinned to these versions."""
        lake = copy(self)
        lake.versions = self.versions | versions
        return lake

    def with_rows(self, table: str, rows: DataFrame) -> "Lake":
        """Return this lake with `rows` instead of the stored rows of `table`; for dry runs, which write nothing."""
        lake = copy(self)
        lake._overridden = self._overridden | {table: rows}
        return lake

    def append(self, table: str, rows: DataFrame, *, app_id: str, version: int) -> None:
        """Append `rows` once: a second append with the same (app_id, version) is a no-op, also after a crash.

        Args:
            table: name of the table.
            rows: the columns of the table, in any order; others are dropped.
            app_id: Delta's transaction application id (`txnAppId`), one for each unit of work.
            version: Delta's transaction version (`txnVersion`).
        """
        rows = rows.select(*(name for name, _, _ in TABLES[table].columns))
        writer = rows.write.format("delta").mode("append").option("txnAppId", app_id).option("txnVersion", version)
        self._save(writer, table)

    def record(self, table: str, rows: Sequence[tuple[object, ...]], *, app_id: str, version: int = 0) -> None:
        """Append a few rows, given as tuples in the order of the columns, once (see `append`)."""
        if self.is_local:
            log.append_rows(self.location(table), TABLES[table], rows, app_id=app_id, version=version)
        else:
            frame = self.spark.createDataFrame(rows, TABLES[table].schema())
            self.append(table, frame, app_id=app_id, version=version)

    def insert_new(self, table: str, rows: DataFrame) -> None:
        """MERGE: insert the rows whose key is not in the table; if there are none, Delta creates no new version."""
        on = " AND ".join(f"t.{k} = s.{k}" for k in TABLES[table].key)
        self._with_view(
            rows.select(*(name for name, _, _ in TABLES[table].columns)),
            f"MERGE INTO {self.ref(table)} t USING {{view}} s ON {on} WHEN NOT MATCHED THEN INSERT *",
        )

    def update(self, table: str, rows: DataFrame) -> int:
        """MERGE: update the stored rows with the keys of `rows`; do nothing if `rows` is empty.

        Returns:
            The number of rows in `rows`.
        """
        key = TABLES[table].key
        count = rows.count()
        if count:
            on = " AND ".join(f"t.{k} = s.{k}" for k in key)
            self._with_view(
                rows, f"MERGE INTO {self.ref(table)} t USING {{view}} s ON {on} WHEN MATCHED THEN UPDATE SET *"
            )
        return count

    def delete(self, table: str, rows: DataFrame, *, on: str = "t.pair_id = s.pair_id") -> int:
        """MERGE: delete the rows of a table (alias t) that match `rows` (alias s) by the condition `on`.

        A join instead of a list of ids, because Delta's history stores the condition and would keep the deleted ids.

        Returns:
            The number of deleted rows.
        """
        if rows.isEmpty():
            return 0
        statement = f"MERGE INTO {self.ref(table)} t USING {{view}} s ON {on} WHEN MATCHED THEN DELETE"
        return int(self._with_view(rows, statement)["num_deleted_rows"])

    def settle(
        self,
        table: str,
        rows: DataFrame,
        *,
        scope: str,
        compare: tuple[str, ...],
        row_group: int | None = None,
    ) -> bool:
        """Replace the rows within `scope` by `rows`, if they differ.

        Args:
            table: name of the table.
            rows: all rows that the scope should have.
            scope: SQL condition on a key column (Delta's `replaceWhere`).
            compare: the columns to compare; rows that differ only in other columns count as equal.
            row_group: most rows of a Parquet row group; None means the default of Parquet.

        Returns:
            Whether it wrote.
        """
        old = self.read(table).where(scope).select(*compare, F.lit(-1).alias("balance"))
        both = old.unionByName(rows.select(*compare, F.lit(1).alias("balance")))
        if both.groupBy(*compare).agg(F.sum("balance").alias("balance")).where("balance <> 0").isEmpty():
            return False
        rows = rows.select(*(name for name, _, _ in TABLES[table].columns))
        writer = rows.write.format("delta").mode("overwrite").option("replaceWhere", scope)
        with self._row_groups(row_group):
            self._save(writer, table)
        return True

    def _save(self, writer: DataFrameWriter, table: str) -> None:
        if self.in_catalog:
            writer.saveAsTable(self.location(table))
        else:
            writer.save(self.location(table))

    @contextmanager
    def _row_groups(self, rows: int | None) -> Iterator[None]:
        # A session setting, because Delta does not pass Parquet options of a writer on.
        key = "parquet.block.row.count.limit"
        if rows is not None:
            self.spark.conf.set(key, str(rows))
        try:
            yield
        finally:
            self.spark.conf.unset(key)

    def _with_view(self, rows: DataFrame, statement: str) -> Row:
        # A view instead of DeltaTable.merge, which needs the Python package of Delta on the cluster.
        view = "capsfusion_source"
        rows.createOrReplaceTempView(view)
        try:
            return self.spark.sql(statement.format(view=view)).collect()[0]
        finally:
            self.spark.catalog.dropTempView(view)
