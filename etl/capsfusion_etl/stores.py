"""Files that are no tables (journals, large pictures, holds): in a folder, or under a URL of an object store."""

from typing import Any

import pyarrow as pa
from pyarrow import fs


def place(folder: str) -> tuple[Any, str]:
    """The file system of `folder` (a path, or a URL that pyarrow or fsspec know: s3, s3a, gs, hdfs, abfs), and the
    path within it."""
    if "://" not in folder:
        return fs.LocalFileSystem(), folder
    try:
        files, path = fs.FileSystem.from_uri(folder.replace("s3a://", "s3://"))
    except pa.ArrowInvalid:
        import fsspec

        inner, path = fsspec.core.url_to_fs(folder)
        return fs.PyFileSystem(fs.FSSpecHandler(inner)), path
    return files, path
