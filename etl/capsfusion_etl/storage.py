"""Files outside of the tables (manifests, journals, large images, holds), in a folder or an object store."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from capsfusion_etl.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    import pyarrow as pa


def is_remote(folder: str) -> bool:
    """Return whether `folder` is a URL, such as s3a://bucket/lake."""
    return "://" in folder


def as_path(folder: str) -> Path:
    """Return `folder` as a path; for a URL one of universal-pathlib, which has the same methods.

    Raises:
        InputError: the scheme of the URL is unknown.
        MissingDependencyError: the library for the scheme is not installed.
    """
    if not is_remote(folder):
        return Path(folder)
    from upath import UPath

    try:
        path = UPath(folder)
        _ = path.fs  # imports the library for the scheme
    except ImportError as error:
        raise MissingDependencyError(f"{folder}: {error}; for S3: pip install 'capsfusion-lake[s3]'") from None
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from None
    return cast(Path, path)


def filesystem_of(folder: str) -> tuple[Any, str]:
    """Return a pyarrow file system for `folder` and the path in it; URLs that only fsspec supports are wrapped."""
    import pyarrow as pa
    from pyarrow import fs

    if not is_remote(folder):
        return fs.LocalFileSystem(), folder
    try:
        files, path = fs.FileSystem.from_uri(folder.replace("s3a://", "s3://", 1))
    except pa.ArrowInvalid:
        import fsspec

        inner, path = fsspec.core.url_to_fs(folder)
        return fs.PyFileSystem(fs.FSSpecHandler(inner)), path
    return files, path


def check_below(folder: str, within: str) -> None:
    """Check that `folder` lies strictly below `within`: the last check before a recursive removal.

    On a local disk, links are resolved first. In an object store, which has none, the URLs are compared.

    Raises:
        InputError: `folder` is `within` itself, or lies outside of it.
    """
    if is_remote(folder):
        below = folder.rstrip("/").startswith(f"{within.rstrip('/')}/") and ".." not in folder.split("/")
    else:
        below = Path(within).resolve() in Path(folder).resolve().parents
    if not below:
        raise InputError(f"{folder} is not a folder below {within}: nothing was removed")


def remove(folder: Path, *, within: Path) -> None:
    """Delete a folder and everything in it, if it exists.

    Raises:
        InputError: the folder does not lie below `within`, the folder that the caller owns (see `check_below`).
    """
    if not folder.exists():
        return
    check_below(str(folder), str(within))
    if is_remote(str(folder)):
        folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]
    else:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as JSON, atomically."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: readers never see a part of a file."""
    if is_remote(str(path)):  # an object appears when it is complete
        path.write_text(text, encoding="utf-8")
        return
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_parquet(path: Path, table: "pa.Table", **options: Any) -> None:
    """Write `table` to a local file atomically: readers never see a part of it. `options` are those of pyarrow."""
    import pyarrow.parquet as pq

    part = path.with_suffix(".part")
    pq.write_table(table, part, **options)
    part.replace(path)
