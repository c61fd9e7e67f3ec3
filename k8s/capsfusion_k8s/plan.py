"""What to do next about a run: a pure function of what is there. Carried out twice, it is done once.

    Pending -> Resolving -> Gating -> (Rejected | Queued) -> Running <-> Restarting -> Succeeded | Failed

Each call takes at most one step. An attempt is written into the status before its PyTorchJob is made, and the job's
name follows from it: an operator that dies in between makes the same job again, and never a second one. What is there
may be seen late: a status is written only if the run is still as it was seen, and a job is made only if, read again,
the run still is, and no other job of it lives.
"""

from datetime import datetime, timedelta
from typing import Any

from capsfusion_k8s.actions import (
    Action,
    Children,
    DeleteJob,
    DeleteRun,
    LookAgain,
    MakeJob,
    MakeResolver,
    SetStatus,
    Trouble,
    Warn,
)
from capsfusion_k8s.build import GRACE, pytorchjob
from capsfusion_k8s.failures import GONE, UNKNOWN, Failure, Kind, first_failure
from capsfusion_k8s.gate import Gated, judge
from capsfusion_k8s.pytorchjob import differences, ended, has, is_running, is_suspended
from capsfusion_k8s.run import TERMINAL, Object, Run, duration, parsed, written

WAIT_LONGEST = timedelta(minutes=30)
EVIDENCE_AFTER = timedelta(seconds=5)


def plan(run: Run, children: Children, now: datetime) -> list[Action]:
    """The next actions, in order; none if everything is as it should be."""
    if run.phase in TERMINAL:
        return [DeleteRun()] if run.expired(now) else _stop(children)  # a job that was made when the run had ended
    if run.overdue(now):
        limit = run.spec["activeDeadlineSeconds"]
        return [*_stop(children), _end(run, "Failed", "DeadlineExceeded", f"not done after {limit} seconds", now)]
    steps = {
        "Pending": _pending, "Resolving": _resolving, "Gating": _gating, "Queued": _queued, "Running": _running,
        "Restarting": _restarting,
    }  # fmt: skip
    return steps[run.phase](run, children, now)


def _pending(run: Run, children: Children, now: datetime) -> list[Action]:
    image = run.spec.get("trainer", {}).get("image", "@")
    loose = Warn("ImageNotPinned", f"{image} has no digest: an attempt may get another image than the one before")
    begin = _to(run, "Resolving", "Resolving", "looking for the snapshot", startTime=written(now))
    # The Job first: it takes a while.
    return [*([] if "@" in image else [loose]), MakeResolver(), begin]


def _resolving(run: Run, children: Children, now: datetime) -> list[Action]:
    if children.resolver is None:
        return [MakeResolver()]
    found = children.resolved
    if found is None:
        return _troubled(run, children.trouble, {"SnapshotResolved": "Unknown"})
    refused = {"SnapshotResolved": "False"}
    if found.error is not None:
        phase = "Rejected" if found.reason == "NoPassingSnapshot" else "Failed"
        return [_end(run, phase, found.reason, found.error, now, refused)]
    wanted = run.spec.get("dataset", {}).get("tableId")
    if wanted not in (None, found.snapshot["tableId"]):
        other = f"the table's id is {found.snapshot['tableId']}, not {wanted}: it is another one, or was made anew"
        return [_end(run, "Failed", "TableMismatch", other, now, refused)]
    what = f"version {found.snapshot['version']}, {found.snapshot['files']} files"
    return [_to(run, "Gating", "SnapshotResolved", what, {"SnapshotResolved": "True"}, snapshot=found.snapshot)]


def _gating(run: Run, children: Children, now: datetime) -> list[Action]:
    verdict: Gated = judge(run.spec.get("qualityGate", {}), run.status["snapshot"].get("gate"), now)
    passed = {"QualityGatePassed": str(verdict.passed)}
    if not verdict.passed:
        return [_end(run, "Rejected", verdict.reason, verdict.message, now, passed)]
    first: dict[str, Any] = {} if run.suspended else {"attempt": 1}
    return [_to(run, "Queued", verdict.reason, verdict.message, passed, **first)]


def _queued(run: Run, children: Children, now: datetime) -> list[Action]:
    if run.suspended and not children.jobs:
        return _suspended(run)
    if run.attempt == 0:
        return [_to(run, "Queued", "Attempt", "attempt 1", attempt=1)]
    others = [attempt for attempt in _living(children) if attempt != run.attempt]
    if others:
        return [DeleteJob(attempt) for attempt in others]
    job = children.jobs.get(run.attempt)
    # With a queue the job is made suspended, and the queue lets it go.
    held = run.suspended or (job is None and "queueName" in run.spec)
    if job is None:
        return [MakeJob(run.attempt, suspend=held)]
    if run.suspended and not is_suspended(job):
        return [MakeJob(run.attempt, suspend=True)]
    if run.suspended:
        return _suspended(run)
    if is_suspended(job) and "queueName" not in run.spec:
        return [MakeJob(run.attempt, suspend=False)]
    if is_running(job) or ended(job):
        conditions = {"Running": "True", "Suspended": "False"} | (
            {"Admitted": "True"} if "queueName" in run.spec else {}
        )
        reference = {"name": run.child(run.attempt), "uid": job.get("metadata", {}).get("uid")}
        said = f"attempt {run.attempt} is running"
        return [_to(run, "Running", "Running", said, conditions, jobRef=reference)]
    return _edited(run, job) or _troubled(run, children.trouble, {"Running": "False"})


def _running(run: Run, children: Children, now: datetime) -> list[Action]:
    job = children.jobs.get(run.attempt)
    if job is None:
        return _failed(run, GONE, now)
    if has(job, "Succeeded"):
        return [_end(run, "Succeeded", "Succeeded", f"done in attempt {run.attempt}", now)]
    if has(job, "Failed"):
        return _job_failed(run, job, children, now)
    if run.suspended and not is_suspended(job):
        return [MakeJob(run.attempt, suspend=True)]
    if is_suspended(job):
        said = "a checkpoint was asked for; resume goes on from it"
        return [_to(run, "Queued", "Suspended", said, {"Running": "False", "Suspended": "True"})]
    return _edited(run, job)


def _job_failed(run: Run, job: Object, children: Children, now: datetime) -> list[Action]:
    failure = first_failure(children.pods, job["status"].get("startTime"))
    if failure is None:  # pods are watched apart: what they say may come later
        since = next((c.get("lastTransitionTime") for c in job["status"]["conditions"] if c["type"] == "Failed"), None)
        patience = parsed(since) + EVIDENCE_AFTER if since else now
        if now < patience:
            return [LookAgain(patience)]
    return _failed(run, failure or UNKNOWN, now)


def _failed(run: Run, failure: Failure, now: datetime) -> list[Action]:
    """Another attempt, or the end."""
    said = {
        "reason": failure.reason, "message": failure.message[:1024], "pod": failure.pod,
        "exitCode": failure.exit_code, "logTail": failure.log_tail,
    }  # fmt: skip
    disrupted = failure.kind is Kind.DISRUPTION
    count, most, word = (
        (run.disruptions, run.policy("maxDisruptions", 20), "disruptions")
        if disrupted
        else (run.restarts, run.policy("maxRestarts", 3), "restarts")
    )
    if failure.kind is Kind.USER or count >= most:
        spent = "" if failure.kind is Kind.USER else f" ({count} {word} are used up)"
        return [_end(run, "Failed", failure.reason, f"{failure.message}{spent}", now, lastFailure=said)]
    backoff = duration(run.spec.get("restartPolicy", {}).get("backoff", "30s"))
    pause = timedelta() if disrupted else backoff * 2**run.restarts
    counted: dict[str, Any] = {word: count + 1}
    return [
        _to(
            run, "Restarting", failure.reason, failure.message, {"Running": "False"}, warning=True, lastFailure=said,
            restartAt=written(now + min(pause, WAIT_LONGEST)), **counted,
        )
    ]  # fmt: skip


def _restarting(run: Run, children: Children, now: datetime) -> list[Action]:
    if _living(children):  # never two at once
        return _stop(children)
    due = run.time("restartAt") or now
    if children.ending:  # two gangs would write into one checkpoint
        patience = due + timedelta(seconds=int(run.spec.get("checkpoint", {}).get("graceSeconds", GRACE)))
        if now < patience:
            return [LookAgain(patience)]
        who = ", ".join(children.ending[:3])
        waits = Trouble(
            "WaitsForPods", f"the last attempt's pods still live: {who}; delete them by force if their node is gone"
        )
        return _troubled(run, waits, {"Running": "False"})
    if now < due:
        return [LookAgain(due)]
    following = run.attempt + 1
    return [_to(run, "Queued", "Attempt", f"attempt {following}, from the last checkpoint", attempt=following)]


def _suspended(run: Run) -> list[Action]:
    if _condition(run, "Suspended").get("status") == "True":
        return []
    return [_to(run, run.phase, "Suspended", "waits until it is resumed", {"Suspended": "True"})]


def _edited(run: Run, job: Object) -> list[Action]:
    """Bring a job back that somebody changed."""
    if "spec" not in run.object or "trainer" not in run.spec:
        return []
    held = is_suspended(job)
    found = differences(pytorchjob(run, run.attempt, suspend=held)["spec"], job["spec"])
    if not found:
        return []
    said = f"PyTorchJob {run.child(run.attempt)} was changed by hand and is set back: {'; '.join(found[:3])}"
    return [MakeJob(run.attempt, suspend=held), _to(run, run.phase, "JobEdited", said, warning=True)]


def _troubled(run: Run, trouble: Trouble | None, conditions: dict[str, str]) -> list[Action]:
    """Say once why it does not go on."""
    known = _condition(run, next(iter(conditions)))
    if trouble is None or (known.get("reason"), known.get("message")) == trouble:
        return []
    return [_to(run, run.phase, trouble.reason, trouble.message, conditions, warning=True)]


def _stop(children: Children) -> list[Action]:
    return [DeleteJob(attempt) for attempt in _living(children)]


def _living(children: Children) -> list[int]:
    return [attempt for attempt, job in children.jobs.items() if not ended(job)]


def _to(
    run: Run, phase: str, reason: str, message: str, conditions: dict[str, str] | None = None, *,
    warning: bool = False, **changes: Any,
) -> SetStatus:  # fmt: skip
    changes |= {"phase": phase, "observedGeneration": run.generation}
    return SetStatus(changes, reason, message[:1024], conditions or {}, warning)


def _end(
    run: Run, phase: str, reason: str, message: str, now: datetime, conditions: dict[str, str] | None = None,
    **changes: Any,
) -> SetStatus:  # fmt: skip
    verdict = "Succeeded" if phase == "Succeeded" else "Failed"
    over = {"Running": "False"} if run.attempt else {}
    conditions = (conditions or {}) | over | {verdict: "True"}
    bad = phase != "Succeeded"
    return _to(run, phase, reason, message, conditions, warning=bad, completionTime=written(now), **changes)


def _condition(run: Run, kind: str) -> Object:
    return next((c for c in run.status.get("conditions", []) if c["type"] == kind), {})
