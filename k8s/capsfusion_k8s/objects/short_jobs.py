"""Build the Jobs that read a lake on behalf of a run: the operator has no credentials for it."""

from capsfusion_k8s.objects.commands import pinned_address, snapshot_address
from capsfusion_k8s.objects.meta import labels, metadata, queue_label
from capsfusion_k8s.objects.pods import pod_metadata, small_pod
from capsfusion_k8s.run import Object, Run

HOLD_DAYS = 30  # that a hold lasts unless it is renewed


def resolve_job(run: Run) -> Object:
    """Return the Job that resolves the snapshot, under the run's service account."""
    command = ["capsfusion", "pin", "--snapshot", snapshot_address(run), "--message", "/dev/termination-log"]
    return _short_job(run, run.resolver, "resolver", command)


def keeper_job(run: Run, name: str, *, hold: bool, owned: bool = True) -> Object:
    """Return the Job that holds the snapshot's files for HOLD_DAYS, or releases them.

    Args:
        owned: False after the run was deleted: the Job has no owner and expires 600 s after it finishes.
    """
    change = ["--hold", run.holder, "--days", str(HOLD_DAYS)] if hold else ["--release", run.holder]
    found = _short_job(run, name, "keeper", ["capsfusion", "pin", "--snapshot", pinned_address(run), *change])
    if not owned:
        del found["metadata"]["ownerReferences"]
        found["spec"]["ttlSecondsAfterFinished"] = 600
    return found


def _short_job(run: Run, name: str, role: str, command: list[str]) -> Object:
    who, resolver = labels(run, role), run.spec.get("resolver", {})
    template = {"metadata": pod_metadata(run, who, trains=False), "spec": small_pod(run, command)}
    found: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(run, name, who | queue_label(resolver)),
        "spec": {"backoffLimit": 2, "template": template},
    }
    if "activeDeadlineSeconds" in resolver:
        found["spec"]["activeDeadlineSeconds"] = resolver["activeDeadlineSeconds"]
    return found
