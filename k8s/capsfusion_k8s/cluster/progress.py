"""Parse the progress of a training from its log."""

import json
import math
import sys
from dataclasses import dataclass, field
from typing import Any, Self

from capsfusion_k8s.run import Object, parsed, written

PREFIX = "progress "  # starts the lines that the trainer logs with CAPSFUSION_PROGRESS=stdout
_COUNTS = {"step": "step", "total": "total"}
_NUMBERS = {"etaSeconds": "eta_seconds", "loss": "loss", "pairsPerSecond": "pairs_per_second"}
_MOST = 2**53  # of a count: what every JSON parser holds


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress as in `status.progress` of a run, and the step and time of the last complete checkpoint."""

    progress: Object = field(default_factory=dict)
    checkpoint_step: int | None = None
    checkpoint_time: str | None = None

    @classmethod
    def of_log(cls, log: str) -> Self | None:
        """Parse the last valid progress line of a log; return None if it has none."""
        for line in reversed(log.splitlines()):
            if line.startswith(PREFIX):
                try:
                    said = json.loads(line.removeprefix(PREFIX))
                    return cls._of(said)
                except (ValueError, TypeError, AttributeError, RecursionError):
                    continue  # a truncated line, or one of another program
        return None

    @classmethod
    def _of(cls, said: Object) -> Self:
        counts = {key: _count(said.get(theirs)) for key, theirs in _COUNTS.items()}
        numbers = {key: _number(said.get(theirs)) for key, theirs in _NUMBERS.items()}
        words = {"updatedAt": _time(said.get("updated_at")), "activity": _word(said.get("activity"))}
        found: Object = {key: value for key, value in (counts | numbers | words).items() if value is not None}
        return cls(found, _count(said.get("checkpoint_step")), _time(said.get("checkpoint_at")))


def _count(value: Any) -> int | None:
    """Return a whole number that the status can hold; None for anything else, which a program of the user may say."""
    whole = _number(value)
    return int(whole) if whole is not None and whole == int(whole) and 0 <= whole <= _MOST else None


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= sys.float_info.max and math.isfinite(value) else None


def _time(value: Any) -> str | None:
    """Return a time as the API server takes it; None for a text that is no time, or one without a time zone."""
    try:
        time = parsed(value)
        return written(time) if time.tzinfo is not None else None
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) <= 40 and value.isascii() and value.isprintable() else None
