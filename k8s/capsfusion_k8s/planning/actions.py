"""Input and output types of `plan`: the children of a run, and the actions to carry out."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from capsfusion_k8s.planning.resolve import Resolved
from capsfusion_k8s.run import Object


class Condition(NamedTuple):
    """Condition of a run without its type; `status` is "True", "False" or "Unknown"."""

    status: str
    reason: str
    message: str


class Trouble(NamedTuple):
    """Why a child does not start: reason and message of the scheduler, a controller, a kubelet or the API server."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Children:
    """Everything that a run owns, as last seen.

    Attributes:
        resolver: The Job that resolves the snapshot.
        resolved: The result of that Job, once it is known.
        resolver_runs: Whether a pod of that Job is running.
        keepers: Jobs that hold or release the snapshot, by name.
        jobs: Training jobs by attempt, of the run's backend.
        pods: Pods of the newest attempt, including deleted ones that failed.
        there: How many pods of the newest attempt exist and are not being deleted.
        ran: How many of them run or have succeeded.
        ending: Pending and running trainer pods, as "POD on NODE"; a new attempt waits until there are none.
        trouble: Why the child that the run waits for does not start.
        queue: Why the run's queue does not start its job, or took its machines back.
        backends: Names of the backends whose kinds the cluster has.
        last_heard: Which pod of a stalled attempt wrote to its log last, and when.
    """

    resolver: Object | None = None
    resolved: Resolved | None = None
    resolver_runs: bool = False
    keepers: dict[str, Object] = field(default_factory=dict)
    jobs: dict[int, Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    there: int = 0
    ran: int = 0
    ending: list[str] = field(default_factory=list)
    trouble: Trouble | None = None
    queue: Trouble | None = None
    backends: frozenset[str] = frozenset({"pytorchjob"})
    last_heard: str | None = None


@dataclass(frozen=True, slots=True)
class MakeResolver:
    """Create the Job that resolves the snapshot."""


@dataclass(frozen=True, slots=True)
class MakeKeeper:
    """Create the Job `name`, which holds the snapshot's files or releases them."""

    name: str
    hold: bool


@dataclass(frozen=True, slots=True)
class MakeJob:
    """Create the training job of an attempt, or restore its specification."""

    attempt: int
    suspend: bool


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete the training job of an attempt and its pods."""

    attempt: int


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Delete the run: its ttlSecondsAfterFinished has passed."""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Merge `changes` into the status and `conditions` (by type) into its conditions.

    `reason` and `message` become an event of the run.
    """

    changes: dict[str, Any]
    reason: str
    message: str
    conditions: dict[str, Condition] = field(default_factory=dict)
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Send an event; repeating the action does not repeat the event."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Plan again at `at`, at the latest."""

    at: datetime


Action = MakeResolver | MakeKeeper | MakeJob | DeleteJob | DeleteRun | SetStatus | Say | LookAgain
