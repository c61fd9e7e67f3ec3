"""The schemas of Parquet files: which columns Spark reads, and which files have the same ones."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type

from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.columns import Group
from capsfusion_etl.stages.ingest.files import is_pattern, of_each
from capsfusion_etl.storage import filesystem_of

_DIGITS = 38  # of a decimal
_WIDER = {pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20)}


def by_schema(spark: SparkSession, files: list[str], root: str) -> tuple[list[Group], dict[str, str]]:
    """Read Parquet files together that have the same columns.

    Args:
        spark: the session.
        files: paths or URLs.
        root: the folder, whose subfolders such as year=2024 are columns, too.

    Returns:
        A group for each schema, named after its first file; and the columns that Spark cannot read, each with its type.

    Raises:
        InputError: a file is no Parquet file, has columns that differ in upper and lower case only, or on Spark 3.5
            columns of float16.
    """
    left_out: dict[str, str] = {}
    groups: dict[tuple[tuple[str, T.DataType], ...], list[str]] = {}
    for name, schema in zip(files, of_each(_schema, files), strict=True):
        half = [column.name for column in schema if pa.types.is_float16(column.type)]
        if half and spark.version.startswith("3."):  # its Parquet library fails on the footer
            raise InputError(
                f"{name}: Spark {spark.version} reads no file with float16 columns ({half[0]}): use Spark 4"
            )
        groups.setdefault(tuple(_readable(name, schema, left_out)), []).append(name)
    found = []
    for columns, names in groups.items():
        reader = spark.read.schema(T.StructType([T.StructField(name, kind) for name, kind in columns]))
        if files != [root] and not is_pattern(root):
            reader = reader.option("basePath", root)
        found.append(Group(names[0], reader.parquet(*map(_literal, names))))
    return found, left_out


def _literal(name: str) -> str:
    """Return a path in which Spark sees no pattern."""
    return re.sub(r"([*?{}\[\]\\])", r"\\\1", name)


def _schema(name: str) -> pa.Schema:
    files, path = filesystem_of(name)
    try:
        with files.open_input_file(path) as file:
            return pq.read_schema(file)
    except PermissionError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {name} as parquet: is it damaged? ({error})") from None


def _readable(name: str, schema: pa.Schema, left_out: dict[str, str]) -> list[tuple[str, T.DataType]]:
    """Return the columns of a file that Spark reads, with their types; add the others to `left_out`."""
    lower = [column.lower() for column in schema.names]
    alike = [column for column in schema.names if lower.count(column.lower()) > 1]
    if alike:
        raise InputError(f"{name} has the columns {', '.join(alike)}, which Spark does not tell apart: rename one")
    kept = []
    for column in schema:
        try:
            kept.append((column.name, from_arrow_type(_plain(column.type))))
        except Exception:  # noqa: BLE001  of many types, and PySpark has its own errors for them
            left_out[column.name] = str(column.type)
    return kept


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the Arrow type that Parquet stores for `kind`.

    Raises:
        TypeError: Spark reads no such Parquet type.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        raise TypeError("Spark has no nanoseconds")
    if pa.types.is_decimal(kind) and kind.precision > _DIGITS:
        raise TypeError("Spark has no decimals of so many digits")
    if pa.types.is_duration(kind) or pa.types.is_time(kind) or pa.types.is_float16(kind) or pa.types.is_interval(kind):
        raise TypeError("Spark has no such type")
    return _WIDER.get(kind, kind)
