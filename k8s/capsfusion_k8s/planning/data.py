"""Phases Pending, Resolving and Gating: resolve the snapshot of a run, check its quality gate, pin it.

One short Job under the run's service account reads the snapshot and its gate result. The run is Resolving until the
Job's pod runs, and Gating until the Job has returned its result.
"""

from datetime import datetime
from typing import Any

from capsfusion_k8s.backends.choice import choose
from capsfusion_k8s.planning.actions import Action, Children, Condition, MakeResolver, Say
from capsfusion_k8s.planning.gate import judge
from capsfusion_k8s.planning.resolve import Resolved
from capsfusion_k8s.planning.status import end, to, troubled
from capsfusion_k8s.run import Run, written


def pending(run: Run, children: Children, now: datetime) -> list[Action]:
    """Start the run. Create the Job before the status is written, since it takes a while."""
    image = run.spec["trainer"]["image"]
    loose = f"{image} has no digest: a later attempt may get a different image; use IMAGE@sha256:..."
    begin = to(run, "Resolving", "Resolving", "looking for the snapshot", startTime=written(now))
    return [*([] if "@" in image else [Say("ImageNotPinned", loose, warning=True)]), MakeResolver(), begin]


def resolving(run: Run, children: Children, now: datetime) -> list[Action]:
    """Wait until a pod of the resolve Job runs."""
    if children.resolver is None:
        return [MakeResolver()]
    if children.resolved is not None or children.resolver_runs:
        return [to(run, "Gating", "Gating", "reading the snapshot's manifest, files and gate")]
    return troubled(run, children.trouble, "SnapshotResolved", "Unknown")


def gating(run: Run, children: Children, now: datetime) -> list[Action]:
    """Wait for the result of the resolve Job; pin the snapshot and queue the run, or end it as Rejected or Failed."""
    if children.resolver is None:  # deleted by hand
        return [MakeResolver()]
    found = children.resolved
    if found is None:
        return troubled(run, children.trouble, "SnapshotResolved", "Unknown")
    fault = _fault(run, found)
    if fault is not None:
        phase, reason, message = fault
        return [end(run, phase, reason, message, now, {"SnapshotResolved": "False"})]
    pin = found.snapshot
    what = f"{pin['name']}: version {pin['version']}, {pin['files']} files"
    told = Say("SnapshotResolved", what)
    conditions: dict[str, str | Condition] = {"SnapshotResolved": Condition("True", "SnapshotResolved", what)}
    verdict = judge(run.spec.get("qualityGate", {}), pin.get("gate"), now)
    conditions["QualityGatePassed"] = str(verdict.passed)
    if not verdict.passed:
        return [told, end(run, "Rejected", verdict.reason, verdict.message, now, conditions, snapshot=pin)]
    news: dict[str, Any] = {} if run.suspended else {"attempt": 1}
    choice = choose(run, children.backends)
    if choice.backend is not None:
        conditions["BackendChosen"] = Condition("True", choice.reason, choice.message)
        news["backend"] = choice.backend
    return [told, to(run, "Queued", verdict.reason, verdict.message, conditions, snapshot=pin, **news)]


def _fault(run: Run, found: Resolved) -> tuple[str, str, str] | None:
    """Return the terminal phase, reason and message if the result has no usable snapshot, else None."""
    if found.error is not None:
        return "Rejected" if found.reason == "NoPassingSnapshot" else "Failed", found.reason, found.error
    wanted, is_there = run.spec["dataset"].get("tableId"), found.snapshot["tableId"]
    if wanted not in (None, is_there):
        return (
            "Failed",
            "TableMismatch",
            f"the table's id is {is_there}, not {wanted}: another table, or a recreated one",
        )
    return _not_asked_for(run, found)


def _not_asked_for(run: Run, found: Resolved) -> tuple[str, str, str] | None:
    """Return the end of a run whose resolve Job speaks of another snapshot than spec.dataset."""
    for asked, told in (("snapshot", "name"), ("version", "version")):
        wanted, pinned = run.spec["dataset"].get(asked), found.snapshot[told]
        # A version may be asked for by its digits as the name of a snapshot.
        if wanted is not None and str(wanted) not in (str(pinned), str(found.snapshot["version"])):
            return "Failed", "OtherSnapshot", f"the resolve Job pinned {told} {pinned}, but {asked} is {wanted}"
    return None
