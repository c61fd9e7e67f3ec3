"""Builders of runs, jobs and pods as the API server returns them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from capsfusion_k8s.actions import (
    SetStatus,
)
from capsfusion_k8s.run import Object, Run, written

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


PIN = {
    "tableId": "t", "name": "n", "version": 3, "files": 2, "bytes": 10, "manifestSha256": "a",
    "gate": {"result": "passed", "passedAt": written(NOW)},
}  # fmt: skip


def run(phase: str = "Pending", *, spec: Object | None = None, **status: Any) -> Run:
    metadata = {"name": "july", "namespace": "ml", "uid": "u", "generation": 2}
    return Run({"metadata": metadata, "spec": spec or {}, "status": {"phase": phase, "snapshot": PIN, **status}})


def job(*conditions: str, suspend: bool = False) -> Object:
    """Return a PyTorchJob whose `conditions` are all true."""
    return {
        "spec": {"runPolicy": {"suspend": suspend}},
        "status": {"conditions": [{"type": c, "status": "True"} for c in conditions]},
    }


def pod(
    name: str, code: int, at: int = 0, *, reason: str = "Error", message: str = "", disrupted: bool = False
) -> Object:
    """Return a failed pod with exit code `code`, which ended `at` seconds after NOW."""
    time = written(NOW + timedelta(seconds=at))
    ended_ = {"exitCode": code, "finishedAt": time, "reason": reason, "message": message}
    conditions = [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": time}] if disrupted else []
    status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended_}}], "conditions": conditions}
    return {"metadata": {"name": name}, "status": status}


def status_of(actions: list[Any]) -> tuple[str, str]:
    """Return the phase and reason of the only SetStatus among `actions`."""
    [action] = [a for a in actions if isinstance(a, SetStatus)]
    return action.changes["phase"], action.reason
