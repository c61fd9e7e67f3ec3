"""Carry out the actions of `plan`.

Each action is idempotent. Watches lag behind, so the run and its jobs are read again before a PyTorchJob is created.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_never

from kubernetes.client import ApiException

from capsfusion_k8s.actions import (
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
from capsfusion_k8s.api import MANAGER, Api, words
from capsfusion_k8s.build import ATTEMPT, ROLE, keeper_job, pytorchjob, resolve_job
from capsfusion_k8s.pytorchjob import ended
from capsfusion_k8s.run import GROUP, KIND, VERSION, Object, Run, written
from capsfusion_k8s.status import troubled
from capsfusion_k8s.store import JOBS, RUNS, SHORT_JOBS

REFUSED = {  # the condition to set if the API server refuses a child, by the child's role
    "resolver": ("SnapshotResolved", "Unknown"),
    "keeper": ("RetentionHeld", "Unknown"),
    "trainer": ("Running", "False"),
}
NO_PYTORCHJOBS = "the kind PyTorchJob is missing in this cluster: install Kubeflow's training operator v1"
Found = list[tuple[str, Object]]  # kind and object, from responses of the API server: newer than the watches


def carry_out(
    action: Action, run: Run, api: Api, now: datetime, say: Callable[[Object], None], *, fresh: bool = False
) -> Found:
    """Carry out one action and return the objects that it changed or read again.

    Args:
        say: Receives the events to send.
        fresh: `run` is the response to the operator's last write, so a first attempt need not read it again.

    Raises:
        ApiException: A request failed; status 409 means that the run has changed since it was read.
    """
    match action:
        case MakeResolver():
            return _make(SHORT_JOBS, resolve_job(run), run, api, now, say)
        case MakeKeeper(hold=hold):
            return _make(SHORT_JOBS, keeper_job(run, hold), run, api, now, say)
        case MakeJob(attempt=attempt, suspend=suspend):
            news = [] if fresh and attempt == 1 else _news(run, attempt, api)
            return news or _make(JOBS, pytorchjob(run, attempt, suspend=suspend), run, api, now, say)
        case DeleteJob(attempt=attempt):
            job = api.get(JOBS, run.namespace, run.child(attempt))
            if job is not None:
                api.delete(JOBS, job)
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


def _news(run: Run, attempt: int, api: Api) -> Found:
    """Return what forbids creating a job now: the changed run, or live jobs of other attempts.

    Raises:
        ApiException: With status 409 if the run was deleted.
    """
    now, jobs = api.get(RUNS, run.namespace, run.name), api.listed(JOBS, run.namespace, run.name)
    if now is None:
        raise ApiException(status=409, reason="the run was deleted")
    if now.get("status") != run.object.get("status") or now["spec"] != run.object["spec"]:
        return [(RUNS, now)]
    others = [job for job in jobs if int(job["metadata"]["labels"][ATTEMPT]) != attempt]
    return [(JOBS, job) for job in others if not ended(job)]


def _make(kind: str, wanted: Object, run: Run, api: Api, now: datetime, say: Callable[[Object], None]) -> Found:
    """Create or restore a child; if the API server refuses it, put its reason and message into a condition of the run.

    Raises:
        ApiException: With status 409, 5xx or none: worth a retry.
    """
    try:
        return [(kind, api.apply(kind, wanted))]
    except ApiException as error:
        if error.status == 409 or error.status is None or error.status >= 500:
            raise
        reason, message = words(error)
        if error.status == 404 and kind == JOBS:
            reason, message = "TrainingOperatorMissing", NO_PYTORCHJOBS
        steps = troubled(run, Trouble(reason, message), *REFUSED[wanted["metadata"]["labels"][ROLE]])
        return [item for step in steps for item in carry_out(step, run, api, now, say)]


def _write(action: SetStatus, run: Run, api: Api, now: datetime) -> Found:
    changes = dict(action.changes)
    if action.conditions:
        changes["conditions"] = merged(run, action, now)
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


def event(run: Run, reason: str, message: str, now: datetime, *, seen: str, warning: bool) -> Object:
    """Return the event that `kubectl describe` shows.

    Its name is a hash of the uid, `seen`, the reason and the message, so that a repeated action creates one event only.
    """
    digest = hashlib.sha256(f"{run.uid}/{seen}/{reason}/{message}".encode()).hexdigest()[:16]
    reference: dict[str, Any] = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": run.name, "namespace": run.namespace, "uid": run.uid,
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": f"{run.name}.{digest}", "namespace": run.namespace},
        "involvedObject": reference, "reason": reason, "message": message,
        "type": "Warning" if warning else "Normal", "count": 1,
        "firstTimestamp": written(now), "lastTimestamp": written(now), "source": {"component": MANAGER},
    }  # fmt: skip
