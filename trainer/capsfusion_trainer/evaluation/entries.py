"""Entries of benchmark files: a wrong one is refused by its place in the file, and nothing is scored in its stead."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capsfusion_etl.errors import InputError


class Entry:
    """One object of a file.

    Args:
        row: its parsed JSON.
        where: file, list and position, for messages.

    Raises:
        InputError: it is not an object.
    """

    def __init__(self, row: Any, where: str) -> None:
        if not isinstance(row, dict):
            raise InputError(f"{where} must be an object, not {_shown(row)}")
        self.row, self.where = row, where

    def text(self, key: str, *, default: str | None = None) -> str:
        """Return a text that is not blank; a key that is missing or null gives `default`, if there is one."""
        value = self.row.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
            raise self.wrong(key, "a text")
        return value

    def name(self, key: str) -> int | str:
        """Return a whole number or a text that names something."""
        value = self.row.get(key)
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "" or not _is_unicode(str(value)):
            raise self.wrong(key, "a whole number or a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of at least one text, none of them blank."""
        value = self.row.get(key)
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(v, str) and v.strip() and _is_unicode(v) for v in value)
        ):
            raise self.wrong(key, "a list of texts")
        return tuple(value)

    def wrong(self, key: str, wanted: str) -> InputError:
        """Return the error that `key` is not what is wanted."""
        if key not in self.row:
            return InputError(f"{self.where} has no {key!r}")
        return InputError(f"{self.where}: {key!r} must be {wanted}, not {_shown(self.row[key])}")


def entries(rows: Any, where: str) -> Iterator[Entry]:
    """Yield the entries of a list.

    Raises:
        InputError: `rows` is not a list, is empty, or has something else than objects.
    """
    if not isinstance(rows, list):
        raise InputError(f"{where} must be a list, not {_shown(rows)}")
    if not rows:
        raise InputError(f"{where} is empty: there is nothing to score")
    for i, row in enumerate(rows):
        yield Entry(row, f"{where}, entry {i}")


def read_json(path: Path) -> Any:
    """Return the parsed JSON of a file.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def read_json_lines(path: Path) -> list[Any]:
    """Return the parsed lines of a file, without blank ones.

    Raises:
        InputError: the file cannot be read, or a line is not JSON.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a file of JSON lines: {error}") from None


def _is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogate, which JSON can hold and UTF-8 cannot."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:60].encode(errors="replace").decode()
