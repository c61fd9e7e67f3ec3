"""Reading the tables of a lake, at their newest or at pinned versions."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, Self

from deltalake.exceptions import DeltaProtocolError, TableNotFoundError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake import log
from capsfusion_etl.lake.stored import Stored
from capsfusion_etl.tables import TABLES
from capsfusion_etl.tables.arrow import arrow_schema


class Readable(Stored):
    """The tables of one lake, to read.

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

    @property
    def _takes_arrow(self) -> bool:
        """Whether frames are made of Arrow tables and become such tables: Spark 3.5 can do neither."""
        return not self.spark.version.startswith("3.")

    def read(self, table: str) -> DataFrame:
        """Return a table as it is now (or at its pinned version), with the columns of the schema in their order.

        For frames that are used at once: whether they see commits that are made after this call is not defined. Spark
        runs a query to plan each scan of a Delta table, so a small table on this machine is read without Spark.

        Raises:
            InputError: the stored table lacks columns of the schema.
        """
        if self.is_local and table not in self._overridden and self._takes_arrow:
            with suppress(DeltaProtocolError, TableNotFoundError):
                schema = arrow_schema(TABLES[table])
                rows = log.small_table(self.location(table), self.versions.get(table), schema)
                if rows is not None:
                    # PySpark fails on an Arrow table without rows.
                    return self.spark.createDataFrame(rows if rows.num_rows else [], TABLES[table].schema())
        return self.live(table)

    def live(self, table: str) -> DataFrame:
        """Return a table as `read` does, but for frames that are evaluated again after commits, and then see them.

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

    def pinned(self, *tables: str) -> Self:
        """Return this lake with `tables` pinned to their current versions, so that later writes are not visible."""
        return self.at({table: self.version(table) for table in tables if table not in self.versions})

    def at(self, versions: dict[str, int]) -> Self:
        """Return this lake with the tables in `versions` pinned to these versions."""
        lake = copy(self)
        lake.versions = self.versions | versions
        return lake

    def with_rows(self, table: str, rows: DataFrame) -> Self:
        """Return this lake with `rows` instead of the stored rows of `table`; for dry runs, which write nothing."""
        lake = copy(self)
        lake._overridden = self._overridden | {table: rows}
        return lake

    def is_empty(self, table: str) -> bool:
        """Return whether the table has no rows."""
        if self.is_local and table not in self._overridden:
            with suppress(DeltaProtocolError):
                return log.is_empty(self.location(table), self.versions.get(table))
        return bool(self.read(table).isEmpty())

    def has_values(self, table: str, column: str) -> bool:
        """Return whether the column is not null in some row; true, too, if the table's statistics do not tell."""
        if self.is_local and table not in self._overridden:
            with suppress(DeltaProtocolError):
                return log.has_values(self.location(table), self.versions.get(table), column)
        return not self.read(table).where(F.col(column).isNotNull()).isEmpty()
