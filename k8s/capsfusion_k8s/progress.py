"""How far a training is, from the last line that its log says of it."""

import json
import math
from dataclasses import dataclass, field
from typing import Self

from capsfusion_k8s.run import Object

PREFIX = "progress "  # of the trainer's lines (docs/train.md), when CAPSFUSION_PROGRESS is "stdout"
_NUMBERS = {
    "step": "step",
    "total": "total",
    "etaSeconds": "eta_seconds",
    "loss": "loss",
    "pairsPerSecond": "pairs_per_second",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """`progress` as in the status of a run, and the step of the last checkpoint that is whole."""

    progress: Object = field(default_factory=dict)
    checkpoint_step: int | None = None

    @classmethod
    def of_log(cls, log: str) -> Self | None:
        """From the last line that says it; None if none does."""
        for line in reversed(log.splitlines()):
            if line.startswith(PREFIX):
                try:
                    said = json.loads(line.removeprefix(PREFIX))
                    return cls._of(said)
                except (ValueError, TypeError, AttributeError):
                    continue  # half a line, or somebody else's
        return None

    @classmethod
    def _of(cls, said: Object) -> Self:
        numbers = {key: said.get(theirs) for key, theirs in _NUMBERS.items()}
        found: Object = {k: v for k, v in numbers.items() if isinstance(v, int | float) and math.isfinite(v)}
        if "updated_at" in said:
            found["updatedAt"] = said["updated_at"]
        step = said.get("checkpoint_step")
        return cls(found, int(step) if step is not None else None)
