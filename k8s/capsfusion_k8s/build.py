"""Build the Kubernetes objects of a run: its short Jobs and the PyTorchJob of an attempt. Pure functions.

The PyTorchJob has workers only: with a Master, the training operator would add an init container that restricted
namespaces refuse. The pods join torchrun's c10d rendezvous at worker 0, whose Service the training operator creates.
"""

import json

from kubeflow.training import (
    KubeflowOrgV1PyTorchJob,
    KubeflowOrgV1PyTorchJobSpec,
    KubeflowOrgV1ReplicaSpec,
    KubeflowOrgV1RunPolicy,
)
from kubernetes.client import (
    ApiClient,
    V1Container,
    V1EnvVar,
    V1ObjectMeta,
    V1PodSpec,
    V1PodTemplateSpec,
    V1ResourceRequirements,
)

from capsfusion_k8s.merge import merged
from capsfusion_k8s.run import GROUP, KIND, VERSION, Object, Run

PORT = 23456
LABEL, ROLE, ATTEMPT = f"{GROUP}/run", f"{GROUP}/role", f"{GROUP}/attempt"
SHARED_MEMORY, SHARED_VOLUME = "/dev/shm", "capsfusion-shm"
CONTAINER = "pytorch"  # required by the training operator
# Seconds that a pod waits for the others, and for worker 0: nodes of a pool may take long to come.
RENDEZVOUS = "join_timeout=3600,read_timeout=900"
GRACE = 120  # seconds from SIGTERM to SIGKILL, enough to save a checkpoint
# Required by the Pod Security Standard "restricted".
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def labels(run: Run, role: str) -> dict[str, str]:
    """Return the labels that select the children of a run; `role` is resolver, keeper or trainer."""
    return {
        LABEL: run.name,
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


def snapshot_address(run: Run) -> str:
    """Return the requested snapshot in the syntax of `capsfusion`: LAKE@NAME, LAKE@latest or LAKE@VERSION."""
    dataset = run.spec["dataset"]
    which = dataset.get("snapshot") or ("latest" if dataset.get("latestPassing") else dataset["version"])
    return f"{dataset['uri'].rstrip('/')}@{which}"


def pinned_address(run: Run) -> str:
    """Return the snapshot that was pinned, as LAKE@NAME or LAKE@VERSION, never LAKE@latest."""
    pin = run.status["snapshot"]
    return f"{run.spec['dataset']['uri'].rstrip('/')}@{pin.get('name', pin['version'])}"


def resolve_job(run: Run) -> Object:
    """Return the Job that resolves the snapshot.

    It runs under the run's service account, because the operator has no credentials for the lake.
    """
    command = ["capsfusion", "pin", "--snapshot", snapshot_address(run), "--message", "/dev/termination-log"]
    return _short_job(run, run.resolver, "resolver", command)


def _short_job(run: Run, name: str, role: str, command: list[str]) -> Object:
    trainer = run.spec["trainer"]
    container = _container(run, command, {"cpu": "100m", "memory": "512Mi"})
    pod = _pod(run, container, trainer) | {"restartPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(run, name, labels(run, role)),
        "spec": {"backoffLimit": 2, "template": {"metadata": _pod_metadata(run, labels(run, role)), "spec": pod}},
    }


def keeper_job(run: Run, hold: bool, *, owned: bool = True) -> Object:
    """Return the Job that holds the snapshot's files or releases them.

    Args:
        owned: False after the run was deleted: the Job has no owner and expires 600 s after it finishes.
    """
    command = ["capsfusion", "pin", "--snapshot", pinned_address(run), "--hold" if hold else "--release", run.holder]
    found = _short_job(run, run.keeper(hold), "keeper", command)
    if not owned:
        del found["metadata"]["ownerReferences"]
        found["spec"]["ttlSecondsAfterFinished"] = 600
    return found


def training_command(run: Run, attempt: int) -> list[str]:
    """Return the container's command: torchrun with `capsfusion train`, or the run's custom command."""
    trainer, name = run.spec["trainer"], run.child(attempt)
    if trainer.get("command"):
        return [*trainer["command"], *trainer.get("args", [])]
    elastic, nodes = trainer.get("elastic"), trainer.get("nodes", 1)
    count = f"{elastic['min']}:{elastic['max']}" if elastic else str(nodes)
    torchrun = [
        "python", "-m", "capsfusion_trainer.launch",
        f"--nnodes={count}", f"--nproc-per-node={trainer.get('procPerNode', 1)}",
        "--rdzv-backend=c10d", f"--rdzv-id={name}", f"--rdzv-endpoint={name}-worker-0:{PORT}",
        f"--rdzv-conf={RENDEZVOUS}",
    ]  # fmt: skip
    sets = [f"--set=trainer.{key}={json.dumps(value)}" for key, value in trainer.get("set", {}).items()]
    checkpoint, pin = run.spec["checkpoint"], run.status["snapshot"]
    if "intervalSteps" in checkpoint:
        sets.append(f"--set=trainer.checkpoint_every={checkpoint['intervalSteps']}")
    if "keep" in checkpoint:
        sets.append(f"--set=trainer.keep={checkpoint['keep']}")
    job = [
        "train", "--snapshot", pinned_address(run), "--manifest-sha256", pin["manifestSha256"],
        "--recipe", trainer["recipe"], "--out", "/work/run", "--checkpoints", run.checkpoints,
    ]  # fmt: skip
    if (pin.get("gate") or {}).get("result") != "passed":
        sets.append("--set=trainer.failed_gate=true")  # the run's qualityGate admitted it
    if "resumeFrom" in checkpoint:
        job += ["--resume-from", checkpoint["resumeFrom"]]
    return [*torchrun, *job, *sets, *trainer.get("args", [])]


def pytorchjob(run: Run, attempt: int, *, suspend: bool) -> Object:
    """Return the PyTorchJob of an attempt.

    Its pods never restart; after a failure, all of them start anew as the next attempt.
    """
    trainer = run.spec["trainer"]
    grace = int(run.spec["checkpoint"].get("graceSeconds", GRACE))
    container = _container(run, training_command(run, attempt), trainer.get("resources", {}).get("requests", {}))
    if trainer.get("resources"):
        container["resources"] = trainer["resources"]
    container["env"] += [{"name": "CAPSFUSION_PROGRESS", "value": "stdout"}]  # for the operator
    pod = _with_shared_memory(_pod(run, container, trainer)) | {"terminationGracePeriodSeconds": grace}
    who = labels(run, "trainer") | {ATTEMPT: str(attempt)}
    nodes = trainer["elastic"]["max"] if trainer.get("elastic") else trainer.get("nodes", 1)
    made = KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        metadata=V1ObjectMeta(),
        spec=KubeflowOrgV1PyTorchJobSpec(
            nproc_per_node=str(trainer.get("procPerNode", 1)),
            run_policy=KubeflowOrgV1RunPolicy(clean_pod_policy="Running", suspend=suspend),
            pytorch_replica_specs={
                "Worker": KubeflowOrgV1ReplicaSpec(
                    replicas=nodes,
                    restart_policy="Never",
                    template=V1PodTemplateSpec(spec=V1PodSpec(containers=[])),
                )
            },
        ),
    )
    found: Object = ApiClient().sanitize_for_serialization(made)
    found["metadata"] = _metadata(run, run.child(attempt), who)
    if "queueName" in run.spec:
        found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = run.spec["queueName"]
    template: Object = found["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    template |= {"metadata": _pod_metadata(run, who), "spec": pod}
    return found


def _metadata(run: Run, name: str, who: dict[str, str]) -> Object:
    return {"name": name, "namespace": run.namespace, "labels": who, "ownerReferences": owner(run)}


def _pod_metadata(run: Run, who: dict[str, str]) -> Object:
    """Return the user's labels and annotations; the labels of the operator win."""
    users: Object = run.spec["trainer"].get("podTemplate", {}).get("metadata", {})
    found: Object = merged(users, {"labels": who})
    return found


def _container(run: Run, command: list[str], requests: dict[str, str]) -> Object:
    trainer = run.spec["trainer"]
    made = V1Container(
        name=CONTAINER,
        image=trainer["image"],
        command=command,
        env=[V1EnvVar(name="PYTHONUNBUFFERED", value="1"), V1EnvVar(name="HOME", value="/work")],
        resources=V1ResourceRequirements(requests=requests or None),
        termination_message_policy="FallbackToLogsOnError",
    )
    found: Object = ApiClient().sanitize_for_serialization(made)
    found["env"] += trainer.get("env", [])
    found["securityContext"] = RESTRICTED
    found["volumeMounts"] = [{"name": "work", "mountPath": "/work"}, {"name": "tmp", "mountPath": "/tmp"}]
    return found


def _pod(run: Run, container: Object, trainer: Object) -> Object:
    """Return a pod that PSS "restricted" admits, with the user's podTemplate merged into it."""
    pod: Object = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        "automountServiceAccountToken": False,
    }
    if trainer.get("serviceAccountName"):
        pod["serviceAccountName"] = trainer["serviceAccountName"]
    if run.spec.get("priorityClassName"):
        pod["priorityClassName"] = run.spec["priorityClassName"]
    found: Object = merged(pod, trainer.get("podTemplate", {}).get("spec", {}))
    return found


def _with_shared_memory(pod: Object) -> Object:
    """Mount memory at /dev/shm, unless the user does: workers that load images and NCCL need more than 64 MiB."""
    [main] = [container for container in pod["containers"] if container["name"] == CONTAINER]
    if any(str(mount.get("mountPath")).rstrip("/") == SHARED_MEMORY for mount in main["volumeMounts"]):
        return pod
    main = main | {"volumeMounts": [*main["volumeMounts"], {"name": SHARED_VOLUME, "mountPath": SHARED_MEMORY}]}
    containers = [main if container["name"] == CONTAINER else container for container in pod["containers"]]
    memory = {"name": SHARED_VOLUME, "emptyDir": {"medium": "Memory"}}
    return pod | {"containers": containers, "volumes": [*pod["volumes"], memory]}
