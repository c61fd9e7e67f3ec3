"""Parse the progress of a training from its log."""

import json
import math
from dataclasses import dataclass, field
from typing import Self

from capsfusion_k8s.run import Object

PREFIX = "progress "  # starts the lines that the trainer logs with CAPSFUSION_PROGRESS=stdout
_NUMBERS = {
    "step": "step",
    "total": "total",
    "etaSeconds": "eta_seconds",
    "loss": "loss",
    "pairsPerSecond": "pairs_per_second",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress as in `status.progress` of a run, and the step of the last complete checkpoint."""

    progress: Object = field(default_factory=dict)
    checkpoint_step: int | None = None

    @classmethod
    def of_log(cls, log: str) -> Self | None:
        """Parse the last valid progress line of a log; return None if it has none."""
        for line in reversed(log.splitlines()):
            if line.startswith(PREFIX):
                try:
                    said = json.loads(line.removeprefix(PREFIX))
                    return cls._of(said)
                except (ValueError, TypeError, AttributeError):
                    continue  # a truncated line, or one of another program
        return None

    @classmethod
    def _of(cls, said: Object) -> Self:
        numbers = {key: said.get(theirs) for key, theirs in _NUMBERS.items()}
        found: Object = {k: v for k, v in numbers.items() if isinstance(v, int | float) and math.isfinite(v)}
        if "updated_at" in said:
            found["updatedAt"] = said["updated_at"]
        step = said.get("checkpoint_step")
        return cls(found, int(step) if step is not None else None)
