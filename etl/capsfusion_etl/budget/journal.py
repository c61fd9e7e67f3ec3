"""Write-ahead log of paid requests: after a kill, answers are replayed instead of paid again.

Each slice of work has a folder, and each attempt of a Spark task writes JSON lines there, one before a request is sent
and one after its answer arrives. The folder stays beside the tables until the slice is committed. On a local disk a
killed process loses only the requests in flight (the file is not fsynced, so a machine crash may lose more). An object
store cannot append, so lines are buffered and written as a new object by the first line that comes more than FLUSH_S
after the previous flush; a kill also loses the buffered lines.
"""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pyarrow import fs

from capsfusion_etl.engines import Answer, Key
from capsfusion_etl.storage import check_below, filesystem_of

FLUSH_S = 1.0  # shortest time between two flushes to an object store, each of which creates an object


@dataclass
class Replay:
    """Contents of a folder of journals.

    Attributes:
        answers: request key -> answer.
        lost: key of a request without an answer -> the most that it can have cost, in tokens and dollars.
        stopped: the error that ended the run, as "type: message"; another attempt would fail in the same way.
    """

    answers: dict[Key, Answer] = field(default_factory=dict)
    lost: dict[Key, tuple[int, float]] = field(default_factory=dict)
    stopped: str | None = None


class Journal:
    """Journal of one attempt of a task, with file names of its own in `folder` (see `storage.filesystem_of`).

    On a local disk it is one file, in an object store one object for each flush.
    """

    def __init__(self, folder: str) -> None:
        self._fs, self._folder = filesystem_of(folder)
        self._fs.create_dir(self._folder, recursive=True)
        self._name = uuid.uuid4().hex
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._file = open(f"{self._folder}/{self._name}.jsonl", "ab", buffering=0) if self._local else None  # noqa: SIM115
        self._waiting: list[bytes] = []
        self._flushed, self._parts = time.monotonic(), 0

    def asked(self, key: Key, tokens: int, usd: float) -> None:
        """Log a request before it is sent, with the most tokens and dollars that it can cost."""
        self._write({"k": key, "tokens": tokens, "usd": usd})

    def answered(self, key: Key, answer: Answer) -> None:
        """Log the answer to a request."""
        self._write(
            {
                "k": key,
                "a": [answer.text, answer.error, answer.prompt_tokens, answer.completion_tokens, answer.cost_usd],
            }
        )

    def refused(self, key: Key) -> None:
        """Log that a request cost nothing: the server did not process it."""
        self._write({"k": key})

    def stopped(self, error: Exception) -> None:
        """Log the error that ends the run, so that a retry of the task raises it and sends no requests."""
        self._write({"stop": f"{type(error).__name__}: {error}"})

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        if self._file is not None:
            self._file.write(data)  # unbuffered: in the kernel's page cache it survives SIGKILL
            return
        self._waiting.append(data)
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the buffered lines to the object store as a new object."""
        if self._waiting:
            with self._fs.open_output_stream(f"{self._folder}/{self._name}-{self._parts}.jsonl") as out:
                out.write(b"".join(self._waiting))
            self._waiting, self._parts = [], self._parts + 1
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and close the file."""
        self.flush()
        if self._file is not None:
            self._file.close()


def read(folders: Iterable[str]) -> Replay:
    """Return the contents of the journals in `folders`.

    The order of the lines does not matter. Lines that a kill truncated are skipped: without its answer a request
    counts as lost.
    """
    found, open_ = Replay(), Counter[Key]()
    most: dict[Key, tuple[int, float]] = {}
    for line in (line for folder in folders for line in _lines(folder)):
        try:
            entry = json.loads(line)
            found.stopped = entry.get("stop", found.stopped)
            key: Key = (entry["k"][0], entry["k"][1], int(entry["k"][2]))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            continue
        if "tokens" in entry:
            most[key] = (int(entry["tokens"]), float(entry["usd"]))
            open_[key] += 1
            continue
        open_[key] -= 1
        if "a" in entry:
            found.answers[key] = Answer(*entry["a"])
    for key, count in open_.items():
        if count > 0:
            found.lost[key] = (count * most[key][0], count * most[key][1])
    return found


def folders(root: str) -> list[str]:
    """Return the folders directly below `root`, sorted: one for each slice or batch with a journal."""
    files, path = filesystem_of(root)
    entries = files.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(f"{root}/{e.base_name}" for e in entries if e.type == fs.FileType.Directory)


def remove(folder: str, *, within: str) -> None:
    """Delete the journals in `folder`, if it exists.

    Raises:
        InputError: `folder` does not lie below `within`.
    """
    check_below(folder, within)
    files, path = filesystem_of(folder)
    if files.get_file_info(path).type == fs.FileType.Directory:
        files.delete_dir(path)


def _lines(folder: str) -> Iterator[bytes]:
    files, path = filesystem_of(folder)
    for entry in files.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True)):
        if entry.is_file and entry.extension == "jsonl":
            with files.open_input_stream(entry.path) as stream:
                yield from stream.readall().splitlines()
