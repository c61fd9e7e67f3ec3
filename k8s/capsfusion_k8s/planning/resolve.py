"""Parse the result of the resolve Job, the termination message of its pod: the pin of a snapshot, or an error."""

import json
from dataclasses import dataclass, field
from typing import Self

from capsfusion_k8s.run import Object

_WANTED: dict[str, type] = {
    "tableId": str, "name": str, "version": int, "files": int, "bytes": int, "manifestSha256": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resolved:
    """The pin as written to status.snapshot, or an error with its reason."""

    snapshot: Object = field(default_factory=dict)
    error: str | None = None
    reason: str = "ResolveFailed"

    @classmethod
    def parse(cls, message: str) -> Self:
        """Parse a termination message; an invalid one becomes an error."""
        try:
            said = json.loads(message)
        except ValueError:
            return cls(error=f"the resolve Job said nothing that can be read: {message[:200]!r}")
        if not isinstance(said, dict):
            return cls(error=f"the resolve Job said no object: {message[:200]!r}")
        if "error" in said:
            return cls(error=str(said["error"]), reason=str(said.get("reason", "ResolveFailed")))
        missing = sorted(_WANTED.keys() - said.keys())
        if missing:
            return cls(error=f"the resolve Job did not say {', '.join(missing)}")
        odd = sorted(key for key, kind in _WANTED.items() if not isinstance(said[key], kind))
        if odd:
            return cls(error=f"the resolve Job said something odd as {', '.join(odd)}: {message[:200]!r}")
        if "gate" in said and not isinstance(said["gate"], dict):
            said["gate"] = {"unreadable": str(said["gate"])[:200]}  # `judge` reports it as GateResultInvalid
        return cls(said)
