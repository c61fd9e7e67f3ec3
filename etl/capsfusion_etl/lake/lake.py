"""The lake: Delta tables in a folder, in an object store or in a catalog schema, and the ways in which jobs write them.

Every write is idempotent: a MERGE on the key, an append with a Delta transaction id, or a replacement of the rows in a
scope. Only the DataFrame and SQL APIs are used, because the code must also run on Spark Connect. A few rows of a table
on this machine are written without Spark, which would run several queries for each commit.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
from pyspark.sql import DataFrame, DataFrameWriter, Row
from pyspark.sql import functions as F

from capsfusion_etl.lake import log
from capsfusion_etl.lake.reading import Readable
from capsfusion_etl.tables import TABLES, literal
from capsfusion_etl.tables.arrow import arrow_schema

SEARCHED = 2**26  # bytes of a table up to which this process looks for keys as fast as Spark
FEW = 2_000  # rows that the driver can hold; on this machine it also writes them faster than Spark does


class Lake(Readable):
    """The tables of one lake, to read and write (see `Readable`)."""

    def append(self, table: str, rows: DataFrame, *, app_id: str, version: int = 0, at_most: int | None = None) -> None:
        """Append `rows` once: a second append with the same (app_id, version) is a no-op, also after a crash.

        Args:
            table: name of the table.
            rows: the columns of the table, in any order; others are dropped.
            app_id: Delta's transaction application id (`txnAppId`), one for each unit of work.
            version: Delta's transaction version (`txnVersion`).
            at_most: an upper bound of the number of rows, if one is known.
        """
        rows = rows.select(*(name for name, _, _ in TABLES[table].columns))
        if self._writes_few(table, at_most):
            few = self._collected(table, rows)
            log.append_rows(self.location(table), few, app_id=app_id, version=version)
            return
        writer = rows.write.format("delta").mode("append").option("txnAppId", app_id).option("txnVersion", version)
        self._save(writer, table)

    def record(self, table: str, rows: Sequence[tuple[object, ...]], *, app_id: str, version: int = 0) -> None:
        """Append a few rows, given as tuples in the order of the columns, once (see `append`)."""
        if self._is_plain(table):
            few = log.arrow_rows(TABLES[table], rows)
            log.append_rows(self.location(table), few, app_id=app_id, version=version)
        else:
            self.append(table, self._frame(table, rows), app_id=app_id, version=version)

    def _writes_few(self, table: str, at_most: int | None) -> bool:
        if at_most is None or at_most > FEW or any(kind == "binary" for _, kind, _ in TABLES[table].columns):
            return False
        return self._takes_arrow and self._is_plain(table)

    def _collected(self, table: str, rows: DataFrame) -> pa.Table:
        return rows.toArrow().cast(arrow_schema(TABLES[table]))

    def _is_plain(self, table: str) -> bool:
        return self.is_local and log.is_plain(self.location(table))

    def _frame(self, table: str, rows: Sequence[tuple[object, ...]]) -> DataFrame:
        return self.spark.createDataFrame(rows, TABLES[table].schema())

    def insert_new(self, table: str, rows: DataFrame, *, at_most: int | None = None) -> None:
        """MERGE: insert the rows whose key is not in the table; if there are none, Delta creates no new version.

        Args:
            table: name of the table.
            rows: the columns of the table, in any order; others are dropped.
            at_most: an upper bound of the number of rows, if one is known.
        """
        rows = rows.select(*(name for name, _, _ in TABLES[table].columns))
        if self._writes_few(table, at_most) and log.size(self.location(table)) <= SEARCHED:
            log.insert_new(self.location(table), self._collected(table, rows), TABLES[table].key)
            return
        on = " AND ".join(f"t.{k} = s.{k}" for k in TABLES[table].key)
        self._with_view(
            rows,
            f"MERGE INTO {self.ref(table)} t USING {{view}} s ON {on} WHEN NOT MATCHED THEN INSERT *",
        )

    def insert_few(self, table: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Do as `insert_new` does, with a few rows that are given as tuples in the order of the columns."""
        if self._is_plain(table):
            log.insert_new(self.location(table), log.arrow_rows(TABLES[table], rows), TABLES[table].key)
        else:
            self.insert_new(table, self._frame(table, rows))

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

    def settle(self, table: str, rows: DataFrame, *, column: str, value: str, compare: tuple[str, ...]) -> bool:
        """Replace the rows whose `column` is `value` by `rows`, if they differ; return whether they did.

        Args:
            table: name of the table.
            rows: all rows with this value that the table should have.
            column: a key column.
            value: its value.
            compare: the columns to compare; rows that differ only in other columns count as equal.
        """
        changed = self.differs(table, rows, column=column, value=value, compare=compare)
        if changed:
            self.replace(table, rows, column=column, value=value)
        return changed

    def differs(self, table: str, rows: DataFrame, *, column: str, value: str, compare: tuple[str, ...]) -> bool:
        """Return whether `rows` differ from the stored rows whose `column` is `value` (see `settle`)."""
        old = self.read(table).where(F.col(column) == value).select(*compare, F.lit(-1).alias("balance"))
        both = old.unionByName(rows.select(*compare, F.lit(1).alias("balance")))
        sums = both.groupBy(*compare).agg(F.sum("balance").alias("balance"))
        return not sums.where("balance <> 0").isEmpty()

    def replace(self, table: str, rows: DataFrame, *, column: str, value: str, row_group: int | None = None) -> None:
        """Replace the rows whose `column` is `value` by `rows`, in one commit.

        Args:
            row_group: most rows of a Parquet row group; None means the default of Parquet.
        """
        rows = rows.select(*(name for name, _, _ in TABLES[table].columns))
        writer = rows.write.format("delta").mode("overwrite")
        with self._row_groups(row_group):
            self._save(writer.option("replaceWhere", f"{column} = {literal(value)}"), table)

    def settle_few(
        self, table: str, rows: Sequence[tuple[object, ...]], *, column: str, value: str, compare: tuple[str, ...]
    ) -> bool:
        """Do as `settle` does, with a few rows that are given as tuples in the order of the columns."""
        if not self._is_plain(table):
            return self.settle(table, self._frame(table, rows), column=column, value=value, compare=compare)
        changed = log.count_rows(self.location(table), column, value) != len(rows)  # first, as there may be many
        if not changed:
            names = [name for name, _, _ in TABLES[table].columns]
            new = Counter(tuple(row[names.index(name)] for name in compare) for row in rows)
            old = Counter(tuple(row[name] for name in compare) for row in self.rows(table, column, among=(value,)))
            changed = new != old
        if changed:
            log.replace_rows(self.location(table), log.arrow_rows(TABLES[table], rows), column, value)
        return changed

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
