"""Sources that bring their pictures: webdataset tars, and folders of pictures with texts beside them.

Nothing is unpacked to a disk: a name within a tar is a key, wherever it points. Files are opened by the workers.
"""

import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import filesystem_of
from capsfusion_etl.tables.arrow import schema_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_TEXT_SUFFIXES = (".txt", ".caption", ".json")
COLUMNS = "url string, raw_caption string, extra map<string, string>, bytes binary"
_SCHEMA = schema_of(COLUMNS)
_AT_ONCE = 64


def listing(path: str) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Under a folder or URL: the tars, and stem -> suffix -> file of pictures and their texts."""
    files, root = filesystem_of(path)
    found = files.get_file_info(fs.FileSelector(root, recursive=True) if not path.endswith(".tar") else [root])
    tars, stems = [], dict[str, dict[str, str]]()
    for info in sorted(found, key=lambda f: str(f.path)):
        stem, dot, suffix = info.path.rpartition(".")
        suffix = f"{dot}{suffix}".lower()
        hidden = any(part.startswith((".", "_")) for part in info.path[len(root) :].split("/"))
        if info.type != fs.FileType.File or hidden:
            continue
        if suffix == ".tar":
            tars.append(info.path)
        elif suffix in (*IMAGE_SUFFIXES, *_TEXT_SUFFIXES):
            stems.setdefault(stem, {})[suffix] = info.path
    return tars, {stem: parts for stem, parts in stems.items() if any(s in parts for s in IMAGE_SUFFIXES)}


def read_tars(spark: SparkSession, path: str, tars: list[str], max_bytes: int) -> DataFrame:
    """Rows of COLUMNS: a row for each key of each tar."""
    frame = spark.createDataFrame([(tar,) for tar in tars], "tar string").repartition(len(tars))
    return frame.mapInArrow(partial(_tar_batches, path=path, max_bytes=max_bytes), COLUMNS)


def read_folder(spark: SparkSession, path: str, stems: dict[str, dict[str, str]], max_bytes: int) -> DataFrame:
    """Rows of COLUMNS: a row for each picture with the text beside it."""
    rows = [(stem, json.dumps(parts)) for stem, parts in stems.items()]
    frame = spark.createDataFrame(rows, "stem string, parts string").repartition(max(1, min(200, len(rows) // 100)))
    return frame.mapInArrow(partial(_folder_batches, path=path, max_bytes=max_bytes), COLUMNS)


def _tar_batches(batches: Iterator[pa.RecordBatch], path: str, max_bytes: int) -> Iterator[pa.RecordBatch]:
    files, _ = filesystem_of(path)
    for batch in batches:
        for tar in batch.column("tar").to_pylist():
            try:
                with tarfile.open(fileobj=files.open_input_stream(tar), mode="r|*") as opened:
                    yield from _batched(_samples(opened, tar, max_bytes))
            except (tarfile.TarError, EOFError, OSError) as error:
                raise InputError(f"cannot read {tar}: is it damaged? ({error})") from None


def _samples(opened: tarfile.TarFile, tar: str, max_bytes: int) -> Iterator[dict[str, Any]]:
    """Members that share a key follow each other, as webdataset has it."""
    key, parts = None, dict[str, bytes | None]()
    for member in opened:
        if not member.isfile():  # links lead out of the tar
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if parts and f"{folder}{slash}{stem}" != key:
            yield _row(f"{tar}?key={key}", parts)
            parts = {}
        key = f"{folder}{slash}{stem}"
        content = opened.extractfile(member)
        small = content is not None and member.size <= max_bytes
        parts[f".{suffix.lower()}"] = content.read() if content is not None and small else None
    if parts:
        yield _row(f"{tar}?key={key}", parts)


def _folder_batches(batches: Iterator[pa.RecordBatch], path: str, max_bytes: int) -> Iterator[pa.RecordBatch]:
    files, _ = filesystem_of(path)

    def rows() -> Iterator[dict[str, Any]]:
        for batch in batches:
            for row in batch.to_pylist():
                named = json.loads(row["parts"])
                sizes = {f.path: f.size for f in files.get_file_info(list(named.values()))}
                parts = {
                    suffix: files.open_input_stream(name).read() if (sizes[name] or 0) <= max_bytes else None
                    for suffix, name in named.items()
                }
                image = next(named[suffix] for suffix in IMAGE_SUFFIXES if suffix in named)
                yield _row(f"file://{image}" if image.startswith("/") else image, parts)

    yield from _batched(rows())


def _row(address: str, parts: dict[str, bytes | None]) -> dict[str, Any]:
    """url and caption as img2dataset's JSON has them, else the file's address and the text beside it."""
    about: Any = None
    with suppress(ValueError):  # then the text beside it has to do
        about = json.loads(parts.get(".json") or b"{}")
    about = about if isinstance(about, dict) else {}
    text = (parts.get(".txt") or parts.get(".caption") or b"").decode("utf-8", "replace").strip()
    extra = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in about.items() if v is not None}
    return {
        "url": str(extra.pop("url", None) or address),
        "raw_caption": str(extra.pop("caption", None) or text),
        "extra": list(extra.items()),
        # A picture that was too large to be read is one without bytes: the look at it says so.
        "bytes": next((data for suffix, data in parts.items() if suffix in IMAGE_SUFFIXES), None),
    }


def _batched(rows: Iterator[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == _AT_ONCE:
            yield pa.RecordBatch.from_pylist(part, schema=_SCHEMA)
            part = []
    yield pa.RecordBatch.from_pylist(part, schema=_SCHEMA)
