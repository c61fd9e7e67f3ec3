"""The last complete run of a lake: a run whose inputs are the same has nothing to do, and need not ask Spark.

The inputs are the settings, the files that they name, the code of this project and the versions of the tables.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.settings import Settings
from capsfusion_etl.storage import as_path, is_remote, write_json
from capsfusion_etl.tables import TABLES

# Sections that change no row; the folders that they name are written by runs.
_WITHOUT_EFFECT = ("budget", "observe")
# Tables that the steps after the snapshot append to, although nothing else changed.
_RECORDS = ("runs", "evaluations")
_PACKAGES = ("capsfusion_etl", "capsfusion_quality", "capsfusion_trainer")


@dataclass(frozen=True, slots=True)
class CompleteRun:
    """The result of a complete run: its inputs as a hash, the name of the snapshot and the path of the report."""

    inputs: str
    snapshot: str
    report: str


def last_complete(lake: Lake, settings: Settings) -> CompleteRun | None:
    """Return the last complete run if its inputs are those of a run now; else None."""
    path = _file(lake)
    if not path.is_file():
        return None
    last = CompleteRun(**json.loads(path.read_text(encoding="utf-8")))
    return last if last.inputs == _inputs(lake, settings) and as_path(last.report).is_file() else None


def mark_complete(lake: Lake, settings: Settings, snapshot: str, report: str) -> None:
    """Record that a run has just ended; not if its source is remote, whose changes cannot be seen from here."""
    inputs = _inputs(lake, settings)
    if inputs is not None:
        write_json(_file(lake), asdict(CompleteRun(inputs, snapshot, report)))


def _file(lake: Lake) -> Path:
    return lake.folder / "complete.json"


def _inputs(lake: Lake, settings: Settings) -> str | None:
    if is_remote(str(settings.get("source", {}).get("pairs"))):
        return None
    effective = {name: section for name, section in settings.items() if name not in _WITHOUT_EFFECT}
    named = [Path(text) for text in _texts(effective) if len(text) < 4096 and "\0" not in text]
    parts = [
        effective,
        {name: lake.version(name) for name in TABLES if name not in _RECORDS},
        [list(_stamps(path)) for path in sorted({path for path in named if path.exists()})],
        [list(_stamps(Path(place), "*.py")) for place in _code()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    """Yield every string within nested dicts and lists."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str) and value:
        yield value


def _code() -> Iterator[str]:
    for package in _PACKAGES:
        found = find_spec(package)
        yield from (found.submodule_search_locations or ()) if found is not None else ()


def _stamps(path: Path, pattern: str = "*") -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of change (ns) of a file, or of each file in a folder."""
    for file in [path] if path.is_file() else sorted(path.rglob(pattern)):
        about = file.stat()
        if file.is_file():
            yield str(file), about.st_size, about.st_mtime_ns
