"""The hold on a run's snapshot: its files are kept from VACUUM as long as spec.retention says.

A short Job holds or releases them in the run's name, as the operator has no credentials of a lake; what several runs
hold stays until the last one lets go.
"""

from datetime import datetime

from capsfusion_k8s.actions import Action, Children, LookAgain, MakeKeeper, Trouble
from capsfusion_k8s.pytorchjob import has
from capsfusion_k8s.run import Run, parsed
from capsfusion_k8s.status import condition, to, troubled

HELD = "RetentionHeld"


def wants(run: Run, now: datetime) -> bool:
    """Should the snapshot be held now?"""
    asked, until = run.spec.get("retention", {}), run.spec.get("retention", {}).get("until")
    return bool(asked.get("holdSnapshot", False)) and (until is None or now < parsed(until))


def held(run: Run) -> bool:
    """Is it held, as far as is known?"""
    return condition(run, HELD).get("status") == "True"


def retain(run: Run, children: Children, now: datetime) -> list[Action]:
    """Bring what is held to what should be."""
    wanted, until = wants(run, now), run.spec.get("retention", {}).get("until")
    if "snapshot" not in run.status or wanted == held(run):
        return [LookAgain(parsed(until))] if wanted and until else []
    job = children.keepers.get(run.keeper(wanted))
    if job is None:
        return [MakeKeeper(wanted)]
    if has(job, "Failed"):
        return troubled(run, Trouble("HoldFailed", "its Job failed: see the logs of its pod"), HELD, "Unknown")
    if has(job, "Complete"):
        reason, said = (
            ("Held", "its files are kept from VACUUM") if wanted else ("Released", "VACUUM may take its files")
        )
        return [to(run, run.phase, reason, said, {HELD: str(wanted)})]
    return []
