"""Format a run for people."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from capsfusion_k8s.planning.goodput import ALL, accounted
from capsfusion_k8s.run import Object, Run


def shown(found: Object) -> str:
    """Return the phase, snapshot, progress, last failure and conditions of a run as text, omitting missing parts."""
    metadata, status = found["metadata"], found.get("status", {})
    asked = " (suspend requested)" if found["spec"].get("suspend") else ""
    title = f"{metadata.get('namespace', 'default')}/{metadata['name']}  {status.get('phase', 'Pending')}{asked}"
    facts = [f"  {name:18s} {words}" for name, words in _facts(Run(found))]
    conditions = [
        f"  {c['type']:18s} {c['status']:8s} {c.get('reason', '')}: {c.get('message', '')}"
        for c in status.get("conditions", [])
    ]
    return "\n".join([title, *facts, *conditions])


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    status = run.status
    if pin := status.get("snapshot"):
        gate = (pin.get("gate") or {}).get("result", "unknown")
        size = f"{pin.get('files', '?')} files, {pin.get('bytes', 0) / 1e6:,.1f} MB"
        yield "snapshot", f"{pin.get('name', '')}, version {pin['version']}: {size}; gate {gate}"
    if attempt := status.get("attempt"):
        counts = f"{status.get('restarts', 0)} restarts, {status.get('disruptions', 0)} disruptions"
        yield "attempt", f"{attempt} ({counts})"
    if progress := status.get("progress"):
        loss = f", loss {progress['loss']:.3f}" if "loss" in progress else ""
        left = f", {timedelta(seconds=round(progress['etaSeconds']))} left" if progress.get("etaSeconds") else ""
        doing = f", {progress['activity']}" if progress.get("activity", "training") != "training" else ""
        yield "progress", f"step {progress.get('step')} of {progress.get('total')}{loss}{left}{doing}"
    if checkpoint := status.get("checkpoint"):
        yield "checkpoint", f"step {checkpoint['step']} in {checkpoint['uri']}, {checkpoint.get('time', '')}"
    goodput = accounted(run, datetime.now(UTC))
    if times := [f"{doing} {timedelta(seconds=goodput[doing])}" for doing in ALL if goodput.get(doing)]:
        price = f" (${goodput['usd']:,.2f})" if "usd" in goodput else ""
        hours = f"; {goodput['gpuHours']:,.1f} GPU-hours{price}" if "gpuHours" in goodput else ""
        yield "time", f"{', '.join(times)}{hours}"
    if failure := status.get("lastFailure"):
        yield "last failure", f"{failure['reason']}: {failure.get('message', '')}"
