"""Labels, owners and names that the children of a run share, and what their conditions say."""

from typing import Any

from capsfusion_k8s.run import GROUP, KIND, VERSION, Object, Run

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


def condition(found: Object, kind: str) -> Object:
    """Return a condition of an object by its type, or {}."""
    conditions = found.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def has(found: Object, kind: str) -> bool:
    """Return whether a condition of an object is true."""
    return bool(condition(found, kind).get("status") == "True")


def differences(wanted: Any, found: Any, path: str = "spec") -> list[str]:
    """Return where `found` differs from `wanted`, one line per field.

    What others added (defaults, a queue's node selector) is no difference. Items of a list are compared by their name
    or manager, others by their place.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [line for key, value in wanted.items() for line in differences(value, found.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) <= len(found):
        named = {_identity(item): item for item in found if _identity(item) is not None}
        return [
            line
            for at, item in enumerate(wanted)
            for line in differences(item, named.get(_identity(item), found[at]), f"{path}[{at}]")
        ]
    return [] if wanted == found else [f"{path} is {str(found)[:60]}, not {str(wanted)[:60]}"]


def _identity(item: Any) -> str | None:
    return (item.get("manager") or item.get("mountPath") or item.get("name")) if isinstance(item, dict) else None
