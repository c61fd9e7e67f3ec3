"""Read a source: recognise what it is, and bring its rows into one shape."""

from collections import Counter
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from capsfusion_etl.console import say
from capsfusion_etl.errors import InputError, RetryError, explain, first_line
from capsfusion_etl.stages.ingest.annotations import read_annotations
from capsfusion_etl.stages.ingest.columns import Group, Source, shaped
from capsfusion_etl.stages.ingest.config import ANNOTATIONS, SHARDS, STORED, SourceConfig
from capsfusion_etl.stages.ingest.datasets import read_stored, stored_layout
from capsfusion_etl.stages.ingest.files import root_of, table_of
from capsfusion_etl.stages.ingest.image_sources import TARS, listing, read_folder, read_tars
from capsfusion_etl.stages.ingest.parquet import by_schema
from capsfusion_etl.stages.ingest.texts import read_texts
from capsfusion_etl.storage import is_remote


def read(spark: SparkSession, config: SourceConfig, *, max_bytes: int = 20_000_000) -> Source:
    """Read a source.

    Args:
        spark: the session.
        config: where the pairs come from.
        max_bytes: images of more bytes are not read from tars and folders; their `bytes` are null.

    Raises:
        InputError: the source does not exist or cannot be read, or a column is missing; the message lists its columns.
        RetryError: reading failed for a reason that may pass.
    """
    if not config.pairs:
        raise InputError("no pairs given: pass a file or folder with --pairs")
    source = _annotated(spark, config, max_bytes) or _shards(spark, config, max_bytes) or _table(spark, config)
    if config.limit is not None:
        source.rows = source.rows.limit(config.limit)
    return source


def _table(spark: SparkSession, config: SourceConfig) -> Source:
    kind = config.format or "table"
    try:
        if (layout := _stored(config)) is not None:
            kind = layout
            groups, left_out = read_stored(spark, layout, root_of(config))
            return shaped(groups, config, left_out)
        kind, files = table_of(config)
        if kind == "delta":
            return shaped([Group(files[0], spark.read.format("delta").load(files[0]))], config, {})
        if kind == "parquet":
            groups, left_out = by_schema(spark, files, root_of(config))
            try:
                return shaped(groups, config, left_out)
            except InputError as error:
                if not left_out:
                    raise
                unread = ", ".join(f"{column} ({kind})" for column, kind in left_out.items())
                raise InputError(f"{error}; of its columns Spark cannot read {unread}") from None
        if kind in ("csv", "tsv", "json"):
            return Source(read_texts(spark, kind, files, config))
        raise InputError(f"source.format: there is no format {kind!r}; there are parquet, csv, tsv, json, delta")
    except (InputError, RetryError):
        raise
    except AnalysisException as error:
        raise InputError(f"cannot read {config.pairs} as {kind}: {first_line(str(error))}") from None
    except Exception as error:
        if (known := explain(error)) is not None:
            raise known from error
        raise InputError(f"cannot read {config.pairs} as {kind}: {first_line(str(error))}") from error


def _annotated(spark: SparkSession, config: SourceConfig, max_bytes: int) -> Source | None:
    """Return the rows of a JSON of captions; None if the source is none."""
    if config.layout not in ANNOTATIONS:
        return None
    explode = config.explode is not None
    rows = read_annotations(spark, config.layout, root_of(config), config.images, max_bytes, explode=explode)
    return Source(rows)


def _stored(config: SourceConfig) -> str | None:
    """Return the layout of a folder that another library stored; None if it is a table."""
    if config.layout in STORED:
        return config.layout
    folder = not is_remote(str(config.pairs)) and Path(str(config.pairs)).is_dir()
    return stored_layout(root_of(config)) if folder and config.layout is None and config.format is None else None


def _shards(spark: SparkSession, config: SourceConfig, max_bytes: int) -> Source | None:
    """Return the rows of a source whose files are images; None if it is a table."""
    path = str(config.pairs)
    asked = config.layout in SHARDS
    if not is_remote(path):
        if not Path(path).exists():
            return None  # `_table` reports the missing file
        path = Path(path).absolute().as_uri()
    elif not asked:
        return None  # listing an object store just to recognise the layout is too slow
    folder = Path(str(config.pairs)).is_dir()
    if not asked and (config.layout is not None or config.format is not None or not (folder or path.endswith(TARS))):
        return None
    tars, stems, others = listing(path)
    if tars and config.layout != "folder":
        _tell(others)
        return Source(read_tars(spark, path, tars, max_bytes, explode=config.explode is not None))
    # A folder of tables may hold images, too; images with text files are the source.
    told = stems and (asked or any(len(parts) > 1 for parts in stems.values()) or not _has_table(config))
    if told and config.layout != "webdataset":
        _tell(others)
        return Source(read_folder(spark, path, stems, max_bytes, explode=config.explode is not None))
    if asked:
        raise InputError(f"{config.pairs} has no {'tars' if config.layout == 'webdataset' else 'images'}")
    return None


def _tell(others: Counter[str]) -> None:
    if others:
        counts = ", ".join(f"{count} {kind}" for kind, count in others.most_common(8))
        say(f"ingest    files that are not read: {counts}")


def _has_table(config: SourceConfig) -> bool:
    try:
        return bool(table_of(config))
    except InputError:
        return False
