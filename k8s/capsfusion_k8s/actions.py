"""What `plan` is told, and what it may ask for."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from capsfusion_k8s.resolve import Resolved
from capsfusion_k8s.run import Object


class Condition(NamedTuple):
    """A condition of a run: status (True, False, Unknown), reason and message."""

    status: str
    reason: str
    message: str


class Trouble(NamedTuple):
    """Why something that was made does not begin, in the words of who knows: the scheduler, a controller, a kubelet."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Children:
    """What the run owns: the resolve Job with what it said, PyTorchJobs by attempt, pods of the newest attempt, those
    that are gone but left a reason among them; `ending` are pods of older attempts that still live, `keepers` Jobs that
    hold or release the snapshot, by name."""

    resolver: Object | None = None
    resolved: Resolved | None = None
    resolver_runs: bool = False
    keepers: dict[str, Object] = field(default_factory=dict)
    jobs: dict[int, Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    ending: list[str] = field(default_factory=list)
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class MakeResolver:
    """Make the Job that resolves the snapshot."""


@dataclass(frozen=True, slots=True)
class MakeKeeper:
    """Make the Job that holds the snapshot's files, or lets go of them."""

    hold: bool


@dataclass(frozen=True, slots=True)
class MakeJob:
    """Make, or bring back to what it should be, the PyTorchJob of an attempt."""

    attempt: int
    suspend: bool


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete the PyTorchJob of an attempt, and its pods."""

    attempt: int


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """The run's time after its end is over."""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Merge `changes` into the status and `conditions` (by type) into its conditions, and say `reason` and `message` as
    an event."""

    changes: dict[str, Any]
    reason: str
    message: str
    conditions: dict[str, Condition] = field(default_factory=dict)
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Say something once, as an event."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nothing to do before a time."""

    at: datetime


Action = MakeResolver | MakeKeeper | MakeJob | DeleteJob | DeleteRun | SetStatus | Say | LookAgain
