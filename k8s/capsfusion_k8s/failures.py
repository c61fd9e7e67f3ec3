"""Why an attempt ended, sorted by what follows: a user's error, a disruption, or something that may pass."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from capsfusion_k8s.run import Object, parsed


class Kind(Enum):
    """What follows from a failure."""

    USER = "no restart: somebody must fix it"
    DISRUPTION = "a restart that does not count against maxRestarts"
    CRASH = "a restart, behind a pause that grows"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first pod of an attempt that failed: `exit_code` is None if it never ran or is gone; `log_tail` is the end
    of what it said."""

    kind: Kind
    reason: str
    message: str
    pod: str | None = None
    exit_code: int | None = None
    log_tail: str | None = None


UNKNOWN = Failure(Kind.CRASH, "Unknown", "the job failed, and no pod is left that says why")
GONE = Failure(Kind.DISRUPTION, "JobDeleted", "its PyTorchJob was deleted")
# Of `capsfusion train` (docs/train.md): 2 is an input or a setting, 3 a machine without room, 143 a SIGTERM.
_USER_ERROR, _TERMINATED, _KILLED = 2, 143, 137
_LAST = datetime.max.replace(tzinfo=UTC)  # of a time that is not known


def first_failure(pods: list[Object], since: str | None = None) -> Failure | None:
    """What ended an attempt: survivors that are ended afterwards show 143, so that the first failure counts.

    Those of before `since`, the job's start, are of the time before a pause: they ended because they were told to.
    (When pods were made says nothing: the training operator notes the start behind making them.)
    """
    start = parsed(since) if since else None
    found = [(time, failure) for time, failure in filter(None, map(_ended, pods)) if start is None or time >= start]
    if not found:
        return None
    # Times are whole seconds: among equals, a survivor's exit status says least.
    return min(found, key=lambda item: (item[0], item[1].reason == "Terminated"))[1]


def _ended(pod: Object) -> tuple[datetime, Failure] | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    conditions = status.get("conditions") or []
    disrupted = next((c for c in conditions if c["type"] == "DisruptionTarget" and c["status"] == "True"), None)
    terminated = [
        container["state"]["terminated"]
        for container in status.get("containerStatuses") or []
        if "terminated" in container.get("state", {})
    ]
    if disrupted is not None:
        message = disrupted.get("message") or "the pod was evicted or preempted"
        reason, code = disrupted.get("reason") or "Disrupted", terminated[0]["exitCode"] if terminated else None
        return _time(disrupted.get("lastTransitionTime")), Failure(Kind.DISRUPTION, reason, message, name, code)
    for ended in terminated:
        if ended.get("exitCode", 0) != 0:
            return _time(ended.get("finishedAt")), _of_exit(name, ended)
    if status.get("phase") == "Failed":
        reason, message = status.get("reason") or "PodFailed", status.get("message") or "the pod failed"
        return _LAST, Failure(Kind.CRASH, reason, message, name)
    return None


def _of_exit(pod: str, ended: Object) -> Failure:
    code, tail = int(ended["exitCode"]), (ended.get("message") or "").strip()
    message = _telling(tail)
    if ended.get("reason") == "OOMKilled":
        return Failure(Kind.CRASH, "OOMKilled", "out of memory: raise trainer.resources", pod, code, tail)
    if code in (_TERMINATED, _KILLED):
        return Failure(Kind.DISRUPTION, "Terminated", message or "the pod was terminated", pod, code, tail)
    if code == _USER_ERROR:
        reason = "SnapshotVacuumed" if "vacuumed" in tail else "InvalidInput"
        return Failure(Kind.USER, reason, message or "an input or a setting is wrong", pod, code, tail)
    return Failure(Kind.CRASH, "Error", message or f"exit code {code}", pod, code, tail)


def _telling(tail: str) -> str:
    """The line of a log's end that says what is wrong: ours begin with `capsfusion: `."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    ours = [line for line in lines if "capsfusion: " in line]
    return (ours or lines or [""])[-1]


def _time(text: str | None) -> datetime:
    return parsed(text) if text else _LAST
