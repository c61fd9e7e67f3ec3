"""Parse the records of a CSV, TSV or JSON file; a record that is malformed costs itself, and says what is wrong."""

import csv
import io
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from capsfusion_etl.errors import InputError
from capsfusion_etl.storage import filesystem_of

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_MOST = 1_000  # lines of one record: an open quote reads no further
csv.field_size_limit(16 * 2**20)  # characters; Python's default is 128 KiB
_SHOWN = 40  # characters of a record in a message


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot be read: its text, and what is wrong with it."""

    text: str
    why: str


Record = dict[str, Any] | Malformed


@dataclass(frozen=True, slots=True)
class Part:
    """What one task reads: a file, or a range of bytes of a file of JSON lines.

    Attributes:
        name: path or URL of the file.
        kind: csv, tsv or json.
        encoding: encoding of the file, as Python names it.
        header: the columns of a file without a header line; null if it has one.
        start: first byte of the range; the record that begins before it belongs to the range before.
        end: records that begin before this byte belong to the range; null: the whole file.
    """

    name: str
    kind: str
    encoding: str = "utf-8"
    header: tuple[str, ...] | None = None
    start: int = 0
    end: int | None = None


def records_of(part: Part) -> Iterator[tuple[int, Record]]:
    """Yield the records of a file or a range, each with the number of its first line, counted from 1.

    Raises:
        InputError: the file cannot be read, has another encoding, or its header is no header.
    """
    lines = _Lines(_in_range(part) if part.end is not None else _whole(part))
    try:
        yield from _of_json(lines, part) if part.kind == "json" else _delimited(lines, part)
    except UnicodeDecodeError as error:
        line = lines.number + 1 + error.object.count(b"\n", 0, error.start)
        byte = error.object[error.start : error.start + 1].hex()
        hint = "utf-16" if byte in ("ff", "fe") and line == 1 else "latin-1"
        raise InputError(
            f"{part.name} is not {part.encoding}: byte 0x{byte} in line {line}; name its encoding with --encoding, "
            f"such as --encoding {hint}"
        ) from None
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"cannot read {part.name} as {part.kind}: is it damaged? ({error})") from None


def header_of(part: Part) -> list[str]:
    """Return the columns that the header of a file names; none if it is JSON."""
    if part.kind == "json" or part.header:
        return list(part.header or ())
    lines = _Lines(_whole(part))
    return list(_header(_reader(lines, part), lines, part.name))


class _Lines(Iterator[str]):
    """Lines that can be given back.

    Attributes:
        number: number of the last line that was taken, counted from 1.
        taken: the lines of the record that is being read.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._ahead = lines, deque[str]()
        self.number, self.taken = 0, list[str]()

    def __next__(self) -> str:
        if len(self.taken) >= _MOST:
            raise csv.Error("no end")
        line = self._ahead.popleft() if self._ahead else next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line

    def give_back(self) -> str:
        """Give back all lines of the record but the first; return that without its end."""
        first, *rest = self.taken
        self._ahead.extendleft(reversed(rest))
        self.number -= len(rest)
        return first.rstrip("\r\n")


def _whole(part: Part) -> Iterator[str]:
    source, path = filesystem_of(part.name)
    encoding = "utf-8-sig" if _is_utf8(part.encoding) else part.encoding
    with source.open_input_stream(path) as file:
        yield from io.TextIOWrapper(file, encoding, newline="")


def _in_range(part: Part) -> Iterator[str]:
    source, path = filesystem_of(part.name)
    with source.open_input_file(path) as file:
        file.seek(max(part.start - 1, 0))
        with io.BufferedReader(file) as lines:
            at = max(part.start - 1, 0) + (len(lines.readline()) if part.start else 0)
            while part.end is not None and at < part.end and (line := lines.readline()):
                at += len(line)
                yield line.decode("utf-8-sig")


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def _delimited(lines: _Lines, part: Part) -> Iterator[tuple[int, Record]]:
    delimiter, reader = _DELIMITERS[part.kind], _reader(lines, part)
    header = part.header or _header(reader, lines, part.name)
    while True:
        lines.taken.clear()
        at = lines.number + 1
        try:
            values = next(reader)
            if len(lines.taken) > 1 and _are_records(lines.taken, delimiter, len(header)):
                raise csv.Error("lines that are records of their own")
        except csv.Error:
            text = lines.give_back()
            escaped = _escaped(text, delimiter)
            values = escaped or text.split(delimiter)
            if (escaped is None and text.count('"') % 2) or len(values) != len(header):
                yield at, Malformed(text, "a quote that is never closed")
                continue
        except StopIteration:
            return
        if len(values) == len(header):
            yield at, {column: value or None for column, value in zip(header, values, strict=True)}
        elif values:  # not an empty line
            text = "".join(lines.taken).rstrip("\r\n")
            yield at, Malformed(text, f"it has {len(values)} fields, the header {len(header)}")


def _reader(lines: _Lines, part: Part) -> Iterator[list[str]]:
    if part.header:
        return csv.reader(lines, delimiter=_DELIMITERS[part.kind], quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=_DELIMITERS[part.kind], strict=True)


def _header(reader: Iterator[list[str]], lines: _Lines, name: str) -> tuple[str, ...]:
    try:
        header = tuple(column.strip() for column in next(reader, ()))
    except csv.Error:
        raise InputError(f"{name}: the header has a quote that is never closed: {lines.give_back()[:_SHOWN]}") from None
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise InputError(f"{name}: two columns have the name {twice[0]!r}")
    return header


def _are_records(lines: list[str], delimiter: str, fields: int) -> bool:
    """Return whether each line has all fields: then a quote was opened by mistake, and closed by a later mistake.

    Where the first line has an address, the others must have one, too: a quoted text may have lines with commas.
    """
    if fields < 2 or not all(line.count(delimiter) == fields - 1 for line in lines):
        return False
    first, *others = (line.split(delimiter) for line in lines)
    return all("://" in other[at] for at, value in enumerate(first) if "://" in value for other in others)


def _escaped(line: str, delimiter: str) -> list[str] | None:
    """Return the fields of a line that escapes quotes with backslashes instead of doubling them; None if it is none."""
    if '\\"' not in line:
        return None
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True, doublequote=False, escapechar="\\"))
    except csv.Error:
        return None


def _of_json(lines: _Lines, part: Part) -> Iterator[tuple[int, Record]]:
    """Yield the objects of JSON lines, or of a file that is one JSON array."""
    for line in lines:
        lines.taken.clear()
        if not line.strip():
            continue
        if lines.number == 1 and part.end is None and line.lstrip().startswith("["):
            yield from _of_array(line + "".join(_rest(lines)), part.name)
            return
        yield lines.number, _object(line)


def _rest(lines: _Lines) -> Iterator[str]:
    """Yield the rest of the lines, however many."""
    for line in lines:
        lines.taken.clear()
        yield line


def _object(line: str) -> Record:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Malformed(line.rstrip("\r\n"), f"not JSON: {error}")
    return value if isinstance(value, dict) else Malformed(line.rstrip("\r\n"), "not a JSON object")


def _of_array(text: str, name: str) -> Iterator[tuple[int, Record]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} begins as a JSON array, but is none: {error}") from None
    for i, value in enumerate(values, 1):
        yield i, value if isinstance(value, dict) else Malformed(json.dumps(value), "not a JSON object")
