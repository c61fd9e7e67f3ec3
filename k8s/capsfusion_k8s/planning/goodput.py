"""Account where the time of a run goes: seconds by what it was doing, GPU-hours, and their price.

Counted at each change of phase. An attempt that fails has lost what came after the last checkpoint.
"""

from datetime import datetime
from typing import Any

from capsfusion_k8s.run import TERMINAL, Object, Run, parsed, written

DOING = {
    "Pending": "preparing", "Resolving": "preparing", "Gating": "preparing", "Queued": "queued",
    "WaitingForPods": "waiting", "Running": "training", "Restarting": "restarting",
}  # fmt: skip

ALL = ("preparing", "queued", "waiting", "training", "lost", "restarting")


def accounted(run: Run, now: datetime, *, failed: bool = False) -> Object:
    """Return `status.goodput` with the time since the last change of phase.

    Args:
        failed: The attempt ends by a failure: what came after its last checkpoint is lost.
    """
    known = run.status.get("goodput", {})
    found: dict[str, Any] = {key: value for key, value in known.items() if key != "since"}
    doing, since = DOING.get(run.phase), _since(run)
    if doing is None or since is None:
        return found
    seconds = max(round((now - since).total_seconds()), 0)
    lost = 0
    if doing == "training" and failed:
        saved = run.status.get("checkpoint", {}).get("time")
        kept_until = max(since, parsed(saved)) if saved else since
        lost = min(max(round((now - kept_until).total_seconds()), 0), seconds)
    found[doing] = found.get(doing, 0) + seconds - lost
    if lost:
        found["lost"] = found.get("lost", 0) + lost
    hours = gpus(run) * (found.get("training", 0) + found.get("lost", 0)) / 3600
    if hours:
        found["gpuHours"] = round(hours, 3)
    if hours and "gpuHourUsd" in run.spec:
        found["usd"] = round(hours * float(run.spec["gpuHourUsd"]), 2)
    return found


def at_change(run: Run, phase: str, now: datetime, *, failed: bool) -> Object:
    """Return `status.goodput` for a run that enters `phase` now."""
    return accounted(run, now, failed=failed) | ({"since": None} if phase in TERMINAL else {"since": written(now)})


def overdue(run: Run, now: datetime) -> bool:
    """Return whether activeDeadlineSeconds have passed since the start. Time in a queue, or paused, does not count."""
    started, limit = run.time("startTime"), run.spec.get("activeDeadlineSeconds")
    if started is None or limit is None:
        return False
    return (now - started).total_seconds() - float(accounted(run, now).get("queued", 0)) > int(limit)


def gpus(run: Run) -> int:
    """Return the number of GPUs of a run with all its pods."""
    limits = run.spec["trainer"].get("resources", {}).get("limits", {})
    each = [int(count) for name, count in limits.items() if name.endswith("/gpu") and str(count).isdigit()]
    return run.most_nodes * sum(each)


def _since(run: Run) -> datetime | None:
    since = run.status.get("goodput", {}).get("since")
    return parsed(since) if since else run.time("startTime")
