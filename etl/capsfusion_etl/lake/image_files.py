"""Images that are too large for a table row and are stored as files beside the tables."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from capsfusion_etl.errors import InputError
from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.storage import filesystem_of
from capsfusion_etl.tables.arrow import schema_of

_WHOLE = r"(/|\w[\w+.-]*:)"  # the beginning of a path or URL that does not depend on the place of the lake
_BYTES = "url string, image_id string, bytes binary"


def store(data: bytes, folder: str, name: str) -> str:
    """Write `data` to the file `folder`/`name[:2]`/`name` and return its path or URL.

    Args:
        data: the bytes of the image.
        folder: a folder or URL.
        name: the hash of the bytes, so that writing the same image again changes nothing.
    """
    files, root = filesystem_of(folder)
    within = f"{name[:2]}/{name}"
    files.create_dir(f"{root}/{name[:2]}", recursive=True)
    with files.open_output_stream(f"{root}/{within}") as out:
        out.write(data)
    return f"{folder.rstrip('/')}/{within}"


def read_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Read the files of images, for mapInArrow: url, image_id, path -> url, image_id, bytes.

    Each output batch has one image, to limit memory.

    Raises:
        InputError: a file is missing.
    """
    schema = schema_of(_BYTES)
    for batch in batches:
        for row in batch.to_pylist():
            yield pa.RecordBatch.from_pylist([{**row, "bytes": _read(row["path"])}], schema=schema)


def bytes_of(lake: Lake, row: Mapping[str, Any]) -> bytes | None:
    """Return the image of a row of `images`, whether it is stored in the table or in a file; None without an image.

    Raises:
        InputError: the file is missing.
    """
    if row["path"] is None:
        data: bytes | None = row["bytes"]
        return data
    return _read(row["path"] if re.match(_WHOLE, row["path"]) else f"{lake.root}/{row['path']}")


def _read(path: str) -> bytes:
    files, within = filesystem_of(path)
    try:
        data: bytes = files.open_input_stream(within).read()
    except FileNotFoundError:
        raise InputError(f"the image {path} is gone: fetch it again") from None
    return data


def path_within(lake: Lake) -> Column:
    """Return the column `path` as it is stored: relative to the lake for a file in it, so that a lake can be moved."""
    inside = F.startswith("path", F.lit(f"{lake.root}/"))
    return F.when(inside, F.substring("path", len(lake.root) + 2, 2**31 - 1)).otherwise(F.col("path"))


def path_from(lake: Lake) -> Column:
    """Return the stored column `path` as a path or URL that can be opened."""
    whole = F.col("path").rlike(f"^{_WHOLE}")
    return F.when(whole, F.col("path")).otherwise(F.concat(F.lit(f"{lake.root}/"), "path"))


def image_bytes(lake: Lake) -> DataFrame:
    """Return url, image_id and bytes of every fetched image, whether it is stored in the table or in a file."""
    images = lake.read("images").where("error IS NULL")
    inline = images.where("path IS NULL").select("url", "image_id", "bytes")
    if not lake.has_values("images", "path"):
        return inline
    read = images.where("path IS NOT NULL").select("url", "image_id", path_from(lake).alias("path"))
    return inline.unionByName(read.mapInArrow(read_batches, _BYTES))
