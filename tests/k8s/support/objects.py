"""Builders of runs, jobs and pods as the API server returns them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from capsfusion_k8s.backends import BACKENDS
from capsfusion_k8s.planning.actions import SetStatus
from capsfusion_k8s.run import Object, Run, written

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SPEC: Object = {
    "dataset": {"uri": "/lake", "snapshot": "n"}, "trainer": {"image": "i@sha256:0", "recipe": "micro_cpu"},
    "checkpoint": {"uri": "/checkpoints"},
}  # fmt: skip
PIN = {
    "tableId": "t", "name": "n", "version": 3, "files": 2, "bytes": 10, "manifestSha256": "a",
    "gate": {"result": "passed", "passedAt": written(NOW)},
}  # fmt: skip


def run(
    phase: str = "Pending", *, spec: Object | None = None, backend: str | None = "pytorchjob", **status: Any
) -> Run:
    metadata = {"name": "july", "namespace": "ml", "uid": "u", "generation": 2, "resourceVersion": "1"}
    known = {"phase": phase, "snapshot": PIN, **({"backend": backend} if backend else {}), **status}
    return Run({"metadata": metadata, "spec": SPEC | (spec or {}), "status": known})


def job(*conditions: str, suspend: bool = False, backend: str = "pytorchjob", spec: Object | None = None) -> Object:
    """Return the job of the first attempt whose `conditions` (Running, Succeeded, Failed) are all true."""
    *_, found = BACKENDS[backend].build(run(spec=spec, attempt=1), 1, suspend=suspend)
    found["metadata"] |= {"uid": "j", "creationTimestamp": written(NOW - timedelta(hours=1))}
    names = {"Succeeded": BACKENDS[backend].success}
    told = [{"type": names.get(name, name), "status": "True"} for name in conditions]
    found["status"] = {"conditions": told, "jobsStatus": [{"name": "node", "active": int("Running" in conditions)}]}
    return found


def pod(
    name: str, code: int, at: int = 0, *, reason: str = "Error", message: str = "", disrupted: bool = False
) -> Object:
    """Return a failed pod with exit code `code`, which ended `at` seconds after NOW."""
    time = written(NOW + timedelta(seconds=at))
    ended_ = {"exitCode": code, "finishedAt": time, "reason": reason, "message": message}
    conditions = [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": time}] if disrupted else []
    status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended_}}], "conditions": conditions}
    return {"metadata": {"name": name}, "status": status}


def lost_pod(name: str) -> Object:
    """Return a pod as the control plane marks it when its node does not answer: its container was running."""
    status = {
        "phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "pytorch", "ready": True, "state": {"running": {}}}],
    }  # fmt: skip
    return {"metadata": {"name": name}, "spec": {"nodeName": "node-7"}, "status": status}


def status_of(actions: list[Any]) -> tuple[str, str]:
    """Return the phase and reason of the only SetStatus among `actions`."""
    [action] = [a for a in actions if isinstance(a, SetStatus)]
    return action.changes["phase"], action.reason
