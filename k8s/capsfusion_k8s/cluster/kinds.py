"""The kinds of object that the operator reads and writes, and what it keeps of each in memory."""

from typing import Any

from capsfusion_k8s.backends import BACKENDS
from capsfusion_k8s.backends.trainjob import RUNTIME
from capsfusion_k8s.run import GROUP, KIND, PLURAL, VERSION, Object

RUNS, SHORT_JOBS, PODS, RUNTIMES = PLURAL, "jobs", "pods", "trainingruntimes"
TRAINING = tuple(backend.plural for backend in BACKENDS.values())  # training jobs, of every backend
ROOTS = {
    RUNS: f"{GROUP}/{VERSION}",
    SHORT_JOBS: "batch/v1",
    PODS: "v1",
    **{backend.plural: backend.api_version for backend in BACKENDS.values()},
    RUNTIMES: BACKENDS["trainjob"].api_version,
}
PLURALS = {
    KIND: RUNS, "Job": SHORT_JOBS, RUNTIME: RUNTIMES,
    **{backend.kind: backend.plural for backend in BACKENDS.values()},
}  # fmt: skip
_OF_A_POD = ("nodeName",)
_OF_A_CONTAINER = ("name", "state", "ready")


def slim(kind: str, found: Object) -> Object:
    """Return what the operator reads of an object: a namespace keeps thousands of finished pods, of 10 kB each."""
    metadata = {k: v for k, v in found["metadata"].items() if k not in ("managedFields", "annotations")}
    if kind != PODS:
        return found | {"metadata": metadata}
    status = found.get("status", {})
    kept: dict[str, Any] = {k: status[k] for k in ("phase", "reason", "message") if k in status}
    kept["conditions"] = [_slim_condition(c) for c in status.get("conditions") or [] if c["type"] in _TOLD]
    kept["containerStatuses"] = [
        {key: container[key] for key in _OF_A_CONTAINER if key in container}
        for container in status.get("containerStatuses") or []
    ]
    spec = {key: found["spec"][key] for key in _OF_A_POD if key in found.get("spec", {})}
    return {"metadata": metadata, "spec": spec, "status": kept, **({"gone": True} if found.get("gone") else {})}


_TOLD = frozenset({"PodScheduled", "Ready", "DisruptionTarget"})


def _slim_condition(found: Object) -> Object:
    return {k: v for k, v in found.items() if k in ("type", "status", "reason", "message", "lastTransitionTime")}
