"""Labels, owners and names that the children of a run share, and what their conditions say."""

from datetime import datetime

from capsfusion_k8s.run import GROUP, KIND, VERSION, Object, Run, parsed

LABEL, UID, ROLE, ATTEMPT = f"{GROUP}/run", f"{GROUP}/run-uid", f"{GROUP}/role", f"{GROUP}/attempt"
CONTAINER = "pytorch"  # the main container, as podTemplate names it
MAIN_CONTAINERS = (CONTAINER, "node")  # as the backends name it


def labels(run: Run, role: str) -> dict[str, str]:
    """Return the labels that select the children of a run; `role` is resolver, keeper or trainer.

    A run may be deleted and made anew under its name, and the children of the first live on: the uid tells them apart.
    """
    return {
        LABEL: run.name,
        UID: run.uid,
        ROLE: role,
        "app.kubernetes.io/managed-by": "capsfusion-operator",
        "app.kubernetes.io/part-of": "capsfusion",
    }


def queue_label(asked: Object) -> dict[str, str]:
    """Return the label by which Kueue finds the queue of a job, for a part of the spec that may have a queueName."""
    return {"kueue.x-k8s.io/queue-name": asked["queueName"]} if "queueName" in asked else {}


def owner(run: Run) -> list[Object]:
    """Return the owner references that let Kubernetes delete children together with their run."""
    return [
        {
            # No blockOwnerDeletion: it requires permission to update the run's finalizers.
            "apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": run.name, "uid": run.uid, "controller": True,
        }
    ]  # fmt: skip


def metadata(run: Run, name: str, found: dict[str, str]) -> Object:
    """Return the metadata of a child with these labels."""
    return {"name": name, "namespace": run.namespace, "labels": found, "ownerReferences": owner(run)}


def is_of(child: Object, uid: str) -> bool:
    """Return whether an object is owned by the one with this uid."""
    return any(owner.get("uid") == uid for owner in child["metadata"].get("ownerReferences") or [])


def main_container(pod: Object) -> str:
    """Return the name of the container that trains, resolves or holds; meshes and monitors inject further ones."""
    said = pod.get("status", {}).get("containerStatuses") or pod.get("spec", {}).get("containers") or []
    names = {container.get("name") for container in said}
    return next((name for name in MAIN_CONTAINERS if name in names), CONTAINER)


def main_statuses(pod: Object) -> list[Object]:
    """Return the status of the main container, not those of what a mesh or a log shipper has injected."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return [status for status in statuses if status.get("name", CONTAINER) in MAIN_CONTAINERS]


def age_s(found: Object, now: datetime) -> float:
    """Return the seconds since an object was created."""
    return (now - parsed(found["metadata"]["creationTimestamp"])).total_seconds()


def attempt_of(found: Object) -> int:
    """Return the number of the attempt that a pod belongs to by its label; 0 if it has none that can be read."""
    label = str(found["metadata"]["labels"].get(ATTEMPT, ""))
    return int(label) if label.isdecimal() else 0


def condition(found: Object, kind: str) -> Object:
    """Return a condition of an object by its type, or {}."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def has(found: Object, kind: str) -> bool:
    """Return whether a condition of an object is true."""
    return bool(condition(found, kind).get("status") == "True")
