"""Lines on stderr: for people, or as JSON objects for a log collector."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

_as_json: dict[str, Any] = {}  # what every object has; empty: lines are for people


def log_as_json(**always: Any) -> None:
    """From now on a line is a JSON object with `time`, `message`, and these fields."""
    _as_json.update(always)


def say(line: str, **fields: Any) -> None:
    """One line; `fields` are what it says, for machines."""
    if _as_json:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **_as_json, "message": " ".join(line.split()), **fields}, ensure_ascii=False)
    print(line, file=sys.stderr, flush=True)
