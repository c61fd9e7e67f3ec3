"""A CaptionTrainingRun as the operator sees it: its object, read-only, and the questions that `plan` asks of it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

GROUP, VERSION, KIND, PLURAL = "capsfusion.io", "v1alpha1", "CaptionTrainingRun", "captiontrainingruns"
TERMINAL = frozenset({"Rejected", "Succeeded", "Failed"})
Object = dict[str, Any]
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the API server has it. Times are UTC."""

    object: Object

    @property
    def name(self) -> str:
        """Name within its namespace, at most 40 characters."""
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Where it and its children live."""
        return str(self.object["metadata"].get("namespace", "default"))

    @property
    def uid(self) -> str:
        """Of the object: an owner reference names it."""
        return str(self.object["metadata"]["uid"])

    @property
    def generation(self) -> int:
        """Counts changes of the spec."""
        return int(self.object["metadata"].get("generation", 1))

    @property
    def spec(self) -> Object:
        """What the user wants."""
        return dict(self.object["spec"])

    @property
    def status(self) -> Object:
        """What the operator wrote."""
        return dict(self.object.get("status") or {})

    @property
    def phase(self) -> str:
        """Pending at first; a terminal phase never changes."""
        return str(self.status.get("phase", "Pending"))

    @property
    def attempt(self) -> int:
        """Number of the newest attempt; 0 before the first."""
        return int(self.status.get("attempt", 0))

    @property
    def suspended(self) -> bool:
        """Does the user want it to pause?"""
        return bool(self.spec.get("suspend", False))

    def policy(self, key: str, default: int) -> int:
        """A number of spec.restartPolicy."""
        return int(self.spec.get("restartPolicy", {}).get(key, default))

    @property
    def restarts(self) -> int:
        """Attempts that failed by themselves."""
        return int(self.status.get("restarts", 0))

    @property
    def disruptions(self) -> int:
        """Attempts that somebody else ended."""
        return int(self.status.get("disruptions", 0))

    def time(self, key: str) -> datetime | None:
        """A time of the status."""
        found = self.status.get(key)
        return parsed(found) if found else None

    def overdue(self, now: datetime) -> bool:
        """Is activeDeadlineSeconds over?"""
        started, limit = self.time("startTime"), self.spec.get("activeDeadlineSeconds")
        return started is not None and limit is not None and now - started > timedelta(seconds=int(limit))

    def expired(self, now: datetime) -> bool:
        """Is ttlSecondsAfterFinished over?"""
        ended, limit = self.time("completionTime"), self.spec.get("ttlSecondsAfterFinished")
        return ended is not None and limit is not None and now - ended > timedelta(seconds=int(limit))

    def child(self, attempt: int) -> str:
        """Name of the PyTorchJob of an attempt."""
        return f"{self.name}-{attempt}"

    def keeper(self, hold: bool) -> str:
        """Name of the Job that holds or releases the snapshot, as this spec wants it."""
        return f"{self.name}-{'hold' if hold else 'release'}-{self.generation}"

    @property
    def holder(self) -> str:
        """Its name among those that hold a snapshot."""
        return f"{self.namespace}.{self.name}.{self.uid[:8]}"

    @property
    def checkpoints(self) -> str:
        """Where its checkpoints are, of every attempt."""
        return f"{self.spec['checkpoint']['uri'].rstrip('/')}/{self.name}"

    @property
    def resolver(self) -> str:
        """Name of the Job that resolves the snapshot."""
        return f"{self.name}-resolve"


def duration(text: str) -> timedelta:
    """30s, 15m, 12h, 1h30m, 7d.

    Raises:
        ValueError: it is none of these.
    """
    parts = _DURATION.fullmatch(text)
    if parts is None or not any(parts.groups()):
        raise ValueError(f"not a duration: {text!r}")
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def parsed(text: str) -> datetime:
    """A time as Kubernetes writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def written(time: datetime) -> str:
    """As Kubernetes writes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
