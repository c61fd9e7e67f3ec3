"""Why an attempt ended, sorted by what follows: a user's error, a disruption, or something that may pass."""

from dataclasses import dataclass
from enum import Enum

from capsfusion_k8s.run import Object


class Kind(Enum):
    """What follows from a failure."""

    USER = "no restart: somebody must fix it"
    DISRUPTION = "a restart that does not count against maxRestarts"
    CRASH = "a restart, behind a pause that grows"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first pod of an attempt that failed: `exit_code` is None if it never ran or is gone."""

    kind: Kind
    reason: str
    message: str
    pod: str | None = None
    exit_code: int | None = None


GONE = Failure(Kind.DISRUPTION, "JobDeleted", "its PyTorchJob was deleted")
# Of `capsfusion train` (docs/train.md): 2 is an input or a setting, 3 a machine without room, 143 a SIGTERM.
_USER_ERROR, _TERMINATED, _KILLED = 2, 143, 137


def first_failure(pods: list[Object]) -> Failure:
    """What ended an attempt: survivors that are ended afterwards show 143, so that the first failure counts."""
    found = sorted(filter(None, map(_ended, pods)), key=lambda item: item[0])
    if not found:
        return Failure(Kind.CRASH, "Unknown", "the job failed, and no pod is left that says why")
    return found[0][1]


def _ended(pod: Object) -> tuple[str, Failure] | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    disrupted = next(
        (c for c in status.get("conditions", []) if c["type"] == "DisruptionTarget" and c["status"] == "True"), None
    )
    if disrupted is not None:
        message = disrupted.get("message") or "the pod was evicted or preempted"
        time = disrupted.get("lastTransitionTime") or "9"
        return time, Failure(Kind.DISRUPTION, disrupted.get("reason") or "Disrupted", message, name, _exit_code(status))
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended and ended.get("exitCode", 0) != 0:
            return ended["finishedAt"], _of_exit(name, ended)
    if status.get("phase") == "Failed":
        return "9", Failure(Kind.CRASH, status.get("reason", "PodFailed"), status.get("message", ""), name)
    return None


def _of_exit(pod: str, ended: Object) -> Failure:
    code, message = int(ended["exitCode"]), (ended.get("message") or "").strip()
    if ended.get("reason") == "OOMKilled":
        return Failure(Kind.CRASH, "OOMKilled", message or "out of memory: raise trainer.resources", pod, code)
    if code in (_TERMINATED, _KILLED):
        return Failure(Kind.DISRUPTION, "Terminated", message or "the pod was terminated", pod, code)
    if code == _USER_ERROR:
        vacuumed = "vacuumed" in message
        return Failure(Kind.USER, "SnapshotVacuumed" if vacuumed else "InvalidInput", message, pod, code)
    return Failure(Kind.CRASH, "Error", message or f"exit code {code}", pod, code)


def _exit_code(status: Object) -> int | None:
    codes = [
        c["state"]["terminated"]["exitCode"]
        for c in status.get("containerStatuses", [])
        if "terminated" in c.get("state", {})
    ]
    return int(codes[0]) if codes else None
