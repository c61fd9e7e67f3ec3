"""The lake: Delta tables under a folder or in a catalog schema, and the few ways in which jobs write to them.

A write is either a MERGE on the key or an append with a Delta transaction id, so that doing it twice does it once.
Only the DataFrame and SQL API is used: it must work on Spark Connect too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, DataFrameWriter, Row, SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.location import folder_of, is_catalog, local_folder_of
from capsfusion_etl.storage import as_path, is_remote
from capsfusion_etl.tables import TABLES, identifier


class Lake:
    """Tables of one lake. `root` is a folder or URL, or `schema` / `catalog.schema` names with a dot between."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark = spark
        self.root = root.rstrip("/") or "/"
        self.in_catalog = is_catalog(root)
        self.versions: dict[str, int] = {}  # versions that are read instead of the newest
        self._overridden: dict[str, DataFrame] = {}
        if not self.in_catalog and not is_remote(self.root):
            self.root = str(Path(self.root).absolute())

    @property
    def folder(self) -> Path:
        """Where manifests and reports go: see `memory.folder_of`."""
        return folder_of(self.root)

    @property
    def local_folder(self) -> Path:
        """Where logs and working files go: see `memory.local_folder_of`."""
        return local_folder_of(self.root)

    def detail(self, table: str) -> dict[str, Any]:
        """DESCRIBE DETAIL of a table: id, location, properties, numFiles..."""
        return self.spark.sql(f"DESCRIBE DETAIL {self.ref(table)}").collect()[0].asDict()

    def exists(self, table: str) -> bool:
        """Is the table there? A path holds one once its log has a first entry."""
        if self.in_catalog:
            return self.spark.catalog.tableExists(f"{self.root}.{table}")
        return any(as_path(f"{self.root}/{table}/_delta_log").glob("*.json"))

    def ref(self, table: str) -> str:
        """How SQL names the table."""
        if self.in_catalog:
            return f"{self.root}.{table}"
        return f"delta.{identifier(self.location(table))}"

    def location(self, table: str) -> str:
        """Folder of the table; for a table of a catalog its name."""
        return f"{self.root}.{table}" if self.in_catalog else f"{self.root}/{table}"

    def version(self, table: str) -> int:
        """Newest version of the table."""
        row = self.spark.sql(f"DESCRIBE HISTORY {self.ref(table)} LIMIT 1").collect()[0]
        return int(row["version"])

    def read(self, table: str) -> DataFrame:
        """The newest version of a table (or the pinned one), its columns in the order of the schema.

        Raises:
            InputError: somebody changed the table, and columns are missing.
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

    def pinned(self, *tables: str) -> "Lake":
        """Return this lake with `tables` read at the version that they have now, whatever others write meanwhile."""
        return self.at({table: self.version(table) for table in tables if table not in self.versions})

    def at(self, versions: dict[str, int]) -> "Lake":
        """Return this lake with these tables read at these versions."""
        lake = copy(self)
        lake.versions = self.versions | versions
        return lake

    def with_rows(self, table: str, rows: DataFrame) -> "Lake":
        """Return this lake with `rows` in place of what is stored in `table`: for dry runs, which write nothing."""
        lake = copy(self)
        lake._overridden = self._overridden | {table: rows}
        return lake

    def append(self, table: str, rows: DataFrame, *, app_id: str, version: int) -> None:
        """Append once: a second append of the same (app_id, version) is a no-op, also after a crash."""
        rows = rows.select(*(name for name, _, _ in TABLES[table].columns))
        writer = rows.write.format("delta").mode("append").option("txnAppId", app_id).option("txnVersion", version)
        self._save(writer, table)

    def appended(self, table: str) -> int:
        """Rows of the last write, by the table's history: nothing is computed again to count them."""
        return self.metrics(table).get("numOutputRows", 0)

    def metrics(self, table: str) -> dict[str, int]:
        """What the last write did, in Delta's words."""
        last = self.spark.sql(f"DESCRIBE HISTORY {self.ref(table)} LIMIT 1").collect()[0]["operationMetrics"]
        return {name: int(value) for name, value in last.items() if value.isdigit()}

    def insert_new(self, table: str, rows: DataFrame) -> None:
        """MERGE: insert the rows whose key the table does not hold; Delta makes no new version if there are none."""
        on = " AND ".join(f"t.{k} = s.{k}" for k in TABLES[table].key)
        self._with_view(
            rows.select(*(name for name, _, _ in TABLES[table].columns)),
            f"MERGE INTO {self.ref(table)} t USING {{view}} s ON {on} WHEN NOT MATCHED THEN INSERT *",
        )

    def update(self, table: str, rows: DataFrame) -> int:
        """MERGE: give the rows with these keys new values; how many. No new version of the table if there are none."""
        key = TABLES[table].key
        count = rows.count()
        if count:
            on = " AND ".join(f"t.{k} = s.{k}" for k in key)
            self._with_view(
                rows, f"MERGE INTO {self.ref(table)} t USING {{view}} s ON {on} WHEN MATCHED THEN UPDATE SET *"
            )
        return count

    def delete(self, table: str, rows: DataFrame, *, on: str = "t.pair_id = s.pair_id") -> int:
        """MERGE: delete the rows of a table (t) that `rows` (s) name; how many there were.

        By a join rather than a list: a table's history repeats what a condition says.
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
        """Make the rows within `scope` (a SQL condition on a key column) equal to `rows`; write only if they differ.

        `compare` are the columns that make a row another one, `row_group` the rows of a Parquet row group.
        Returns whether it wrote.
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
        # As a session setting: Delta passes no Parquet option of a writer on.
        key = "parquet.block.row.count.limit"
        if rows is not None:
            self.spark.conf.set(key, str(rows))
        try:
            yield
        finally:
            self.spark.conf.unset(key)

    def _with_view(self, rows: DataFrame, statement: str) -> Row:
        # A view rather than DeltaTable.merge: it needs no Python Delta package on the cluster.
        view = "capsfusion_source"
        rows.createOrReplaceTempView(view)
        try:
            return self.spark.sql(statement.format(view=view)).collect()[0]
        finally:
            self.spark.catalog.dropTempView(view)
