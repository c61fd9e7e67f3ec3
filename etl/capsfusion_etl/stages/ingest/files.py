"""Find the files of a source, in a folder or an object store, and recognise their format by their names."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from pyarrow import fs

from capsfusion_etl.errors import InputError
from capsfusion_etl.stages.ingest.config import FORMATS, HEADLESS, SourceConfig
from capsfusion_etl.storage import filesystem_of, is_remote

_PATTERN = re.compile(r"[*?\[]")
_COMPRESSED = (".gz", ".bz2", ".zst")
S = TypeVar("S")
T = TypeVar("T")
_AT_ONCE = 16  # files of which the driver reads the beginning


def table_of(config: SourceConfig) -> tuple[str, list[str]]:
    """Return the format of a source that is a table, and its data files, sorted.

    The files are paths, or URLs if the source is one. A Delta table is its folder. Names that begin with a dot or an
    underscore are skipped, as Spark does. Of a folder with files of several formats, Parquet is read, else the first:
    JSON beside the tables may be statistics.

    Raises:
        InputError: nothing is there, or the format cannot be recognised.
    """
    given, root = config.pairs, root_of(config)
    kind = config.format or ("tsv" if config.layout in HEADLESS else None)
    if kind == "delta" or (kind is None and _is_delta(root)):
        return "delta", [root]
    names = listed(root)
    if not names:
        raise InputError(f"no such file or folder: {given} (or there are no files in it)")
    kinds = {name: FORMATS.get(suffix_of(name)) for name in names}
    if kind is None:
        found = [k for k in kinds.values() if k]
        if not found:
            raise InputError(
                f"cannot tell the format of {given}: set it with --set source.format=parquet|csv|tsv|json|delta"
            )
        kind = "parquet" if "parquet" in found else found[0]
    return kind, [name for name in names if kinds[name] == kind] or names


def root_of(config: SourceConfig) -> str:
    """Return the absolute path of a source, or its URL."""
    given = str(config.pairs)
    return given if is_remote(given) else str(Path(given).absolute())


def is_pattern(path: str) -> bool:
    """Return whether a path has wildcards, and is not itself the name of a file or folder."""
    return _PATTERN.search(path) is not None and (is_remote(path) or not Path(path).exists())


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, without that of a compression."""
    lower = name.rpartition("/")[2].lower()
    for compressed in _COMPRESSED:
        lower = lower.removesuffix(compressed)
    return Path(lower).suffix


def is_compressed(name: str) -> bool:
    """Return whether the name of a file says that it is compressed."""
    return name.lower().endswith(_COMPRESSED)


def of_each(look: Callable[[S], T], files: Iterable[S]) -> list[T]:
    """Apply `look` to each file, several at once; return the results in order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(look, files))


def _is_delta(root: str) -> bool:
    files, path = filesystem_of(root)
    return bool(files.get_file_info(f"{path.rstrip('/')}/_delta_log").type == fs.FileType.Directory)


def listed(root: str) -> list[str]:
    """Return the files of a folder with all its subfolders, those that a pattern matches, or the file itself."""
    wild = _PATTERN.search(root) if is_pattern(root) else None
    base = root[: wild.start()].rpartition("/")[0] if wild else root.rstrip("/")
    pattern = root[len(base) :] if wild else ""
    files, path = filesystem_of(base)
    info = files.get_file_info(path)
    if info.type == fs.FileType.File:
        return [base]
    inside = files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    below = (f.path[len(path.rstrip("/")) :] for f in inside if f.type == fs.FileType.File)
    return [
        base + name
        for name in sorted(below)
        if not re.search(r"/[._]", name) and (not pattern or fnmatchcase(name, pattern))
    ]
