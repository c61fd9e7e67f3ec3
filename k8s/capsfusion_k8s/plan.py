"""What to do next about a run: a pure function of what is there. Handlers carry it out; doing it twice does it once.

    Pending -> Resolving -> Gating -> (Rejected | Queued) -> Running <-> Restarting -> Succeeded | Failed

Each call takes at most one step. An attempt is written into the status before its PyTorchJob is made, and the job's
name follows from it: an operator that dies in between makes the same job again, and never a second one. What is there
may be seen late: a status is written only if the run is still as it was seen, and a job is made only if, read again,
the run still is, and no other job of it lives.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from capsfusion_k8s.failures import GONE, Failure, Kind, first_failure
from capsfusion_k8s.gate import Gated, judge
from capsfusion_k8s.resolve import Resolved
from capsfusion_k8s.run import TERMINAL, Object, Run, duration, written

WAIT_LONGEST = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Children:
    """What the run owns: the resolve Job with what it said, PyTorchJobs by attempt, pods of the newest attempt."""

    resolver: Object | None = None
    resolved: Resolved | None = None
    jobs: dict[int, Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MakeResolver:
    """Make the Job that resolves the snapshot."""


@dataclass(frozen=True, slots=True)
class MakeJob:
    """Make, or bring back to what it should be, the PyTorchJob of an attempt."""

    attempt: int
    suspend: bool


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete the PyTorchJob of an attempt, and its pods."""

    attempt: int


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """The run's time after its end is over."""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Merge `changes` into the status, and say `reason` and `message` as an event."""

    changes: dict[str, Any]
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nothing to do before a time."""

    at: datetime


Action = MakeResolver | MakeJob | DeleteJob | DeleteRun | SetStatus | LookAgain


def plan(run: Run, children: Children, now: datetime) -> list[Action]:
    """The next actions, in order; none if everything is as it should be."""
    if run.phase in TERMINAL:
        return _after(run, children, now)
    if run.overdue(now):
        limit = run.spec["activeDeadlineSeconds"]
        return [*_stop(children), _end(run, "Failed", "DeadlineExceeded", f"not done after {limit} seconds", now)]
    steps = {
        "Pending": _pending, "Resolving": _resolving, "Gating": _gating, "Queued": _queued, "Running": _running,
        "Restarting": _restarting,
    }  # fmt: skip
    return steps[run.phase](run, children, now)


def _after(run: Run, children: Children, now: datetime) -> list[Action]:
    if run.expired(now):
        return [DeleteRun()]
    return _stop(children)  # a job that was made for a run that has ended since


def _pending(run: Run, children: Children, now: datetime) -> list[Action]:
    return [_to(run, "Resolving", "Resolving", "looking for the snapshot", startTime=written(now))]


def _resolving(run: Run, children: Children, now: datetime) -> list[Action]:
    if children.resolver is None:
        return [MakeResolver()]
    found = children.resolved
    if found is None:
        return []
    if found.error is not None:
        phase = "Rejected" if found.reason == "NoPassingSnapshot" else "Failed"
        return [_end(run, phase, found.reason, found.error, now, condition=("SnapshotResolved", "False"))]
    what = f"version {found.snapshot['version']}, {found.snapshot['files']} files"
    return [
        _to(run, "Gating", "SnapshotResolved", what, snapshot=found.snapshot, condition=("SnapshotResolved", "True"))
    ]


def _gating(run: Run, children: Children, now: datetime) -> list[Action]:
    verdict: Gated = judge(run.spec.get("qualityGate", {}), run.status["snapshot"].get("gate"), now)
    if not verdict.passed:
        condition = ("QualityGatePassed", "False")
        return [_end(run, "Rejected", verdict.reason, verdict.message, now, condition=condition)]
    condition = ("QualityGatePassed", "True")
    return [_to(run, "Queued", verdict.reason, verdict.message, condition=condition)]


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
        condition = ("Running", "True")
        return [_to(run, "Running", "Running", f"attempt {run.attempt} is running", condition=condition)]
    return []


def _running(run: Run, children: Children, now: datetime) -> list[Action]:
    job = children.jobs.get(run.attempt)
    if job is None:
        return _failed(run, GONE, now)
    if has(job, "Succeeded"):
        return [_end(run, "Succeeded", "Succeeded", f"done in attempt {run.attempt}", now)]
    if has(job, "Failed"):
        return _failed(run, first_failure(children.pods), now)
    if run.suspended and not is_suspended(job):
        return [MakeJob(run.attempt, suspend=True)]
    if is_suspended(job):
        return [_to(run, "Queued", "Suspended", "a checkpoint was asked for; resume goes on from it")]
    return []


def _failed(run: Run, failure: Failure, now: datetime) -> list[Action]:
    """Another attempt, or the end."""
    said = {"reason": failure.reason, "message": failure.message, "pod": failure.pod, "exitCode": failure.exit_code}
    disrupted = failure.kind is Kind.DISRUPTION
    count, most = (
        (run.disruptions, run.policy("maxDisruptions", 20))
        if disrupted
        else (run.restarts, run.policy("maxRestarts", 3))
    )
    if failure.kind is Kind.USER or count >= most:
        spent = (
            "" if failure.kind is Kind.USER else f" ({count} {'disruptions' if disrupted else 'restarts'} are used up)"
        )
        return [_end(run, "Failed", failure.reason, f"{failure.message}{spent}", now, lastFailure=said)]
    backoff = duration(run.spec.get("restartPolicy", {}).get("backoff", "30s"))
    pause = timedelta() if disrupted else backoff * 2**run.restarts
    counted: dict[str, Any] = {"disruptions" if disrupted else "restarts": count + 1}
    return [
        _to(
            run, "Restarting", failure.reason, failure.message, warning=True, lastFailure=said,
            restartAt=written(now + min(pause, WAIT_LONGEST)), **counted,
        )
    ]  # fmt: skip


def _restarting(run: Run, children: Children, now: datetime) -> list[Action]:
    if _living(children):  # never two at once
        return _stop(children)
    due = run.time("restartAt")
    if due is not None and now < due:
        return [LookAgain(due)]
    following = run.attempt + 1
    return [_to(run, "Queued", "Attempt", f"attempt {following}, from the last checkpoint", attempt=following)]


def _suspended(run: Run) -> list[Action]:
    if _condition(run, "Suspended") == "True":
        return []
    return [_to(run, run.phase, "Suspended", "waits until it is resumed", condition=("Suspended", "True"))]


def _stop(children: Children) -> list[Action]:
    return [DeleteJob(attempt) for attempt in _living(children)]


def _living(children: Children) -> list[int]:
    return [attempt for attempt, job in children.jobs.items() if not ended(job)]


def _to(
    run: Run, phase: str, reason: str, message: str, *, condition: tuple[str, str] | None = None, warning: bool = False,
    **changes: Any,
) -> SetStatus:  # fmt: skip
    if condition is not None:
        changes["condition"] = {"type": condition[0], "status": condition[1], "reason": reason, "message": message}
    changes |= {"phase": phase, "observedGeneration": run.generation}
    return SetStatus(changes, reason, message, warning)


def _end(run: Run, phase: str, reason: str, message: str, now: datetime, **changes: Any) -> SetStatus:
    condition = changes.pop("condition", (("Succeeded" if phase == "Succeeded" else "Failed"), "True"))
    bad = phase != "Succeeded"
    return _to(run, phase, reason, message, condition=condition, warning=bad, completionTime=written(now), **changes)


def _condition(run: Run, kind: str) -> str | None:
    return next((c["status"] for c in run.status.get("conditions", []) if c["type"] == kind), None)


def has(job: Object, condition: str) -> bool:
    """Is a condition of a PyTorchJob true?"""
    found = job.get("status", {}).get("conditions") or []
    return any(c["type"] == condition and c["status"] == "True" for c in found)


def ended(job: Object) -> bool:
    """Has a PyTorchJob ended, for good or bad?"""
    return has(job, "Succeeded") or has(job, "Failed")


def is_running(job: Object) -> bool:
    """Do pods of a PyTorchJob run?"""
    return has(job, "Running") and not is_suspended(job)


def is_suspended(job: Object) -> bool:
    """Is a PyTorchJob told to pause?"""
    return bool(job["spec"].get("runPolicy", {}).get("suspend", False))
