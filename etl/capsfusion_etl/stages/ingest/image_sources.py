"""Sources that contain images: webdataset tars, and folders of images with text files of the same name.

Workers open the files. Nothing is unpacked to disk: a path inside a tar is only a key, so it cannot write anywhere.
"""

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession

from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.config import AMPERSAND
from capsfusion_etl.storage import filesystem_of
from capsfusion_etl.tables.arrow import batches_of_rows, schema_of

# Files that Pillow cannot decode, such as .heic without a plugin, become rows with the error not_an_image.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
)  # fmt: skip
_TEXT_SUFFIXES = (".txt", ".caption", ".json")
_SUFFIXES = (*IMAGE_SUFFIXES, *_TEXT_SUFFIXES)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
COLUMNS = "url string, raw_caption string, extra map<string, string>, bytes binary"
_SCHEMA = schema_of(COLUMNS)


def listing(path: str) -> tuple[list[str], dict[str, dict[str, str]], Counter[str]]:
    """List a folder, a URL or a single tar.

    Returns:
        The paths of the tars; for each image a map of suffix to path for the files that share its stem; and how many
        files of other suffixes there are.
    """
    files, root = filesystem_of(path)
    found = files.get_file_info(fs.FileSelector(root, recursive=True) if not path.endswith(TARS) else [root])
    tars, stems, others = [], dict[str, dict[str, str]](), Counter[str]()
    for info in sorted(found, key=lambda f: str(f.path)):
        stem, suffix = _split(info.path)
        hidden = any(part.startswith((".", "_")) for part in info.path[len(root) :].split("/"))
        if info.type != fs.FileType.File or hidden:
            continue
        if info.path.lower().endswith(TARS):
            tars.append(info.path)
        elif suffix in _SUFFIXES:
            stems.setdefault(stem, {})[suffix] = info.path
        else:
            others[suffix if "." in info.path.rpartition("/")[2] else "without a suffix"] += 1
    images = {stem: parts for stem, parts in stems.items() if any(s in parts for s in IMAGE_SUFFIXES)}
    return tars, images, others


def _split(path: str) -> tuple[str, str]:
    """Return the path without its last suffix, and that suffix in lower case with its dot."""
    stem, dot, suffix = path.rpartition(".")
    return stem, f"{dot}{suffix}".lower()


def read_tars(spark: SparkSession, path: str, tars: list[str], max_bytes: int, *, explode: bool = False) -> DataFrame:
    """Read webdataset tars into rows of COLUMNS, one for each key of each tar.

    Args:
        max_bytes: larger members are not read; their row has no bytes.
        explode: a list of captions gives a row for each; otherwise it is refused.

    Raises:
        InputError: a tar cannot be read; raised by the action that reads the rows.
    """
    work = partial(_tar_batches, path=path, tars=tars, max_bytes=max_bytes, explode=explode)
    return spark.range(0, len(tars), 1, len(tars)).mapInArrow(work, COLUMNS)  # a task each


def read_folder(
    spark: SparkSession, path: str, stems: dict[str, dict[str, str]], max_bytes: int, *, explode: bool = False
) -> DataFrame:
    """Read the images of a folder into rows of COLUMNS, one for each image with its text.

    Args:
        max_bytes: larger files are not read; the row of such an image has no bytes.
        explode: see `read_tars`.
    """
    rows = [(stem, json.dumps(parts)) for stem, parts in stems.items()]
    frame = spark.createDataFrame(rows, "stem string, parts string").repartition(max(1, min(200, len(rows) // 100)))
    return frame.mapInArrow(partial(_folder_batches, path=path, max_bytes=max_bytes, explode=explode), COLUMNS)


def _tar_batches(
    batches: Iterator[pa.RecordBatch], path: str, tars: list[str], max_bytes: int, explode: bool
) -> Iterator[pa.RecordBatch]:
    files, _ = filesystem_of(path)
    for batch in batches:
        for tar in map(tars.__getitem__, batch.column("id").to_pylist()):
            try:
                with tarfile.open(fileobj=files.open_input_stream(tar), mode="r|*") as opened:
                    yield from batches_of_rows(_SCHEMA, _samples(opened, tar, max_bytes, explode))
            except (tarfile.TarError, EOFError, OSError) as error:
                raise InputError(f"cannot read {tar}: is it damaged? ({error})") from None


def _samples(opened: tarfile.TarFile, tar: str, max_bytes: int, explode: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of each sample; its members are adjacent, as webdataset requires.

    The key of a sample is the name without its last suffix, so `IMG_1.2.jpg` and `IMG_1.2.txt` are a sample. Members
    whose names add a part to that key, such as `0001.seg.png` to `0001.jpg`, belong to the sample as in webdataset, but
    are not read.
    """
    key, parts = "", dict[str, bytes | None]()
    for member in opened:
        hidden = member.name.rpartition("/")[2].startswith(".")  # such as ._x.jpg of macOS, which is no image
        stem, suffix = _split(member.name)
        if not member.isfile() or hidden or suffix not in _SUFFIXES:  # a link may lead out of the tar
            continue
        if parts and stem.startswith(f"{key}."):
            continue
        if parts and stem != key:
            yield from _rows(f"{tar}?key={key}", parts, explode)
            parts = {}
        key = stem
        content = opened.extractfile(member)
        small = content is not None and member.size <= max_bytes
        parts[suffix] = content.read() if content is not None and small else None
    if parts:
        yield from _rows(f"{tar}?key={key}", parts, explode)


def _folder_batches(
    batches: Iterator[pa.RecordBatch], path: str, max_bytes: int, explode: bool
) -> Iterator[pa.RecordBatch]:
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
                yield from _rows(f"file://{image}" if image.startswith("/") else image, parts, explode)

    yield from batches_of_rows(_SCHEMA, rows())


def _rows(address: str, parts: dict[str, bytes | None], explode: bool) -> list[dict[str, Any]]:
    """Build the rows of a sample: URL and caption from the JSON of img2dataset, else its address and text file.

    Raises:
        InputError: the JSON has a list of captions, and `explode` is false.
    """
    about: Any = None
    with suppress(ValueError, RecursionError):  # no valid JSON: use the text file
        about = json.loads(parts.get(".json") or b"{}")
    about = about if isinstance(about, dict) else {}
    caption = about.pop("caption", None)
    if isinstance(caption, list) and not explode:
        raise InputError(f"{address} has a list of captions: --explode raw_caption makes a pair of each")
    if isinstance(caption, dict):
        raise InputError(f"{address} has an object as caption, not a text: its keys are {', '.join(map(str, caption))}")
    text = (parts.get(".txt") or parts.get(".caption") or b"").decode("utf-8-sig", "replace").strip()
    captions = caption if isinstance(caption, list) else [caption]
    said = [str(one) for one in captions if isinstance(one, str | int | float) and one != ""]
    row = _row(address, about, parts)
    return [row | {"raw_caption": one} for one in said or [text]]


def _row(address: str, about: dict[str, Any], parts: dict[str, bytes | None]) -> dict[str, Any]:
    extra = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in about.items() if v is not None}
    return {
        "url": re.sub(AMPERSAND, "&", str(extra.pop("url", None) or address)),
        "extra": list(extra.items()),
        # Null: too large to be read; empty: there is no image. `ImageRow.describe` rejects the row for that reason.
        "bytes": next((data for suffix, data in parts.items() if suffix in IMAGE_SUFFIXES), b""),
    }
