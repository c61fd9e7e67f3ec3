"""Build the pods of a run, which the Pod Security Standard "restricted" admits."""

from capsfusion_k8s.objects.merge import merged
from capsfusion_k8s.objects.meta import CONTAINER
from capsfusion_k8s.run import Object, Run

SHARED_MEMORY, SHARED_VOLUME = "/dev/shm", "capsfusion-shm"
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
USER: Object = {
    "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
    "fsGroupChangePolicy": "OnRootMismatch", # else a volume with a lake is chowned, file by file, at each start
}  # fmt: skip
# A pod in a mesh does not end, and ranks do not reach each other through it: a label of podTemplate says otherwise.
NO_MESH = {"sidecar.istio.io/inject": "false"}
# No autoscaler moves a pod of a gang to save a node: that would restart all of them.
NOT_MOVED = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}


def pod_metadata(run: Run, labels: dict[str, str], *, trains: bool) -> Object:
    """Return the user's labels and annotations; the labels of the operator win."""
    users: Object = run.spec["trainer"].get("podTemplate", {}).get("metadata", {})
    defaults: Object = {"labels": NO_MESH} | ({"annotations": NOT_MOVED} if trains else {})
    found: Object = merged(merged(defaults, users), {"labels": labels})
    return found


def training_pod(run: Run, command: list[str], name: str = CONTAINER) -> Object:
    """Return the specification of a pod that trains.

    Args:
        name: Name of the main container, as the backend requires it; users call it `pytorch`.
    """
    trainer = run.spec["trainer"]
    users: Object = trainer.get("podTemplate", {}).get("spec", {})
    main = _container(run, command) | ({"resources": trainer["resources"]} if trainer.get("resources") else {})
    main["env"] = merged(main["env"], [{"name": "CAPSFUSION_PROGRESS", "value": "stdout"}])  # for the operator
    pod = _pod(run, main, users)
    pod = _with_shared_memory(pod, trainer.get("sharedMemory"))
    pod |= {"terminationGracePeriodSeconds": run.grace_s, "restartPolicy": "Never"}
    if run.spec.get("priorityClassName"):
        pod["priorityClassName"] = run.spec["priorityClassName"]
    pod["containers"] = [c | {"name": name} if c["name"] == CONTAINER else c for c in pod["containers"]]
    return pod


def small_pod(run: Run, command: list[str]) -> Object:
    """Return the specification of a pod that reads the lake: on any node, with the user's volumes and secrets.

    `spec.resolver` sizes and places it. Of podTemplate it takes what a pod needs to reach the lake, not the GPUs.
    """
    resolver: Object = run.spec.get("resolver", {})
    users: Object = run.spec["trainer"].get("podTemplate", {}).get("spec", {})
    reaches = ("volumes", "imagePullSecrets", "securityContext", "hostAliases", "dnsPolicy", "dnsConfig")
    taken = {key: users[key] for key in reaches if key in users}
    parts = ("name", "volumeMounts", "env", "envFrom", "securityContext")
    mains = [c for c in users.get("containers", []) if c.get("name") == CONTAINER]
    taken["containers"] = [{key: main[key] for key in parts if key in main} for main in mains]
    main = _container(run, command) | {"resources": resolver.get("resources") or _SMALL}
    pod = _pod(run, main, taken)
    placed = {key: resolver[key] for key in ("nodeSelector", "tolerations", "priorityClassName") if key in resolver}
    return pod | placed | {"restartPolicy": "Never"}


_SMALL: Object = {"requests": {"cpu": "100m", "memory": "512Mi"}}


def _container(run: Run, command: list[str]) -> Object:
    trainer = run.spec["trainer"]
    env = [{"name": "PYTHONUNBUFFERED", "value": "1"}, {"name": "HOME", "value": "/work"}]
    return {
        "name": CONTAINER,
        "image": trainer["image"],
        "command": command,
        "env": merged(env, trainer.get("env", [])),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _pod(run: Run, container: Object, users: Object) -> Object:
    """Return a pod with the user's specification merged into it; its security context replaces the default."""
    pod: Object = {
        "containers": [container],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        "automountServiceAccountToken": False,
    }
    if run.spec["trainer"].get("serviceAccountName"):
        pod["serviceAccountName"] = run.spec["trainer"]["serviceAccountName"]
    found: Object = {"securityContext": USER} | merged(pod, users)
    return found


def _with_shared_memory(pod: Object, size: str | int | None) -> Object:
    """Mount memory at /dev/shm, unless the user does: workers that load images and NCCL need more than 64 MiB."""
    [main] = [container for container in pod["containers"] if container["name"] == CONTAINER]
    if any(str(mount.get("mountPath")).rstrip("/") == SHARED_MEMORY for mount in main["volumeMounts"]):
        return pod
    main = main | {"volumeMounts": [*main["volumeMounts"], {"name": SHARED_VOLUME, "mountPath": SHARED_MEMORY}]}
    containers = [main if container["name"] == CONTAINER else container for container in pod["containers"]]
    limit = {"sizeLimit": size} if size else {}
    memory = {"name": SHARED_VOLUME, "emptyDir": {"medium": "Memory", **limit}}
    return pod | {"containers": containers, "volumes": [*pod["volumes"], memory]}
