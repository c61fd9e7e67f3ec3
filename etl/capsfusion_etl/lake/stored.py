"""The tables of a lake as they are stored: their places, versions, properties and last commits.

For tables on this machine this needs no Spark, which runs several queries for each of these questions.
"""

from collections.abc import Callable
from pathlib import Path

from pyspark.sql import Row, SparkSession

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake import log
from capsfusion_etl.lake.location import folder_of, is_catalog, local_folder_of
from capsfusion_etl.storage import as_path, is_remote
from capsfusion_etl.tables import identifier


class Stored:
    """The tables of one lake: where they are, and what their logs say of them.

    Args:
        spark: a session with Delta, or a function that starts one when it is needed.
        root: a folder, a URL, or the name of a schema in a catalog, as `catalog.schema`.
    """

    def __init__(self, spark: SparkSession | Callable[[], SparkSession], root: str) -> None:
        self._session = spark
        self.root = root.rstrip("/") or "/"
        self.in_catalog = is_catalog(root)
        if not self.in_catalog and not is_remote(self.root):
            self.root = str(Path(self.root).absolute())

    @property
    def spark(self) -> SparkSession:
        """The Spark session."""
        if callable(self._session):
            self._session = self._session()
        return self._session

    @property
    def folder(self) -> Path:
        """Folder of settings, manifests and reports (see `location.folder_of`)."""
        return folder_of(self.root)

    @property
    def local_folder(self) -> Path:
        """Folder of logs and working files on this machine (see `location.local_folder_of`)."""
        return local_folder_of(self.root)

    @property
    def is_local(self) -> bool:
        """Whether the tables are folders on this machine."""
        return not self.in_catalog and not is_remote(self.root)

    def properties(self, table: str) -> dict[str, str]:
        """Return the properties of the table."""
        if self.is_local:
            return log.properties(self.location(table))
        return self._detail(table)["properties"] or {}

    def _detail(self, table: str) -> Row:
        return self.spark.sql(f"DESCRIBE DETAIL {self.ref(table)}").collect()[0]

    def exists(self, table: str) -> bool:
        """Return whether the table exists; outside of a catalog it does once its Delta log has an entry."""
        if self.in_catalog:
            return self.spark.catalog.tableExists(f"{self.root}.{table}")
        return any(as_path(f"{self.root}/{table}/_delta_log").glob("*.json"))

    def ref(self, table: str) -> str:
        """Return the name of the table in SQL."""
        if self.in_catalog:
            return f"{self.root}.{table}"
        return f"delta.{identifier(self.location(table))}"

    def location(self, table: str) -> str:
        """Return the folder or URL of the table; for a table in a catalog its name."""
        return f"{self.root}.{table}" if self.in_catalog else f"{self.root}/{table}"

    def table_folder(self, table: str) -> str:
        """Return the folder or URL of the table, also of one in a catalog."""
        if not self.in_catalog:
            return self.location(table)
        return str(self._detail(table)["location"]).removeprefix("file:").replace("///", "/")

    def version(self, table: str) -> int:
        """Return the newest version of the table."""
        if self.in_catalog:
            return int(self._last_commit(table)["version"])
        version = log.newest_version(self.location(table))
        if version is None:
            raise InputError(f"there is no table {table} at {self.location(table)}")
        return version

    def appended(self, table: str) -> int:
        """Return the number of rows of the table's last write, from its history, without evaluating a query again."""
        metrics = self.metrics(table)
        return metrics.get("numOutputRows", metrics.get("num_added_rows", 0))  # Spark's and delta-rs's name

    def metrics(self, table: str) -> dict[str, int]:
        """Return the operation metrics of the table's last version, under Delta's names."""
        if not self.in_catalog:
            return log.last_metrics(self.location(table))
        found = self._last_commit(table)["operationMetrics"].items()
        return {name: int(value) for name, value in found if value.isdigit()}

    def _last_commit(self, table: str) -> Row:
        return self.spark.sql(f"DESCRIBE HISTORY {self.ref(table)} LIMIT 1").collect()[0]
