"""The last complete run of a lake: a run whose inputs are the same has nothing to do, and need not ask Spark.

The inputs are the settings, the files that they name, the installed code, and the versions of the tables.
"""

import hashlib
import json
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

from capsfusion_etl.lake.lake import Lake
from capsfusion_etl.settings import Settings, get
from capsfusion_etl.stages.ingest.files import is_pattern
from capsfusion_etl.storage import as_path, is_remote, write_json
from capsfusion_etl.tables import TABLES

_WITHOUT_EFFECT = ("budget", "observe")  # sections that change no row
# Settings that may name a file or a folder to read.
_READ = (
    "source.pairs", "captioner.model", "captioner.adapter", "fuser.model", "fuser.adapter", "fuser.prompt",
    "fuser.rewrite_prompt", "judge.second_opinion.model", "gate.thresholds",
)  # fmt: skip
# Tables that the steps after the snapshot append to, although nothing else changed.
_RECORDS = ("runs", "evaluations")
_PACKAGES = ("capsfusion_etl", "capsfusion_quality", "capsfusion_trainer")


@dataclass(frozen=True, slots=True)
class CompleteRun:
    """A run that ended well.

    Attributes:
        given: hash of its settings, of the files that they name, and of the code.
        versions: table -> version after it.
        snapshot: name of its snapshot.
        report: path of its report.
    """

    given: str
    versions: dict[str, int]
    snapshot: str
    report: str


def inputs(settings: Settings) -> str | None:
    """Return a hash of all that a run is given: to be taken before it reads its source.

    None if the source is behind a URL, whose changes cannot be seen from here, or a pattern, which names no file.
    """
    pairs = str(settings.get("source", {}).get("pairs"))
    if is_remote(pairs) or is_pattern(pairs):
        return None
    named = (get(settings, name) for name in _READ)
    code = (place for name in _PACKAGES if (spec := find_spec(name)) for place in spec.submodule_search_locations or ())
    libraries = Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info")
    parts = [
        {name: section for name, section in settings.items() if name not in _WITHOUT_EFFECT},
        [list(_stamps(Path(path))) for path in named if isinstance(path, str)],
        [list(_stamps(Path(place))) for place in code],
        sorted(path.name for path in libraries),  # names and versions
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def last_complete(lake: Lake, given: str | None) -> CompleteRun | None:
    """Return the last complete run if it was given the same and the tables are as it left them; else None."""
    try:
        last = CompleteRun(**json.loads(_file(lake).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # there is none, or it was cut off, or written by another version
        return None
    same = last.given == given and last.versions == _versions(lake)
    return last if same and as_path(last.report).is_file() else None


def mark_complete(lake: Lake, given: str | None, snapshot: str, report: str) -> None:
    """Record that a run has just ended, unless its source is behind a URL."""
    if given is not None:
        write_json(_file(lake), asdict(CompleteRun(given, _versions(lake), snapshot, report)))


def _file(lake: Lake) -> Path:
    return lake.folder / "complete.json"


def _versions(lake: Lake) -> dict[str, int]:
    return {name: lake.version(name) for name in TABLES if name not in _RECORDS}


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of change (ns) of a file, or of each file in a folder; nothing if there is none."""
    with suppress(OSError, ValueError):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            with suppress(OSError):  # a link to nothing
                if file.is_file() and file.suffix != ".pyc":
                    about = file.stat()
                    yield str(file), about.st_size, about.st_mtime_ns
