"""Predicates on PyTorchJobs and other Jobs, and a comparison of specifications."""

from typing import Any

from capsfusion_k8s.run import Object


def has(job: Object, condition: str) -> bool:
    """Return whether a condition of the job is true."""
    found = job.get("status", {}).get("conditions") or []
    return any(c["type"] == condition and c["status"] == "True" for c in found)


def ended(job: Object) -> bool:
    """Return whether the job has succeeded or failed."""
    return has(job, "Succeeded") or has(job, "Failed")


def is_running(job: Object) -> bool:
    """Return whether the job is running and not suspended."""
    return has(job, "Running") and not is_suspended(job)


def is_suspended(job: Object) -> bool:
    """Return whether the job's specification suspends it."""
    return bool(job["spec"].get("runPolicy", {}).get("suspend", False))


def differences(wanted: Any, found: Any, path: str = "spec") -> list[str]:
    """Return where `found` differs from `wanted`, one line per field.

    Fields that others added (defaults, a queue's node selector) are not differences, nor is runPolicy.suspend.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            line
            for key, value in wanted.items()
            if not (path == "spec.runPolicy" and key == "suspend")  # a queue may change it
            for line in differences(value, found.get(key), f"{path}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) <= len(found):
        return [
            line
            for at, (one, other) in enumerate(zip(wanted, found, strict=False))
            for line in differences(one, other, f"{path}[{at}]")
        ]
    return [] if wanted == found else [f"{path} is {str(found)[:60]}, not {str(wanted)[:60]}"]
