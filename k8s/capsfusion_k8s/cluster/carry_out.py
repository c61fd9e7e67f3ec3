"""Carry out the actions of `plan`.

Each action is idempotent. Watches lag behind, so the run and its jobs are read again before a training job is created.
"""

from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from kubernetes.client import ApiException

from capsfusion_k8s.backends import backend_of
from capsfusion_k8s.cluster.api import Api, NameTakenError, words
from capsfusion_k8s.cluster.events import event
from capsfusion_k8s.cluster.kinds import RUNS
from capsfusion_k8s.objects.meta import ROLE, is_of
from capsfusion_k8s.objects.short_jobs import keeper_job, resolve_job
from capsfusion_k8s.planning.actions import (
    Action,
    DeleteJob,
    DeleteRun,
    LookAgain,
    MakeJob,
    MakeKeeper,
    MakeResolver,
    Say,
    SetStatus,
    Trouble,
)
from capsfusion_k8s.planning.goodput import at_change
from capsfusion_k8s.planning.status import troubled
from capsfusion_k8s.run import Object, Run, written

REFUSED = {  # the condition to set if the API server refuses a child, by the child's role
    "resolver": ("SnapshotResolved", "Unknown"),
    "keeper": ("RetentionHeld", "Unknown"),
    "trainer": ("Running", "False"),
}
Found = list[tuple[str, Object]]  # kind and object, from responses of the API server: newer than the watches
Speak = Callable[[Object], None]


def carry_out(action: Action, run: Run, api: Api, now: datetime, say: Speak, *, fresh: bool = False) -> Found:
    """Carry out one action and return the objects that it changed or read again.

    Args:
        say: Receives the events to send.
        fresh: `run` is the response to the operator's last write, so a first attempt need not read it again.

    Raises:
        ApiException: A request failed; status 409 means that the run has changed or was deleted since it was read.
    """
    match action:
        case MakeResolver():
            return _make([resolve_job(run)], run, api, now, say)
        case MakeKeeper(name=name, hold=hold):
            return _make([keeper_job(run, name, hold=hold)], run, api, now, say)
        case MakeJob(attempt=attempt, suspend=suspend):
            return _make_job(run, attempt, suspend, api, now, say, fresh=fresh)
        case DeleteJob(attempt=attempt):
            plural = backend_of(run).plural
            job = api.get(plural, run.namespace, run.child(attempt))
            if job is not None and is_of(job, run.uid):
                api.delete(plural, job)
            return []
        case DeleteRun():
            api.delete(RUNS, run.object)
            return []
        case SetStatus(reason=reason, message=message, warning=warning):
            found = _write(action, run, api, now)
            seen = str(run.object["metadata"].get("resourceVersion"))
            say(event(run, reason, message, now, seen=seen, warning=warning))
            return found
        case Say(reason=reason, message=message, warning=warning):
            say(event(run, reason, message, now, seen="once", warning=warning))
            return []
        case LookAgain():
            return []
        case _:
            assert_never(action)


def _make_job(
    run: Run, attempt: int, suspend: bool, api: Api, now: datetime, say: Speak, *, fresh: bool
) -> Found:  # fmt: skip
    """Create or restore the job of an attempt, unless the run has changed or another attempt's job lives."""
    backend, jobs = backend_of(run), []
    if not (fresh and attempt == 1):
        seen, jobs = api.get(RUNS, run.namespace, run.name), api.listed(backend.plural, run.namespace, run.name)
        if seen is None:
            raise ApiException(status=409, reason="the run was deleted")
        if seen.get("status") != run.object.get("status") or seen["spec"] != run.object["spec"]:
            return [(RUNS, seen)]
    mine = [job for job in jobs if is_of(job, run.uid)]
    others = [job for job in mine if job["metadata"]["name"] != run.child(attempt) and not backend.ended(job)]
    if others:
        return [(backend.plural, job) for job in others]
    known = any(job["metadata"]["name"] == run.child(attempt) for job in mine)
    objects = backend.build(run, attempt, suspend=suspend)
    return _make(objects[-1:] if known else objects, run, api, now, say, known=known)


def _make(objects: list[Object], run: Run, api: Api, now: datetime, say: Speak, *, known: bool = False) -> Found:
    """Create or restore children; if the API server refuses one, put its reason and message into a condition.

    Raises:
        ApiException: With status 409, 5xx or none: worth a retry.
    """
    try:
        return [api.make(found, known=known) for found in objects]
    except NameTakenError as error:
        reason, message = "NameTaken", str(error)
    except ApiException as error:
        if error.status == 409 or error.status is None or error.status >= 500:
            raise
        reason, message = words(error)
        if error.status == 404 and objects[-1]["kind"] == backend_of(run).kind:
            backend = backend_of(run)
            reason = "TrainingOperatorMissing"
            message = f"the kind {backend.kind} is missing in this cluster: install {backend.install}"
    steps = troubled(run, Trouble(reason, message), *REFUSED[objects[-1]["metadata"]["labels"][ROLE]])
    return [item for step in steps for item in carry_out(step, run, api, now, say)]


def _write(action: SetStatus, run: Run, api: Api, now: datetime) -> Found:
    changes = dict(action.changes)
    if action.conditions:
        changes["conditions"] = merged(run, action, now)
    phase = changes.get("phase", run.phase)
    if phase != run.phase:
        changes["goodput"] = at_change(run, phase, now, failed="lastFailure" in changes)
    return [(RUNS, api.patch_status(run, changes))]


def merged(run: Run, action: SetStatus, now: datetime) -> list[Object]:
    """Return the run's conditions updated by the action's; lastTransitionTime changes only with the status."""
    known = {condition["type"]: condition for condition in run.status.get("conditions", [])}
    for kind, said in action.conditions.items():
        same = known.get(kind, {}).get("status") == said.status
        time = known[kind].get("lastTransitionTime") if same else written(now)
        known[kind] = {
            "type": kind, **said._asdict(), "lastTransitionTime": time, "observedGeneration": run.generation,
        }  # fmt: skip
    return list(known.values())
