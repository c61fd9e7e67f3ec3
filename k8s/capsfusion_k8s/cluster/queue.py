"""Say why a queue does not start a job, as far as Kueue's Workload tells."""

from datetime import datetime

from capsfusion_k8s.backends import Backend
from capsfusion_k8s.objects.meta import age_s, condition
from capsfusion_k8s.planning.actions import Trouble
from capsfusion_k8s.run import Object

MAKES_WITHIN_S = 60  # that Kueue takes to make a Workload, if it manages the kind


def why_queued(backend: Backend, job: Object, workloads: list[Object] | None, now: datetime) -> Trouble | None:
    """Return why a suspended job waits, or None if its queue has not said anything yet.

    Args:
        workloads: Kueue's Workloads of the job; None if the cluster has no Kueue.
    """
    name = f"{backend.kind} {job['metadata']['name']}"
    if workloads is None:
        return Trouble("KueueMissing", f"spec.queueName is set, but the cluster has no Kueue, so nothing starts {name}")
    if not workloads:
        if age_s(job, now) < MAKES_WITHIN_S:
            return None
        said = f"Kueue has made no Workload for {name}: does it manage {backend.kind}s"
        return Trouble(
            "NoWorkload", f"{said} (integrations.frameworks of its configuration), and is there such a queue?"
        )
    evicted, reserved = (condition(workloads[-1], kind) for kind in ("Evicted", "QuotaReserved"))
    if evicted.get("status") == "True":
        return Trouble(evicted.get("reason") or "Evicted", evicted.get("message") or "evicted")
    if reserved.get("status") == "False":
        return Trouble("QuotaPending", reserved.get("message") or "it waits for quota")
    return None
