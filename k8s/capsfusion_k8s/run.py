"""Read-only view of a CaptionTrainingRun object, with the names that derive from it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

GROUP, VERSION, KIND, PLURAL = "capsfusion.io", "v1alpha1", "CaptionTrainingRun", "captiontrainingruns"
TERMINAL = frozenset({"Rejected", "Succeeded", "Failed"})
Object = dict[str, Any]
GRACE_S = 120  # by default enough to save a checkpoint
LONGEST_S = 10**9
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the API server returned it. Times are UTC."""

    object: Object

    @property
    def name(self) -> str:
        """Name, unique in its namespace, at most 40 characters."""
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Namespace of the run and its children."""
        return str(self.object["metadata"].get("namespace", "default"))

    @property
    def uid(self) -> str:
        """Unique id of the object, for owner references."""
        return str(self.object["metadata"]["uid"])

    @property
    def generation(self) -> int:
        """Number that increases with each change of the spec."""
        return int(self.object["metadata"].get("generation", 1))

    @property
    def spec(self) -> Object:
        """The spec, written by the user."""
        return dict(self.object["spec"])

    @property
    def status(self) -> Object:
        """The status, written by the operator."""
        return dict(self.object.get("status") or {})

    @property
    def phase(self) -> str:
        """Current phase, Pending at first; a terminal phase never changes."""
        return str(self.status.get("phase", "Pending"))

    @property
    def attempt(self) -> int:
        """Number of the newest attempt; 0 before the first."""
        return int(self.status.get("attempt", 0))

    @property
    def backend(self) -> str | None:
        """Name of the backend that was chosen, or None before the choice."""
        return self.status.get("backend")

    @property
    def most_nodes(self) -> int:
        """Number of pods of an attempt; at most, if the run is elastic."""
        trainer = self.spec["trainer"]
        return int(trainer["elastic"]["max"] if "elastic" in trainer else trainer.get("nodes", 1))

    @property
    def least_nodes(self) -> int:
        """Number of pods without which an attempt does not train."""
        trainer = self.spec["trainer"]
        return int(trainer["elastic"]["min"] if "elastic" in trainer else trainer.get("nodes", 1))

    @property
    def rendezvous_timeout_s(self) -> int:
        """Seconds that pods wait for each other."""
        return int(duration(self.spec["trainer"].get("rendezvousTimeout", "1h")).total_seconds())

    @property
    def grace_s(self) -> int:
        """Seconds that pods have between SIGTERM and SIGKILL."""
        pod = self.spec["trainer"].get("podTemplate", {}).get("spec", {})
        return int(pod.get("terminationGracePeriodSeconds", self.spec["checkpoint"].get("graceSeconds", GRACE_S)))

    @property
    def suspended(self) -> bool:
        """Whether the user wants the run to be suspended."""
        return bool(self.spec.get("suspend", False))

    def policy(self, key: str, default: int) -> int:
        """Return a number of spec.restartPolicy."""
        return int(self.spec.get("restartPolicy", {}).get(key, default))

    @property
    def checkpoint_step(self) -> int:
        """Step of the last complete checkpoint, -1 without one."""
        return int(self.status.get("checkpoint", {}).get("step", -1))

    def time(self, key: str) -> datetime | None:
        """Return a time of the status, or None."""
        found = self.status.get(key)
        return parsed(found) if found else None

    def expires(self) -> datetime | None:
        """Return when ttlSecondsAfterFinished have passed since the end, or None: never."""
        ended, limit = self.time("completionTime"), int(self.spec.get("ttlSecondsAfterFinished", -1))
        return ended + timedelta(seconds=min(limit, LONGEST_S)) if ended is not None and limit >= 0 else None

    def child(self, attempt: int) -> str:
        """Return the name of the training job of an attempt."""
        return f"{self.name}-{attempt}"

    def attempt_named(self, job: str) -> int | None:
        """Return the attempt of a training job by its name, or None if it is no name of one."""
        number = job.removeprefix(f"{self.name}-")
        return int(number) if number.isdecimal() and job != number else None

    @property
    def runtime(self) -> str:
        """Name of the TrainingRuntime of the run's TrainJobs."""
        return f"{self.name}-runtime"

    @property
    def holder(self) -> str:
        """Name of the run as a holder of a snapshot."""
        return f"{self.namespace}.{self.name}.{self.uid[:8]}"

    @property
    def checkpoints(self) -> str:
        """Folder or URL of the checkpoints, shared by all attempts."""
        return f"{self.spec['checkpoint']['uri'].rstrip('/')}/{self.name}"

    @property
    def resolver(self) -> str:
        """Name of the Job that resolves the snapshot."""
        return f"{self.name}-resolve"


def duration(text: str) -> timedelta:
    """Parse a duration such as 30s, 15m, 12h, 1h30m or 7d; more than 30 years count as 30.

    Raises:
        ValueError: The text is not a duration.
    """
    parts = _DURATION.fullmatch(text)
    if parts is None or not any(parts.groups()):
        raise ValueError(f"not a duration: {text!r}; write it as 30s, 15m, 12h, 1h30m or 7d")
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return timedelta(seconds=min(86400 * days + 3600 * hours + 60 * minutes + seconds, LONGEST_S))


def parsed(text: str) -> datetime:
    """Parse a time in the format of Kubernetes (RFC 3339)."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def written(time: datetime) -> str:
    """Format a time for Kubernetes: RFC 3339, UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
