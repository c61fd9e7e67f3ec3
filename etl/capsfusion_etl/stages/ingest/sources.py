"""Read sources: tables in a known layout, tables with a column mapping, and files of images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError, RetryError, explain, first_line
from capsfusion_etl.ids import check_name
from capsfusion_etl.stages.ingest.image_sources import listing, read_folder, read_tars
from capsfusion_etl.tables import identifier

# layout -> our column -> column of the source. Without `source.layout` the first whose columns all exist is used.
LAYOUTS: dict[str, dict[str, str]] = {
    "capsfusion": {"url": "image_url", "raw_caption": "laion_2b", "synthetic_caption": "laion_coco"},
    "laion-coco": {"url": "URL", "raw_caption": "TEXT", "synthetic_caption": "top_caption"},
    "laion": {"url": "URL", "raw_caption": "TEXT"},
    "img2dataset": {"url": "url", "raw_caption": "caption"},
    "coyo": {"url": "url", "raw_caption": "text"},
    "plain": {"url": "url", "raw_caption": "raw_caption", "synthetic_caption": "synthetic_caption"},
    "plain-without-synthetic": {"url": "url", "raw_caption": "raw_caption"},
}
# The files of Conceptual Captions have no header: their columns, in order.
HEADLESS = {"cc3m": ("raw_caption", "url"), "cc12m": ("url", "raw_caption")}
SHARDS = ("webdataset", "folder")  # layouts whose files are images
_INLINE = ("jpg", "png", "webp")  # columns in which img2dataset stores the bytes of an image
FIELDS = ("url", "raw_caption", "synthetic_caption")
FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json", ".ndjson": "json"}


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where the pairs come from.

    Attributes:
        pairs: file, folder or URL of the source.
        name: name of the source; a newer version under the same name updates the pairs of the old one. Null: the path.
        layout: laion, coyo, cc3m, webdataset, folder...; null: recognised by the columns or files.
        format: parquet, csv, tsv, json or delta; null: recognised by the file names.
        columns: maps url, raw_caption and synthetic_caption to columns of the source, for an unknown layout.
        limit: most rows to read; null: all.
    """

    pairs: str | None = None
    name: str | None = None
    layout: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "source")


def read(spark: SparkSession, config: SourceConfig, *, max_bytes: int = 20_000_000) -> DataFrame:
    """Read a source.

    Args:
        max_bytes: images of more bytes are not read from tars and folders; their `bytes` are null.

    Returns:
        Columns url and raw_caption (strings, never null), extra (map of every other column), and bytes if the source
        contains images: null if they exceed `max_bytes`, empty if a row has no image. A synthetic caption of the source
        is `extra['synthetic_caption']`.

    Raises:
        InputError: the source does not exist or cannot be read, or a column is missing; the message lists its columns.
        RetryError: reading failed for a reason that may pass.
    """
    if not config.pairs:
        raise InputError("no pairs given: pass a file or folder with --pairs")
    known = (*LAYOUTS, *HEADLESS, *SHARDS)
    if config.layout not in (None, *known):
        raise InputError(f"source.layout: there is no layout {config.layout!r}; there are {', '.join(known)}")
    shards = _shards(spark, config, max_bytes)
    if shards is not None:
        return shards.limit(config.limit) if config.limit is not None else shards
    rows = _load(spark, config.pairs, config)
    mapping = _mapping(rows.columns, config)
    rows = rows.limit(config.limit) if config.limit is not None else rows
    image = next((c for c in _INLINE if c in rows.columns and mapping == LAYOUTS["img2dataset"]), None)
    rest = [c for c in rows.columns if c not in (*mapping.values(), image)]
    extra = {c: _text(c) for c in rest}
    if "synthetic_caption" in mapping:
        extra["synthetic_caption"] = _text(mapping["synthetic_caption"])
    url = F.trim(F.coalesce(_text(mapping["url"]), F.lit(""))) if "url" in mapping else F.lit("")
    raw = F.coalesce(_text(mapping["raw_caption"]), F.lit(""))
    inline = [] if image is None else [F.coalesce(F.col(image), F.lit(b"")).alias("bytes")]
    return rows.select(url.alias("url"), raw.alias("raw_caption"), _map(extra).alias("extra"), *inline)


def _shards(spark: SparkSession, config: SourceConfig, max_bytes: int) -> DataFrame | None:
    """Return the rows of a source whose files are images; None if it is a table."""
    path = str(config.pairs)
    asked = config.layout in SHARDS
    if "://" not in path:
        if not Path(path).exists():
            return None  # _load reports the missing file
        path = Path(path).absolute().as_uri()
    elif not asked:
        return None  # listing an object store just to recognise the layout is too slow
    folder = Path(str(config.pairs)).is_dir()
    if not asked and (config.layout is not None or config.format is not None or not (folder or path.endswith(".tar"))):
        return None
    tars, stems = listing(path)
    if tars and config.layout != "folder":
        return read_tars(spark, path, tars, max_bytes)
    # A folder of tables may hold images, too; images with text files are the source.
    told = any(len(parts) > 1 for parts in stems.values()) or _table_format(str(config.pairs)) is None
    if stems and (asked or told) and config.layout != "webdataset":
        return read_folder(spark, path, stems, max_bytes)
    if asked:
        raise InputError(f"{config.pairs} has no {'tars' if config.layout == 'webdataset' else 'images'}")
    return None


def _text(column: str) -> Column:
    return F.col(identifier(column)).cast("string")


def _map(columns: dict[str, Column]) -> Column:
    if not columns:
        return F.create_map().cast("map<string, string>")
    pairs = F.create_map(*(part for name, value in columns.items() for part in (F.lit(name), value)))
    return F.map_filter(pairs, lambda _, value: value.isNotNull())


def _load(spark: SparkSession, path: str, config: SourceConfig) -> DataFrame:
    local = "://" not in path
    if local and not Path(path).exists():
        raise InputError(f"no such file or folder: {path}")
    headless = HEADLESS.get(config.layout or "")
    kind = config.format or ("tsv" if headless else _format(path))
    location = str(Path(path).absolute()) if local else path
    try:
        reader = spark.read
        if local and Path(path).is_dir() and kind != "delta":  # img2dataset writes JSON statistics beside its tables
            endings = [ending for ending, of in FORMATS.items() if of == kind]
            reader = reader.option("pathGlobFilter", f"*{{{','.join(endings)}}}*")
        if kind in ("csv", "tsv"):
            # RFC 4180 doubles a quote inside a quoted field; Spark expects a backslash by default.
            options = {"header": "true", "sep": "," if kind == "csv" else "\t", "escape": '"', "multiLine": "true"}
            if headless:
                options |= {"header": "false", "quote": ""}
                reader = reader.schema(", ".join(f"{name} string" for name in headless))
            rows = reader.options(**options).csv(location)
        else:
            rows = reader.format(kind).load(location)
        rows.limit(1).collect()  # Spark reads lazily: an unreadable file fails only here
    except AnalysisException as error:
        raise InputError(f"cannot read {path} as {kind}: {first_line(str(error))}") from None
    except Exception as error:
        if isinstance(known := explain(error), RetryError):
            raise known from error
        raise InputError(f"cannot read {path} as {kind}: is it damaged?") from error
    return rows


def _format(path: str) -> str:
    """Return the format of a table by its file name, or by the data files in a folder.

    Raises:
        InputError: the format cannot be recognised.
    """
    found = _table_format(path)
    if found is None:
        raise InputError(
            f"cannot tell the format of {path}: set it with --set source.format=parquet|csv|tsv|json|delta"
        )
    return found


def _table_format(path: str) -> str | None:
    folder = Path(path)
    if folder.is_dir():
        if (folder / "_delta_log").is_dir():
            return "delta"
        inside = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(("_", ".")))
        kinds = [FORMATS[_suffix(p)] for p in inside if _suffix(p) in FORMATS]
        return "parquet" if "parquet" in kinds else next(iter(kinds), None)  # JSON beside parquet files may be metadata
    return FORMATS.get(_suffix(folder))


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _mapping(there: list[str], config: SourceConfig) -> dict[str, str]:
    given, path = dict(config.columns), config.pairs
    for ours, theirs in given.items():
        if ours not in FIELDS:
            raise InputError(f"--column {ours}: there is no such field; there are {', '.join(FIELDS)}")
        if theirs not in there:
            raise InputError(f"{path} has no column {theirs!r}; it has {', '.join(there)}")
    if config.layout in LAYOUTS:
        known = LAYOUTS[config.layout]
        missing = [theirs for ours, theirs in known.items() if theirs not in there and ours not in given]
        if missing:
            raise InputError(
                f"{path} is not of the layout {config.layout}: it has no {', '.join(missing)}; "
                f"it has {', '.join(there)}"
            )
    else:
        layouts = [*LAYOUTS.values(), *({name: name for name in names} for names in HEADLESS.values())]
        known = next((m for m in layouts if set(m.values()) <= set(there)), {})
    mapping = {**known, **given}
    if "raw_caption" not in mapping:
        raise InputError(
            f"{path} has none of the known layouts ({', '.join(LAYOUTS)}): name the column of the alt-text with "
            f"--column raw_caption=NAME; it has {', '.join(there)}"
        )
    return mapping
