"""What paid engines were asked and answered, written down at once: a kill costs the requests in flight, no more.

A folder of JSON lines for each slice of work, one file for each attempt of a Spark task. It lives beside the tables
until its slice is committed; whoever goes on after a kill takes the answers from it instead of paying again.
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

FLUSH_S = 1.0  # on object stores, which cannot append: a file for each such time


@dataclass
class Replay:
    """What a folder of journals holds: answers, what was asked and never answered (tokens, dollars at most), and the
    error that no further attempt can mend."""

    answers: dict[Key, Answer] = field(default_factory=dict)
    lost: dict[Key, tuple[int, float]] = field(default_factory=dict)
    stopped: str | None = None


class Journal:
    """Writes one file in `folder` (a path, or a URL that pyarrow knows: s3, gs, hdfs, abfs)."""

    def __init__(self, folder: str) -> None:
        self._fs, self._folder = filesystem_of(folder)
        self._fs.create_dir(self._folder, recursive=True)
        self._name = uuid.uuid4().hex
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._file = open(f"{self._folder}/{self._name}.jsonl", "ab", buffering=0) if self._local else None  # noqa: SIM115
        self._waiting: list[bytes] = []
        self._flushed, self._parts = time.monotonic(), 0

    def asked(self, key: Key, tokens: int, usd: float) -> None:
        """A request goes out that can take so much."""
        self._write({"k": key, "tokens": tokens, "usd": usd})

    def answered(self, key: Key, answer: Answer) -> None:
        """Its answer."""
        self._write(
            {
                "k": key,
                "a": [answer.text, answer.error, answer.prompt_tokens, answer.completion_tokens, answer.cost_usd],
            }
        )

    def refused(self, key: Key) -> None:
        """The server did not take it: it cost nothing, and was not answered."""
        self._write({"k": key})

    def stopped(self, error: Exception) -> None:
        """The run has to stop: an attempt that Spark starts again must not ask anew."""
        self._write({"stop": f"{type(error).__name__}: {error}"})

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        if self._file is not None:
            self._file.write(data)  # past SIGKILL once it is with the kernel
            return
        self._waiting.append(data)
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the store."""
        if self._waiting:
            with self._fs.open_output_stream(f"{self._folder}/{self._name}-{self._parts}.jsonl") as out:
                out.write(b"".join(self._waiting))
            self._waiting, self._parts = [], self._parts + 1
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and let go of the file."""
        self.flush()
        if self._file is not None:
            self._file.close()


def read(folders: Iterable[str]) -> Replay:
    """What the journals in `folders` hold, in whatever order; a line that a kill cut in two was not answered yet."""
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
    """The slices that have a journal under `root`."""
    files, path = filesystem_of(root)
    entries = files.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(f"{root}/{e.base_name}" for e in entries if e.type == fs.FileType.Directory)


def remove(folder: str, *, within: str) -> None:
    """Forget a slice: its rows are committed.

    Raises:
        InputError: it does not lie below `within`.
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
