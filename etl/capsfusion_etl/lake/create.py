"""Open a lake, and create its missing tables."""

from collections.abc import Callable

from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.lake.log import create_table
from capsfusion_etl.lake.views import create_in_catalog
from capsfusion_etl.storage import is_remote
from capsfusion_etl.tables import TABLES, TRAINING_PAIRS, VERSION, VERSION_PROPERTY, Table, literal

# Stores where only one writer can commit a version: by atomic rename, by conditional writes, or, on S3 with Delta's
# default LogStore, as long as all writers share one driver.
_SAFE = {"file", "hdfs", "viewfs", "dbfs", "gs", "s3", "s3a", "s3n", "abfs", "abfss", "wasb", "wasbs", "adl"}


_PREVIOUS = ("6", "7")  # layouts that lack columns only: table, name, type
_NEW_COLUMNS = (
    ("images", "redirects", "array<string>"),
    ("fused_captions", "ledger.unsupported", "array<string>"),
    ("fused_captions", "ledger.embellished", "array<string>"),
)


def open_lake(spark: SparkSession | Callable[[], SparkSession], root: str, *, create: bool = True) -> Lake:
    """Open the lake at `root`, and create its missing tables (and, in a catalog, its missing views).

    Args:
        spark: a session with Delta, or a function that starts one when it is needed.
        root: a folder, a URL, or the name of a schema.
        create: whether to create the lake if it does not exist.

    Raises:
        InputError: the lake does not exist and `create` is false, its tables have the layout of another version of this
            project, or its store has no safe commits (see `check_commits`).
    """
    lake = Lake(spark, root)
    check_commits(lake)
    if lake.exists("pairs"):
        _upgrade(lake)
        _check_version(lake)
    elif not create:
        raise InputError(f"there is no lake at {lake.root}: create one with `capsfusion ingest` or `capsfusion run`")
    for table in TABLES.values():
        if lake.exists(table.name):
            continue
        if lake.is_local:
            create_table(lake.location(table.name), table)
        else:
            partition = f"PARTITIONED BY ({', '.join(table.partition_by)})" if table.partition_by else ""
            lake.spark.sql(
                f"CREATE TABLE IF NOT EXISTS {lake.ref(table.name)} ({table.ddl()}) USING DELTA {partition} "
                f"COMMENT {literal(table.comment)} TBLPROPERTIES ('{VERSION_PROPERTY}' = '{VERSION}', "
                f"'delta.dataSkippingStatsColumns' = '{table.indexed()}'{_plain_files(table)})"
            )
    if lake.in_catalog:
        create_in_catalog(lake)
    return lake


def _plain_files(table: Table) -> str:
    """Return properties that keep a session's defaults from a table whose files are read without Delta, by trainers."""
    plain = ", 'delta.columnMapping.mode' = 'none', 'delta.enableDeletionVectors' = 'false'"
    return plain if table is TRAINING_PAIRS else ""


def _upgrade(lake: Lake) -> None:
    """Add the columns that a lake of a previous layout lacks. A kill in between is no harm: the next call goes on."""
    if _version(lake) not in _PREVIOUS:
        return
    for table, column, kind in _NEW_COLUMNS:
        if lake.exists(table) and column not in _columns(lake, table):
            lake.spark.sql(f"ALTER TABLE {lake.ref(table)} ADD COLUMNS ({column} {kind})")
    lake.spark.sql(f"ALTER TABLE {lake.ref('pairs')} SET TBLPROPERTIES ('{VERSION_PROPERTY}' = '{VERSION}')")


def _columns(lake: Lake, table: str) -> set[str]:
    """Return the columns of a table, and the fields of its structs as `column.field`."""
    schema = lake.spark.sql(f"SELECT * FROM {lake.ref(table)} LIMIT 0").schema
    nested = {f"{c.name}.{f.name}" for c in schema if isinstance(c.dataType, StructType) for f in c.dataType}
    return {*schema.names, *nested}


def _version(lake: Lake) -> str | None:
    version: str | None = lake.properties("pairs").get(VERSION_PROPERTY)
    return version


def _check_version(lake: Lake) -> None:
    found = _version(lake)
    if found != VERSION:
        raise InputError(
            f"the tables at {lake.root} have layout {found or '(unknown)'}, "
            f"this version writes {VERSION}: "
            "use a new --lake, or the version of capsfusion that wrote these tables"
        )


def check_commits(lake: Lake) -> None:
    """Refuse a store on which two writers could both commit the same version of a table.

    Raises:
        InputError: Delta has no safe commits for the scheme of the lake, and no LogStore is set for it.
    """
    root = lake.root
    scheme = root.partition("://")[0].lower()
    if not is_remote(root) or scheme in _SAFE:
        return
    setting = f"spark.delta.logStore.{scheme}.impl"
    if lake.spark.conf.get(setting, None) is None:
        raise InputError(
            f"{root}: {scheme} has no atomic rename that Delta knows of, so two writers could overwrite each other's "
            f"commits: set {setting} to a LogStore for it, or use another store"
        )
