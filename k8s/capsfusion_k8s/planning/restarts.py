"""Decide what follows a failed attempt: another one, sooner or later, or the end of the run.

`maxRestarts` and `maxDisruptions` bound the restarts without a newer checkpoint between them: a run of months may fail
more often, as long as it moves on.
"""

from datetime import datetime, timedelta
from typing import Any

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.objects.meta import condition
from capsfusion_k8s.planning.actions import Action, Children, LookAgain
from capsfusion_k8s.planning.failures import UNKNOWN, Failure, Kind, first_failure, node_lost
from capsfusion_k8s.planning.status import end, to
from capsfusion_k8s.run import Object, Run, duration, parsed, written

WAIT_LONGEST, MOST_DOUBLINGS = timedelta(minutes=30), 12
EVIDENCE_AFTER = timedelta(seconds=5)
NODE_EVIDENCE_AFTER = timedelta(seconds=90)  # that a control plane takes to notice a dead node
_WORDS = {Kind.DISRUPTION: ("disruptions", "maxDisruptions", 20), Kind.CRASH: ("restarts", "maxRestarts", 3)}


def job_failed(run: Run, job: Object, children: Children, now: datetime) -> list[Action]:
    """Return what follows the failure of the newest attempt's job."""
    backend = backend_of(run)
    failure, since = first_failure(children.pods, _begun(run)), backend.failed_at(job)
    failed_at = parsed(since) if since else now - NODE_EVIDENCE_AFTER
    if failure is None:  # pods have a watch of their own, which may lag behind that of the job
        if now < failed_at + EVIDENCE_AFTER:
            return [LookAgain(failed_at + EVIDENCE_AFTER)]
        # Pods that fail at once may be older than the note that the run goes on.
        failure = first_failure(children.pods) or UNKNOWN
    last = failure.kind is Kind.CRASH and _used_up(run, Kind.CRASH)
    if last and children.ending and now < failed_at + NODE_EVIDENCE_AFTER:  # is a pod on a dead node the cause?
        return [LookAgain(failed_at + NODE_EVIDENCE_AFTER)]
    return restart_or_end(run, failure, now)


def doomed(run: Run, children: Children, now: datetime) -> list[Action]:
    """Return what follows when a pod has failed, and its job has not within the time that pods have to end.

    A Job of Kubernetes fails only once all of its pods have ended; on a dead node, none does.
    """
    failure = first_failure(children.pods, _begun(run))
    if failure is None or failure.at is None:
        return []
    due = failure.at + timedelta(seconds=run.grace_s) + EVIDENCE_AFTER
    return restart_or_end(run, failure, now) if now >= due else [LookAgain(due)]


def _begun(run: Run) -> str | None:
    """Return when the run went on after a pause or was admitted; before, its pods were told to stop."""
    times = [
        known.get("lastTransitionTime")
        for kind, status in (("Suspended", "False"), ("Admitted", "True"))
        if (known := condition(run.object, kind)).get("status") == status
    ]
    return max(filter(None, times), key=parsed, default=None)


def restart_or_end(run: Run, failure: Failure, now: datetime) -> list[Action]:
    """Schedule another attempt, or end the run as Failed."""
    if failure.kind is Kind.WAITED and run.phase != "WaitingForPods":  # all were there, and did not find each other
        failure = failure.as_crash()
    said = failure.told()
    if failure.kind is Kind.USER:
        return [end(run, "Failed", failure.reason, failure.message, now, lastFailure=said)]
    if failure.kind is Kind.WAITED:
        return [_restart(run, failure, now, lastFailure=said, restartAt=written(now))]
    word, _, _ = _WORDS[failure.kind]
    counts = _since_checkpoint(run)
    if _used_up(run, failure.kind):
        spent = f"{failure.message} ({counts[word]} {word} without a newer checkpoint are used up)"
        return [end(run, "Failed", failure.reason, spent, now, lastFailure=said)]
    pause = timedelta()
    if failure.kind is Kind.CRASH:
        pause = duration(run.spec.get("restartPolicy", {}).get("backoff", "30s"))
        pause *= 2 ** min(counts["restarts"], MOST_DOUBLINGS)
    changes: dict[str, Any] = {word: int(run.status.get(word, 0)) + 1, "sinceCheckpoint": counts}
    counts[word] += 1
    at = written(now + min(pause, WAIT_LONGEST))
    return [_restart(run, failure, now, lastFailure=said, restartAt=at, **changes)]


def _restart(run: Run, failure: Failure, now: datetime, **changes: Any) -> Action:
    return to(run, "Restarting", failure.reason, failure.message, {"Running": "False"}, warning=True, **changes)


def lost_after_all(run: Run, children: Children, now: datetime) -> list[Action]:
    """Count a crash as a disruption, if a node turns out to be lost: the survivors' errors came first."""
    last, lost = run.status.get("lastFailure", {}), node_lost(children.pods)
    if lost is None or last.get("kind") != Kind.CRASH.name.lower():
        return []
    counts = _since_checkpoint(run)
    counts |= {"restarts": max(counts["restarts"] - 1, 0), "disruptions": counts["disruptions"] + 1}
    said = f"{lost.message}; {last.get('pod')} failed first, for lack of it: {last.get('message')}"
    totals = {"restarts": max(int(run.status.get("restarts", 0)) - 1, 0)}
    totals["disruptions"] = int(run.status.get("disruptions", 0)) + 1
    told = lost.told() | {"message": said[:1024]}
    again: dict[str, Any] = {"restartAt": written(now), "lastFailure": told, "sinceCheckpoint": counts, **totals}
    return [to(run, "Restarting", lost.reason, said, warning=True, **again)]


def stalled(run: Run, children: Children, now: datetime) -> list[Action]:
    """Restart an attempt whose pods run and say nothing new for spec.stallSeconds.

    If no log can be read, nobody knows whether they do.
    """
    due = stalls_at(run)
    if due is None or now < due:
        return [LookAgain(due)] if due is not None else []
    if children.last_heard is None:
        return []
    said = f"no progress for {run.spec['stallSeconds']} seconds: {children.last_heard}"
    return restart_or_end(run, Failure(Kind.CRASH, "Stalled", said), now)


def stalls_at(run: Run) -> datetime | None:
    """Return when a running attempt counts as stalled unless it says something; None if it never does."""
    limit, progress = int(run.spec.get("stallSeconds", 0)), run.status.get("progress", {})
    began = condition(run.object, "Running")
    if (
        not limit
        or "managedBy" in run.spec
        or run.phase != "Running"
        or began.get("status") != "True"
        or "lastTransitionTime" not in began
    ):
        return None
    since, updated = parsed(began["lastTransitionTime"]), progress.get("updatedAt")
    if updated and parsed(updated) > since:
        if progress.get("activity", "training") != "training":  # such as a checkpoint or an evaluation
            return None
        since = parsed(updated)
    return since + timedelta(seconds=limit)


def _used_up(run: Run, kind: Kind) -> bool:
    word, policy, default = _WORDS[kind]
    return bool(_since_checkpoint(run)[word] >= run.policy(policy, default))


def _since_checkpoint(run: Run) -> dict[str, int]:
    """Return the restarts and disruptions since the last checkpoint that was newer than the one before."""
    known = run.status.get("sinceCheckpoint", {})
    if int(known.get("step", -1)) < run.checkpoint_step:
        known = {}
    counts = {word: int(known.get(word, 0)) for word in ("restarts", "disruptions")}
    return counts | {"step": run.checkpoint_step}
