"""From a run to its data: the snapshot that it is pinned to, and the gate that let the snapshot pass.

One short Job does both, under the run's own service account. Resolving is until its pod runs, Gating until it has said
what it found.
"""

from datetime import datetime
from typing import Any

from capsfusion_k8s.actions import Action, Children, Condition, MakeResolver, Say
from capsfusion_k8s.gate import judge
from capsfusion_k8s.resolve import Resolved
from capsfusion_k8s.run import Run, written
from capsfusion_k8s.status import end, to, troubled


def pending(run: Run, children: Children, now: datetime) -> list[Action]:
    """Begin. The Job first: it takes a while."""
    image = run.spec.get("trainer", {}).get("image", "@")
    loose = f"{image} has no digest: an attempt may get another image than the one before"
    begin = to(run, "Resolving", "Resolving", "looking for the snapshot", startTime=written(now))
    return [*([] if "@" in image else [Say("ImageNotPinned", loose, warning=True)]), MakeResolver(), begin]


def resolving(run: Run, children: Children, now: datetime) -> list[Action]:
    """Wait for the Job to begin."""
    if children.resolver is None:
        return [MakeResolver()]
    if children.resolved is not None or children.resolver_runs:
        return [to(run, "Gating", "Gating", "reading the snapshot's manifest, files and gate")]
    return troubled(run, children.trouble, "SnapshotResolved", "Unknown")


def gating(run: Run, children: Children, now: datetime) -> list[Action]:
    """Pin what the Job has found, if it may be trained on."""
    if children.resolver is None:  # somebody deleted it
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
    first: dict[str, Any] = {} if run.suspended else {"attempt": 1}
    return [told, to(run, "Queued", verdict.reason, verdict.message, conditions, snapshot=pin, **first)]


def _fault(run: Run, found: Resolved) -> tuple[str, str, str] | None:
    """Phase, reason and message, if there is nothing to pin."""
    if found.error is not None:
        return "Rejected" if found.reason == "NoPassingSnapshot" else "Failed", found.reason, found.error
    wanted, is_there = run.spec.get("dataset", {}).get("tableId"), found.snapshot["tableId"]
    if wanted not in (None, is_there):
        return "Failed", "TableMismatch", f"the table's id is {is_there}, not {wanted}: another one, or made anew"
    return None
