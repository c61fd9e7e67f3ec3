"""Reading what people have: known layouts by their columns, any other by a mapping."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError, RetryError, explain, first_line

# layout -> our name -> the source's column. The first layout whose columns are all there is taken.
LAYOUTS: dict[str, dict[str, str]] = {
    "capsfusion": {"url": "image_url", "raw_caption": "laion_2b", "synthetic_caption": "laion_coco"},
    "laion-coco": {"url": "URL", "raw_caption": "TEXT", "synthetic_caption": "top_caption"},
    "laion": {"url": "URL", "raw_caption": "TEXT"},
    "plain": {"url": "url", "raw_caption": "raw_caption", "synthetic_caption": "synthetic_caption"},
    "plain-without-synthetic": {"url": "url", "raw_caption": "raw_caption"},
}
FIELDS = ("url", "raw_caption", "synthetic_caption")
FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "json", ".json": "json", ".ndjson": "json"}


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where the pairs come from.

    `columns` maps url, raw_caption and synthetic_caption to the source's columns, where the layout is not a known one.
    """

    pairs: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None


def read(spark: SparkSession, config: SourceConfig) -> DataFrame:
    """Read a source as url, raw_caption (both strings, never null) and extra (map of every other column).

    The synthetic caption, where the source brings one, is `extra['synthetic_caption']`.

    Raises:
        InputError: no such file, unreadable, or a column is missing; the message names the columns that are there.
    """
    if not config.pairs:
        raise InputError("no pairs given: name a file or folder with --pairs")
    rows = _load(spark, config.pairs, config.format)
    mapping = _mapping(rows.columns, dict(config.columns), config.pairs)
    rows = rows.limit(config.limit) if config.limit is not None else rows
    rest = [c for c in rows.columns if c not in mapping.values()]
    extra = {c: _text(c) for c in rest}
    if "synthetic_caption" in mapping:
        extra["synthetic_caption"] = _text(mapping["synthetic_caption"])
    url = F.trim(F.coalesce(_text(mapping["url"]), F.lit(""))) if "url" in mapping else F.lit("")
    raw = F.coalesce(_text(mapping["raw_caption"]), F.lit(""))
    return rows.select(url.alias("url"), raw.alias("raw_caption"), _map(extra).alias("extra"))


def _text(column: str) -> Column:
    return F.col(f"`{column}`").cast("string")


def _map(columns: dict[str, Column]) -> Column:
    if not columns:
        return F.create_map().cast("map<string, string>")
    pairs = F.create_map(*(part for name, value in columns.items() for part in (F.lit(name), value)))
    return F.map_filter(pairs, lambda _, value: value.isNotNull())


def _load(spark: SparkSession, path: str, given: str | None) -> DataFrame:
    local = "://" not in path
    if local and not Path(path).exists():
        raise InputError(f"no such file or folder: {path}")
    kind = given or _format(path)
    location = str(Path(path).absolute()) if local else path
    try:
        reader = spark.read
        if kind in ("csv", "tsv"):
            # Quotes inside quoted fields are doubled in the CSV of everyone but Spark.
            options = {"header": "true", "sep": "," if kind == "csv" else "\t", "escape": '"', "multiLine": "true"}
            rows = reader.options(**options).csv(location)
        else:
            rows = reader.format(kind).load(location)
        rows.limit(1).collect()  # an unreadable file shows only when it is read
    except AnalysisException as error:
        raise InputError(f"cannot read {path} as {kind}: {first_line(str(error))}") from None
    except Exception as error:
        if isinstance(known := explain(error), RetryError):
            raise known from error
        raise InputError(f"cannot read {path} as {kind}: is it damaged?") from error
    return rows


def _format(path: str) -> str:
    """Format by the name of the file, or of the first data file in a folder."""
    folder = Path(path)
    if folder.is_dir():
        if (folder / "_delta_log").is_dir():
            return "delta"
        inside = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(("_", ".")))
        folder = next((p for p in inside if _suffix(p) in FORMATS), folder)
    if _suffix(folder) in FORMATS:
        return FORMATS[_suffix(folder)]
    raise InputError(f"cannot tell the format of {path}: name it with --set source.format=parquet|csv|tsv|json|delta")


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _mapping(there: list[str], given: dict[str, str], path: str) -> dict[str, str]:
    for ours, theirs in given.items():
        if ours not in FIELDS:
            raise InputError(f"--column {ours}: there is no such field; there are {', '.join(FIELDS)}")
        if theirs not in there:
            raise InputError(f"{path} has no column {theirs!r}; it has {', '.join(there)}")
    known = next((m for m in LAYOUTS.values() if set(m.values()) <= set(there)), {})
    mapping = {**known, **given}
    if "raw_caption" not in mapping:
        raise InputError(
            f"{path} has none of the known layouts ({', '.join(LAYOUTS)}): say where the alt-text is with "
            f"--column raw_caption=NAME; it has {', '.join(there)}"
        )
    return mapping
