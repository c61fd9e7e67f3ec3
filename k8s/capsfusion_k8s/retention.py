"""Hold the files of a run's snapshot, that is keep them from VACUUM, as long as spec.retention says.

A short Job holds or releases them on behalf of the run, because the operator has no credentials for the lake. Files
that several runs hold stay until the last one releases them.
"""

from datetime import datetime

from capsfusion_k8s.actions import Action, Children, LookAgain, MakeKeeper, Trouble
from capsfusion_k8s.pytorchjob import has
from capsfusion_k8s.run import Run, parsed
from capsfusion_k8s.status import condition, to, troubled

HELD = "RetentionHeld"


def wants(run: Run, now: datetime) -> bool:
    """Return whether the snapshot should be held now."""
    asked, until = run.spec.get("retention", {}), run.spec.get("retention", {}).get("until")
    return bool(asked.get("holdSnapshot", False)) and (until is None or now < parsed(until))


def held(run: Run) -> bool:
    """Return whether the snapshot is held, according to the run's condition."""
    return condition(run, HELD).get("status") == "True"


def retain(run: Run, children: Children, now: datetime) -> list[Action]:
    """Return the actions that hold or release the snapshot as spec.retention says."""
    wanted, until = wants(run, now), run.spec.get("retention", {}).get("until")
    if "snapshot" not in run.status or wanted == held(run):
        return [LookAgain(parsed(until))] if wanted and until else []
    job = children.keepers.get(run.keeper(wanted))
    if job is None:
        return [MakeKeeper(wanted)]
    if has(job, "Failed"):
        return troubled(
            run, Trouble("HoldFailed", "its hold or release Job failed: see the logs of its pod"), HELD, "Unknown"
        )
    if has(job, "Complete"):
        reason, said = (
            ("Held", "the snapshot's files are kept from VACUUM")
            if wanted
            else ("Released", "VACUUM may delete the files")
        )
        return [to(run, run.phase, reason, said, {HELD: str(wanted)})]
    return []
