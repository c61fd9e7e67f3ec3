"""Hold the files of a run's snapshot, that is keep them from VACUUM, as long as spec.retention says.

A short Job holds or releases them on behalf of the run, because the operator has no credentials for the lake. Files
that several runs hold stay until the last one releases them. A hold ends by itself unless it is renewed: one that
nobody could release, as the namespace was deleted, does not keep its files for ever.
"""

from datetime import datetime, timedelta

from capsfusion_k8s.objects.meta import has
from capsfusion_k8s.objects.short_jobs import HOLD_DAYS
from capsfusion_k8s.planning.actions import Action, Children, LookAgain, MakeKeeper, Trouble
from capsfusion_k8s.planning.status import to, troubled
from capsfusion_k8s.run import Run, parsed, written

HELD = "RetentionHeld"
LASTS = timedelta(days=HOLD_DAYS)
RENEW_BEFORE = LASTS / 2


def wants(run: Run, now: datetime) -> bool:
    """Return whether the snapshot should be held now."""
    asked, until = run.spec.get("retention", {}), run.spec.get("retention", {}).get("until")
    return bool(asked.get("holdSnapshot", False)) and (until is None or now < parsed(until))


def held(run: Run) -> bool:
    """Return whether the snapshot is held, according to the run's condition."""
    return has(run.object, HELD)


def keeper_name(run: Run, hold: bool, now: datetime) -> str:
    """Return the name of the Job that holds or releases; each generation of the spec and day of renewal has another."""
    if not hold:
        return f"{run.name}-release-{run.generation}"
    return f"{run.name}-hold-{run.generation}{f'-{now:%Y%m%d}' if held(run) else ''}"


def retain(run: Run, children: Children, now: datetime) -> list[Action]:
    """Return the actions that hold or release the snapshot as spec.retention says."""
    wanted, until = wants(run, now), run.spec.get("retention", {}).get("until")
    renew_at = (run.time("heldUntil") or now) - RENEW_BEFORE
    if "snapshot" not in run.status or (wanted == held(run) and not (wanted and now >= renew_at)):
        times = [*([renew_at] if wanted and held(run) else []), *([parsed(until)] if wanted and until else [])]
        return [LookAgain(min(times))] if times else []
    name = keeper_name(run, wanted, now)
    job = children.keepers.get(name)
    if job is None:
        return [MakeKeeper(name, wanted)]
    if has(job, "Failed"):
        failed = Trouble("HoldFailed", f"its Job {name} failed: see the logs of its pod")
        still = held(run) and now < (run.time("heldUntil") or now)  # a renewal is tried again the next day
        return troubled(run, failed, HELD, "True" if still else "Unknown")
    if not has(job, "Complete"):
        return []
    if not wanted:
        return [to(run, run.phase, "Released", "VACUUM may delete the files", {HELD: "False"}, heldUntil=None)]
    made = parsed(job["metadata"].get("creationTimestamp") or written(now))
    said = f"the snapshot's files are kept from VACUUM; renewed every {RENEW_BEFORE.days} days"
    return [to(run, run.phase, "Held", said, {HELD: "True"}, heldUntil=written(made + LASTS))]
