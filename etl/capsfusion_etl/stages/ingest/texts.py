"""Read sources that are text: CSV, TSV, JSON lines and JSON arrays. Workers open the files; columns go by name."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.config import AMPERSAND, HEADLESS, SourceConfig, check_addresses, mapping_of
from capsfusion_etl.stages.ingest.files import is_compressed, of_each
from capsfusion_etl.stages.ingest.records import Malformed, Part, Record, header_of, records_of
from capsfusion_etl.storage import filesystem_of
from capsfusion_etl.tables.arrow import batch_of, schema_of

COLUMNS = "url string, raw_caption string, extra map<string, string>, malformed string"
_SCHEMA = schema_of(COLUMNS)
_SAMPLE = 100  # records of each file by which the driver knows its columns
_RANGE = 16 << 20  # bytes of JSON lines for one task
_AT_ONCE = 1_000  # rows in an Arrow batch
_AMPERSAND = re.compile(AMPERSAND)


def read_texts(spark: SparkSession, kind: str, files: list[str], config: SourceConfig) -> DataFrame:
    """Read files of text into rows of COLUMNS; `malformed` says why a record is no row, null if it is one.

    Args:
        spark: the session.
        kind: csv, tsv or json.
        files: paths or URLs.
        config: the source's layout, columns and encoding.

    Raises:
        InputError: a file has another encoding or lacks a column, or the caption is a list or an object; for a file
            whose first records are sound, the action that reads the rows raises it.
    """
    header = HEADLESS.get(config.layout or "")
    whole = [Part(name, kind, config.encoding, header) for name in files]
    samples = dict(zip(files, of_each(_sample, whole), strict=True))
    mapping = mapping_of(
        {name: names for name, (names, _) in samples.items() if names}, config
    )  # empty files lack none
    if "image" in mapping:
        raise InputError(f"{config.pairs} is text: only Parquet and Delta hold the bytes of images (--column image)")
    for name, (_, rows) in samples.items():
        for row in rows:
            if found := _unfit(_value(row, mapping["raw_caption"]), config.explode is not None):
                raise InputError(f"{name}: {mapping['raw_caption']} is {found}")
    check_addresses(mapping, None, list(dict.fromkeys(name for names, _ in samples.values() for name in names)))
    parts = [part for one in whole for part in _ranges(one)]
    work = partial(_batches, parts=parts, mapping=mapping, explode=config.explode is not None)
    return spark.range(0, len(parts), 1, len(parts)).mapInArrow(work, COLUMNS)  # a task each


def _sample(part: Part) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of a file, and its first sound records."""
    rows = [row for _, row in islice(records_of(part), _SAMPLE) if not isinstance(row, Malformed)]
    return list(dict.fromkeys(key for row in rows for key in row)) or header_of(part), rows


def _ranges(part: Part) -> Iterator[Part]:
    """Split a large file of JSON lines; CSV cannot be split, as a caption may contain line breaks."""
    source, path = filesystem_of(part.name)
    lines = part.kind == "json" and not part.name.endswith(".json") and part.encoding == "utf-8"
    size = (source.get_file_info(path).size or 0) if lines and not is_compressed(part.name) else 0
    if size <= _RANGE:
        yield part
        return
    for start in range(0, size, _RANGE):
        yield Part(part.name, part.kind, part.encoding, None, start, min(start + _RANGE, size))


def _batches(
    batches: Iterator[pa.RecordBatch], parts: list[Part], mapping: Mapping[str, str], explode: bool
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for part in map(parts.__getitem__, batch.column("id").to_pylist()):
            rows = (row for at, record in records_of(part) for row in _rows(record, part, at, mapping, explode))
            while some := list(islice(rows, _AT_ONCE)):
                url, raw, extra, malformed = map(list, zip(*some, strict=True))
                yield batch_of(_SCHEMA, len(some), url=url, raw_caption=raw, extra=extra, malformed=malformed)


Row = tuple[str, str, list[tuple[str, str]], str | None]


def _rows(record: Record, part: Part, at: int, mapping: Mapping[str, str], explode: bool) -> Iterator[Row]:
    where = f"{part.name.rpartition('/')[2]}, {f'byte {part.start}, ' if part.start else ''}line {at}"
    if isinstance(record, Malformed):
        yield "", record.text, [], f"{where}: {record.why}"
        return
    url = _AMPERSAND.sub("&", _text(_value(record, mapping.get("url"))).strip())
    mapped = {path for ours, path in mapping.items() if ours != "synthetic_caption"}
    extra = [(key, _text(value)) for key, value in record.items() if value is not None and key not in mapped]
    if "synthetic_caption" in mapping:
        seen = _value(record, mapping["synthetic_caption"])
        extra = [(key, value) for key, value in extra if key not in (mapping["synthetic_caption"], "synthetic_caption")]
        extra += [("synthetic_caption", _text(seen))] if seen is not None else []
    raw = _value(record, mapping["raw_caption"])
    if found := _unfit(raw, explode):
        yield url, _text(raw), [], f"{where}: {mapping['raw_caption']} is {found}"
        return
    for caption in (raw or [None]) if isinstance(raw, list) else [raw]:  # an empty list: one pair without a caption
        yield url, _text(caption), extra, None


def _value(record: Any, path: str | None) -> Any:
    """Return a column of a record, or the part of it that the path names; through lists, the part of each item."""
    if path is None or record is None:
        return None
    if isinstance(record, list):
        return [_value(item, path) for item in record]
    if not isinstance(record, dict):
        return None
    head, _, rest = path.partition(".")
    return record[path] if path in record else _value(record.get(head), rest) if rest else record.get(head)


def _unfit(caption: Any, explode: bool) -> str | None:
    """Return what is wrong with a caption that is not a text, and the way out; None if it is one."""
    if isinstance(caption, list):
        if not explode:
            return "a list of captions: make a pair of each with --explode raw_caption"
        caption = next((item for item in caption if isinstance(item, dict | list)), None)
    if isinstance(caption, dict):
        return f"an object: name the text in it with --column raw_caption=PATH, where it has {', '.join(caption)}"
    return "a list of lists" if isinstance(caption, list) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
