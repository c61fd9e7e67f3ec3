"""Questions to a PyTorchJob."""

from typing import Any

from capsfusion_k8s.run import Object


def has(job: Object, condition: str) -> bool:
    """Is a condition of it true?"""
    found = job.get("status", {}).get("conditions") or []
    return any(c["type"] == condition and c["status"] == "True" for c in found)


def ended(job: Object) -> bool:
    """Has it ended, for good or bad?"""
    return has(job, "Succeeded") or has(job, "Failed")


def is_running(job: Object) -> bool:
    """Do pods of it run?"""
    return has(job, "Running") and not is_suspended(job)


def is_suspended(job: Object) -> bool:
    """Is it told to pause?"""
    return bool(job["spec"].get("runPolicy", {}).get("suspend", False))


def differences(wanted: Any, found: Any, path: str = "spec") -> list[str]:
    """Where `found` is not what was asked for; what others added (a queue's node selector, defaults) is not counted."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            line
            for key, value in wanted.items()
            if not (path == "spec.runPolicy" and key == "suspend")  # a queue's to change
            for line in differences(value, found.get(key), f"{path}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) <= len(found):
        return [
            line
            for at, (one, other) in enumerate(zip(wanted, found, strict=False))
            for line in differences(one, other, f"{path}[{at}]")
        ]
    return [] if wanted == found else [f"{path} is {str(found)[:60]}, not {str(wanted)[:60]}"]
