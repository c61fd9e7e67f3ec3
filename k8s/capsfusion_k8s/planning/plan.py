"""Decide the next actions of a run. Pure: a function of the run, its children and the time; all actions are idempotent.

    Pending -> Resolving -> Gating -> Queued -> WaitingForPods -> Running <-> Restarting -> Succeeded | Failed
                                   -> Rejected

Each call takes at most one step. The attempt number is written into the status before its job is created, and the job's
name contains it: an operator that dies in between creates the same job again, never a second one. The observed state
may be stale: a status is written only if the run's resourceVersion is unchanged, and a job is created only if a fresh
read shows the same run and no live job of another attempt.
"""

from datetime import datetime, timedelta
from typing import Any

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.backends.choice import choose
from capsfusion_k8s.objects.meta import has
from capsfusion_k8s.planning.actions import Action, Children, DeleteJob, DeleteRun, LookAgain, MakeJob, Trouble
from capsfusion_k8s.planning.data import gating, pending, resolving
from capsfusion_k8s.planning.edits import edited
from capsfusion_k8s.planning.failures import GONE
from capsfusion_k8s.planning.goodput import overdue
from capsfusion_k8s.planning.restarts import doomed, job_failed, lost_after_all, restart_or_end, stalled
from capsfusion_k8s.planning.retention import retain, wants
from capsfusion_k8s.planning.status import end, to, troubled
from capsfusion_k8s.run import TERMINAL, Object, Run


def plan(run: Run, children: Children, now: datetime) -> list[Action]:
    """Return the next actions, in order; none if there is nothing to do."""
    steps = _next(run, children, now)
    at_rest = all(isinstance(step, LookAgain) for step in steps)
    return [*steps, *retain(run, children, now)] if at_rest else steps


def _next(run: Run, children: Children, now: datetime) -> list[Action]:
    if run.phase in TERMINAL:
        return _over(run, children, now)
    if overdue(run, now):
        said = f"not finished after {run.spec['activeDeadlineSeconds']} seconds, without those in a queue"
        return [*_stop(run, children), end(run, "Failed", "DeadlineExceeded", said, now)]
    steps = {
        "Pending": pending, "Resolving": resolving, "Gating": gating, "Queued": _queued, "WaitingForPods": _waiting,
        "Running": _running, "Restarting": _restarting,
    }  # fmt: skip
    return steps[run.phase](run, children, now)


def _over(run: Run, children: Children, now: datetime) -> list[Action]:
    """Stop jobs that were created after the end, and delete the run in time, but for one that holds its snapshot."""
    expires = run.expires()
    if expires is None or wants(run, now):
        return _stop(run, children)
    return [DeleteRun()] if now >= expires else _stop(run, children) or [LookAgain(expires)]


def _queued(run: Run, children: Children, now: datetime) -> list[Action]:
    if run.suspended and not children.jobs:
        return _suspended(run)
    if run.backend is None and not children.jobs:
        choice = choose(run, children.backends)
        if choice.backend is None:
            return troubled(run, Trouble(choice.reason, choice.message), "Running", "False")
        chosen = {"BackendChosen": "True"}
        return [to(run, "Queued", choice.reason, choice.message, chosen, backend=choice.backend)]
    if run.attempt == 0:
        return [to(run, "Queued", "Attempt", "attempt 1", attempt=1)]
    others = [attempt for attempt in _living(run, children) if attempt != run.attempt]
    if others:
        return [DeleteJob(attempt) for attempt in others]
    job = children.jobs.get(run.attempt)
    # With a queue, the job is created suspended, and the queue resumes it.
    if job is None:
        return [MakeJob(run.attempt, suspend=run.suspended or "queueName" in run.spec)]
    held = backend_of(run).is_suspended(job)
    if backend_of(run).ended(job):  # it came and went unseen
        return _started(run, children, job)
    if run.suspended:
        return _suspended(run) if held else [MakeJob(run.attempt, suspend=True)]
    if held and "queueName" not in run.spec:
        return [MakeJob(run.attempt, suspend=False)]
    if held:
        return troubled(run, children.queue, "Admitted", "False")
    if children.there or backend_of(run).is_running(job):
        return _started(run, children, job)
    return edited(run, job, now) or troubled(run, children.trouble, "Running", "False")


def _started(run: Run, children: Children, job: Object) -> list[Action]:
    """Leave the queue: the job may make pods."""
    news = {"Admitted": "True"} if "queueName" in run.spec else {}
    if has(run.object, "Suspended"):
        news["Suspended"] = "False"
    reference = {"kind": backend_of(run).kind, "name": run.child(run.attempt), "uid": job["metadata"].get("uid")}
    if _all_ran(run, children, job):
        return [_runs(run, news, jobRef=reference)]
    return [to(run, "WaitingForPods", *_not_all(run), {"Running": "False"} | news, jobRef=reference)]


def _runs(run: Run, news: dict[str, str], **changes: Any) -> Action:
    return to(run, "Running", "Running", f"attempt {run.attempt} is running", {"Running": "True"} | news, **changes)


def _all_ran(run: Run, children: Children, job: Object) -> bool:
    """Return whether enough pods have run to train. Those of another cluster (MultiKueue) are not seen."""
    elsewhere = "managedBy" in run.spec and backend_of(run).is_running(job)
    return elsewhere or children.ran >= run.least_nodes


def _waiting(run: Run, children: Children, now: datetime) -> list[Action]:
    """Wait until every pod has run once; what takes time here is no failure."""
    job = children.jobs.get(run.attempt)
    if job is not None and _all_ran(run, children, job):
        return [_runs(run, {})]
    news = _change(run, job, children, now)
    return news or troubled(run, children.trouble or _not_all(run), "Running", "False")


def _not_all(run: Run) -> Trouble:
    return Trouble("WaitingForPods", f"training begins when {run.least_nodes} pods run")


def _running(run: Run, children: Children, now: datetime) -> list[Action]:
    return _change(run, children.jobs.get(run.attempt), children, now) or stalled(run, children, now)


def _change(run: Run, job: Object | None, children: Children, now: datetime) -> list[Action]:
    """Return what follows from a change of the job of an attempt that has begun."""
    if job is None:
        return restart_or_end(run, GONE, now)
    if backend_of(run).succeeded(job):
        return [end(run, "Succeeded", "Succeeded", f"finished in attempt {run.attempt}", now)]
    if backend_of(run).failed(job):
        return job_failed(run, job, children, now)
    if backend_of(run).is_suspended(job):
        return [_paused(run, children)]
    if run.suspended:
        return [MakeJob(run.attempt, suspend=True)]
    return doomed(run, children, now) or edited(run, job, now)


def _paused(run: Run, children: Children) -> Action:
    if run.suspended or "queueName" not in run.spec:
        said = "the pods were told to save a checkpoint; the run resumes from it"
        return to(run, "Queued", "Suspended", said, {"Running": "False", "Suspended": "True"})
    why = children.queue.message if children.queue else "it says no reason"
    said = f"the queue took the machines back ({why}); the run goes on from its last checkpoint"
    return to(run, "Queued", "Preempted", said, {"Running": "False", "Admitted": "False"}, warning=True)


def _restarting(run: Run, children: Children, now: datetime) -> list[Action]:
    if _living(run, children):  # never two live jobs
        return _stop(run, children)
    news = lost_after_all(run, children, now)
    if news:
        return news
    due = run.time("restartAt") or now
    if children.ending:  # pods of two attempts would write to the same checkpoints
        patience = due + timedelta(seconds=run.grace_s)
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
    if has(run.object, "Suspended"):
        return []
    return [to(run, run.phase, "Suspended", "suspended until spec.suspend is false", {"Suspended": "True"})]


def _stop(run: Run, children: Children) -> list[Action]:
    return [DeleteJob(attempt) for attempt in _living(run, children)]


def _living(run: Run, children: Children) -> list[int]:
    return [attempt for attempt, job in children.jobs.items() if not backend_of(run).ended(job)]
