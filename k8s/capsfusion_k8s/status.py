"""A step of a run, as a change of its status."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from capsfusion_k8s.actions import Action, Condition, SetStatus, Trouble
from capsfusion_k8s.run import Object, Run, written

LONGEST = 1024  # characters of a message


def to(
    run: Run, phase: str, reason: str, message: str, conditions: Mapping[str, str | Condition] | None = None, *,
    warning: bool = False, **changes: Any,
) -> SetStatus:  # fmt: skip
    """Into a phase, or to stay in it. Conditions by their status have the step's reason and message."""
    message = message[:LONGEST]
    changes |= {"phase": phase, "observedGeneration": run.generation}
    said = {
        kind: Condition(found, reason, message) if isinstance(found, str) else found
        for kind, found in (conditions or {}).items()
    }
    return SetStatus(changes, reason, message, said, warning)


def end(
    run: Run, phase: str, reason: str, message: str, now: datetime,
    conditions: Mapping[str, str | Condition] | None = None, **changes: Any,
) -> SetStatus:  # fmt: skip
    """Into a terminal phase."""
    good = phase == "Succeeded"
    over: dict[str, str | Condition] = {"Running": "False"} if run.attempt else {}
    conditions = dict(conditions or {}) | over | {"Succeeded" if good else "Failed": "True"}
    return to(run, phase, reason, message, conditions, warning=not good, completionTime=written(now), **changes)


def troubled(run: Run, trouble: Trouble | None, kind: str, status: str) -> list[Action]:
    """Say once, by a condition, why it does not go on."""
    known = condition(run, kind)
    if trouble is None or (known.get("reason"), known.get("message")) == (trouble.reason, trouble.message[:LONGEST]):
        return []
    return [to(run, run.phase, trouble.reason, trouble.message, {kind: status}, warning=True)]


def condition(run: Run, kind: str) -> Object:
    """A condition of a run, or {}."""
    return next((c for c in run.status.get("conditions", []) if c["type"] == kind), {})
