"""Classify why an attempt failed: a user's error, a disruption, pods that did not come, or a crash."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Self

from capsfusion_k8s.objects.meta import condition, main_statuses
from capsfusion_k8s.run import Object, parsed


class Kind(Enum):
    """Class of a failure; the value says what the operator does."""

    USER = "no restart: the user must fix the input or the setting"
    DISRUPTION = "a restart that does not count against maxRestarts"
    CRASH = "a restart after a pause that doubles each time"
    WAITED = "a restart that does not count: some pods waited in vain for others, which have no machine yet"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first pod of an attempt that failed.

    Attributes:
        exit_code: None if no container of the pod has ended, or no pod is left.
        log_tail: The termination message, by default the end of the log.
        at: When it failed, if that is known.
    """

    kind: Kind
    reason: str
    message: str
    pod: str | None = None
    exit_code: int | None = None
    log_tail: str | None = None
    at: datetime | None = None

    def as_crash(self) -> Self:
        """Return the failure as a crash."""
        return replace(self, kind=Kind.CRASH)

    def told(self) -> Object:
        """Return the failure as in `status.lastFailure` of a run."""
        return {
            "kind": self.kind.name.lower(), "reason": self.reason, "message": self.message[:1024], "pod": self.pod,
            "exitCode": self.exit_code, "logTail": self.log_tail,
        }  # fmt: skip


UNKNOWN = Failure(Kind.CRASH, "Unknown", "the job failed, and none of its pods is left to show why")
GONE = Failure(Kind.DISRUPTION, "JobDeleted", "its training job was deleted")
# Exit statuses. 2 (invalid input or setting), 75 (the other pods did not come) and 143 (SIGTERM) are those of
# `capsfusion train` (docs/train.md); 137 is a SIGKILL. All others, also 3 (full disk), count as crashes.
_USER_ERROR, _WAITED, _TERMINATED, _KILLED = 2, 75, 143, 137
# What torchrun says of it, for commands that are not `capsfusion train`.
_NOT_MET = ("RendezvousTimeoutError", "RendezvousConnectionError", "RendezvousClosedError")
_NODE_GONE = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})  # minutes after the node's last word
_LAST = datetime.max.replace(tzinfo=UTC)  # stands for an unknown time


def first_failure(pods: list[Object], since: str | None = None) -> Failure | None:
    """Return the earliest failure among the pods of an attempt, or None.

    The earliest one counts, because the surviving pods are terminated afterwards and exit with 143; but the loss of a
    node, which is noticed late, comes before the errors of those that missed it. Failures before `since`, the end of a
    pause, are ignored: those pods were told to stop.
    """
    start = parsed(since) if since else None
    found = [(time, failure) for time, failure in filter(None, map(_ended, pods)) if start is None or time >= start]
    if not found:
        return None
    # Times are whole seconds: in a tie, prefer any failure to `Terminated`, which may be a survivor's.
    time, first = min(found, key=lambda item: (item[0], item[1].reason == "Terminated"))
    lost = node_lost(pods) if first.kind is Kind.CRASH else None
    return replace(lost or first, at=None if time == _LAST else time)


def node_lost(pods: list[Object]) -> Failure | None:
    """Return the disruption that a lost node is, or None.

    Its pod was removed for it, or the control plane has marked the pod as not ready although its container was.
    """
    for pod in pods:
        name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", "its node")
        removed, ready = condition(pod, "DisruptionTarget"), condition(pod, "Ready")
        silent = pod.get("status", {}).get("phase") == "Running" and any(
            main.get("ready") for main in main_statuses(pod)
        )
        if removed.get("reason") in _NODE_GONE or (silent and ready.get("status") == "False"):
            return Failure(Kind.DISRUPTION, "NodeLost", f"{node}, where {name} ran, does not answer", name)
    return None


def _ended(pod: Object) -> tuple[datetime, Failure] | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    disrupted = condition(pod, "DisruptionTarget")
    terminated = [
        container["state"]["terminated"]
        for container in main_statuses(pod)
        if "terminated" in container.get("state", {})
    ]
    if disrupted.get("status") == "True":
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
        return Failure(Kind.USER, reason, message or "an input or a setting is invalid", pod, code, tail)
    if code == _WAITED or any(word in tail for word in _NOT_MET):
        return Failure(Kind.WAITED, "RendezvousTimeout", message or "the other pods did not come", pod, code, tail)
    return Failure(Kind.CRASH, "Error", message or f"exit code {code}", pod, code, tail)


def _telling(tail: str) -> str:
    """Return the last line that contains `capsfusion: `, the prefix of this project's errors, else the last line."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    ours = [line for line in lines if "capsfusion: " in line]
    return (ours or lines or [""])[-1]


def _time(text: str | None) -> datetime:
    return parsed(text) if text else _LAST
