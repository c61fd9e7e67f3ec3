"""Messages on stderr: plain lines for people, or JSON objects for a log collector."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

_as_json: dict[str, Any] = {}  # fields of every JSON object; empty: plain lines


def log_as_json(**always: Any) -> None:
    """Write all further messages as JSON objects with `time`, `message` and the fields in `always`."""
    _as_json.update(always)


def say(line: str, **fields: Any) -> None:
    """Print one message.

    Args:
        line: the message for people.
        fields: the same content for machines; only JSON objects contain them.
    """
    if _as_json:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, **_as_json, "message": " ".join(line.split()), **fields}, ensure_ascii=False)
    print(line, file=sys.stderr, flush=True)
