"""Decide the next actions of a run. Pure: a function of the run, its children and the time; all actions are idempotent.

    Pending -> Resolving -> Gating -> (Rejected | Queued) -> Running <-> Restarting -> Succeeded | Failed

Each call takes at most one step. The attempt number is written into the status before its PyTorchJob is created, and
the job's name contains it: an operator that dies in between creates the same job again, never a second one. The
observed state may be stale: a status is written only if the run's resourceVersion is unchanged, and a job is created
only if a fresh read shows the same run and no live job of another attempt.
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
    Trouble,
)
from capsfusion_k8s.build import GRACE, pytorchjob
from capsfusion_k8s.data import gating, pending, resolving
from capsfusion_k8s.failures import GONE, UNKNOWN, Failure, Kind, first_failure
from capsfusion_k8s.pytorchjob import differences, ended, has, is_running, is_suspended
from capsfusion_k8s.retention import retain
from capsfusion_k8s.run import TERMINAL, Object, Run, duration, parsed, written
from capsfusion_k8s.status import condition, end, to, troubled

WAIT_LONGEST = timedelta(minutes=30)
EVIDENCE_AFTER = timedelta(seconds=5)


def plan(run: Run, children: Children, now: datetime) -> list[Action]:
    """Return the next actions, in order; none if there is nothing to do."""
    steps = _next(run, children, now)
    at_rest = all(isinstance(step, LookAgain) for step in steps)
    return [*steps, *retain(run, children, now)] if at_rest else steps


def _next(run: Run, children: Children, now: datetime) -> list[Action]:
    if run.phase in TERMINAL:
        return [DeleteRun()] if run.expired(now) else _stop(children)  # jobs created after the end
    if run.overdue(now):
        limit = run.spec["activeDeadlineSeconds"]
        return [*_stop(children), end(run, "Failed", "DeadlineExceeded", f"not finished after {limit} seconds", now)]
    steps = {
        "Pending": pending, "Resolving": resolving, "Gating": gating, "Queued": _queued, "Running": _running,
        "Restarting": _restarting,
    }  # fmt: skip
    return steps[run.phase](run, children, now)


def _queued(run: Run, children: Children, now: datetime) -> list[Action]:
    if run.suspended and not children.jobs:
        return _suspended(run)
    if run.attempt == 0:
        return [to(run, "Queued", "Attempt", "attempt 1", attempt=1)]
    others = [attempt for attempt in _living(children) if attempt != run.attempt]
    if others:
        return [DeleteJob(attempt) for attempt in others]
    job = children.jobs.get(run.attempt)
    # With a queue, the job is created suspended, and the queue resumes it.
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
        return [to(run, "Running", "Running", said, conditions, jobRef=reference)]
    return _edited(run, job) or troubled(run, children.trouble, "Running", "False")


def _running(run: Run, children: Children, now: datetime) -> list[Action]:
    job = children.jobs.get(run.attempt)
    if job is None:
        return _failed(run, GONE, now)
    if has(job, "Succeeded"):
        return [end(run, "Succeeded", "Succeeded", f"finished in attempt {run.attempt}", now)]
    if has(job, "Failed"):
        return _job_failed(run, job, children, now)
    if run.suspended and not is_suspended(job):
        return [MakeJob(run.attempt, suspend=True)]
    if is_suspended(job):
        said = "the pods were told to save a checkpoint; the run resumes from it"
        return [to(run, "Queued", "Suspended", said, {"Running": "False", "Suspended": "True"})]
    return _edited(run, job)


def _job_failed(run: Run, job: Object, children: Children, now: datetime) -> list[Action]:
    failure = first_failure(children.pods, job["status"].get("startTime"))
    if failure is None:  # pods have a watch of their own, which may lag behind that of the job
        since = next((c.get("lastTransitionTime") for c in job["status"]["conditions"] if c["type"] == "Failed"), None)
        patience = parsed(since) + EVIDENCE_AFTER if since else now
        if now < patience:
            return [LookAgain(patience)]
        # A busy training operator sets startTime late: pods that failed at once look older than their own job.
        failure = first_failure(children.pods)
    return _failed(run, failure or UNKNOWN, now)


def _failed(run: Run, failure: Failure, now: datetime) -> list[Action]:
    """Schedule another attempt, or end the run as Failed."""
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
        return [end(run, "Failed", failure.reason, f"{failure.message}{spent}", now, lastFailure=said)]
    backoff = duration(run.spec.get("restartPolicy", {}).get("backoff", "30s"))
    pause = timedelta() if disrupted else backoff * 2**run.restarts
    counted: dict[str, Any] = {word: count + 1}
    return [
        to(
            run, "Restarting", failure.reason, failure.message, {"Running": "False"}, warning=True, lastFailure=said,
            restartAt=written(now + min(pause, WAIT_LONGEST)), **counted,
        )
    ]  # fmt: skip


def _restarting(run: Run, children: Children, now: datetime) -> list[Action]:
    if _living(children):  # never two live jobs
        return _stop(children)
    due = run.time("restartAt") or now
    if children.ending:  # pods of two attempts would write to the same checkpoints
        patience = due + timedelta(seconds=int(run.spec.get("checkpoint", {}).get("graceSeconds", GRACE)))
        if now < patience:
            return [LookAgain(patience)]
        who = ", ".join(children.ending[:3])
        waits = Trouble(
            "WaitsForPods", f"pods of the last attempt still exist: {who}; if their node is gone, force-delete them"
        )
        return troubled(run, waits, "Running", "False")
    if now < due:
        return [LookAgain(due)]
    following = run.attempt + 1
    return [to(run, "Queued", "Attempt", f"attempt {following}, from the last checkpoint", attempt=following)]


def _suspended(run: Run) -> list[Action]:
    if condition(run, "Suspended").get("status") == "True":
        return []
    return [to(run, run.phase, "Suspended", "suspended until spec.suspend is false", {"Suspended": "True"})]


def _edited(run: Run, job: Object) -> list[Action]:
    """Restore a job that was changed by hand."""
    if "spec" not in run.object or "trainer" not in run.spec:
        return []
    held = is_suspended(job)
    found = differences(pytorchjob(run, run.attempt, suspend=held)["spec"], job["spec"])
    if not found:
        return []
    said = f"PyTorchJob {run.child(run.attempt)} was changed by hand and is restored: {'; '.join(found[:3])}"
    return [MakeJob(run.attempt, suspend=held), to(run, run.phase, "JobEdited", said, warning=True)]


def _stop(children: Children) -> list[Action]:
    return [DeleteJob(attempt) for attempt in _living(children)]


def _living(children: Children) -> list[int]:
    return [attempt for attempt, job in children.jobs.items() if not ended(job)]
