"""Files of an export: each appears when it is complete, and its size and hash are known."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

from capsfusion_etl.storage import is_remote

WORK = "_export"  # folder of an unfinished export
_BUFFER = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of an export: its path within it, its size in bytes and its sha256 in hex."""

    path: str
    size: int
    sha256: str


class Output(RawIOBase):
    """A file that is written from its beginning to its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        """Write some bytes; return how many."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes that are written."""
        return self.size

    def writable(self) -> bool:
        """Return true."""
        return True

    def record(self, path: str) -> FileRecord:
        """Return what is known of the file now."""
        return FileRecord(path, self.size, self._hash.hexdigest())


@contextmanager
def written(target: Path, name: str) -> Iterator[Output]:
    """Yield a file of an export that appears under its name at the end of the block, if it did not fail."""
    final = target / name
    if is_remote(str(target)):  # an object appears when it is closed
        try:
            with final.open("wb") as file:
                yield Output(file)
        except BaseException:  # closing it has made an object of what was written so far
            final.unlink(missing_ok=True)
            raise
        return
    # Two attempts at a task may write at the same time: the bytes are the same, and the last one wins.
    part = target / WORK / "parts" / uuid.uuid4().hex
    part.parent.mkdir(parents=True, exist_ok=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb", buffering=_BUFFER) as file:
            yield Output(file)
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(target: Path, name: str, data: bytes) -> FileRecord:
    """Write a small file of an export at once."""
    with written(target, name) as out:
        out.write(data)
    return out.record(name)
