"""Build status changes of a run."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from capsfusion_k8s.objects.meta import condition
from capsfusion_k8s.planning.actions import Action, Condition, SetStatus, Trouble
from capsfusion_k8s.run import Run, written

LONGEST = 1024  # characters of a message; longer ones are cut


def to(
    run: Run, phase: str, reason: str, message: str, conditions: Mapping[str, str | Condition] | None = None, *,
    warning: bool = False, **changes: Any,
) -> SetStatus:  # fmt: skip
    """Return the action that sets the phase, which may stay the same.

    Args:
        conditions: By type; one that is given as its status only gets `reason` and `message`.
        warning: Whether the event is a warning.
        changes: Further fields of the status.
    """
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
    """Return the action that ends the run in a terminal phase."""
    good = phase == "Succeeded"
    over: dict[str, str | Condition] = {"Running": "False"} if run.attempt else {}
    conditions = dict(conditions or {}) | over | {"Succeeded" if good else "Failed": "True"}
    return to(run, phase, reason, message, conditions, warning=not good, completionTime=written(now), **changes)


def troubled(run: Run, trouble: Trouble | None, kind: str, status: str) -> list[Action]:
    """Report why a run makes no progress, as a condition of type `kind`; nothing if the condition already says so."""
    known = condition(run.object, kind)
    if trouble is None or (known.get("reason"), known.get("message")) == (trouble.reason, trouble.message[:LONGEST]):
        return []
    return [to(run, run.phase, trouble.reason, trouble.message, {kind: status}, warning=True)]
