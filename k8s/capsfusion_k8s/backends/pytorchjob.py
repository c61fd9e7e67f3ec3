"""PyTorchJobs of Kubeflow's training operator (v1).

Such a job has workers only: with a Master, the training operator would add an init container that restricted namespaces
refuse. The pods meet at worker 0 by torchrun's c10d rendezvous; the training operator makes a Service for it.
"""

from typing import Any

from kubeflow.training import (
    KubeflowOrgV1ElasticPolicy,
    KubeflowOrgV1PyTorchJob,
    KubeflowOrgV1PyTorchJobSpec,
    KubeflowOrgV1ReplicaSpec,
    KubeflowOrgV1RunPolicy,
)
from kubernetes.client import ApiClient, V1ObjectMeta, V1PodSpec, V1PodTemplateSpec

from capsfusion_k8s.backends.backend import Backend
from capsfusion_k8s.objects.commands import PORT, training_command
from capsfusion_k8s.objects.meta import ATTEMPT, has, labels, metadata, queue_label
from capsfusion_k8s.objects.pods import pod_metadata, training_pod
from capsfusion_k8s.run import Object, Run


class PyTorchJob(Backend):
    """Kubeflow's training operator v1."""

    name = "pytorchjob"
    kind = "PyTorchJob"
    api_version = "kubeflow.org/v1"
    plural = "pytorchjobs"
    install = "Kubeflow's training operator v1"
    success = "Succeeded"
    rank_label = "training.kubeflow.org/replica-index"

    def build(self, run: Run, attempt: int, *, suspend: bool) -> list[Object]:
        """Return the PyTorchJob of an attempt. Its pods never restart: after a failure, all start as a new attempt."""
        name = run.child(attempt)
        who = labels(run, "trainer") | {ATTEMPT: str(attempt)}
        pod = training_pod(run, training_command(run, attempt, f"{name}-worker-0"))
        template: Any = {"metadata": pod_metadata(run, who, trains=True), "spec": pod}
        found: Object = ApiClient().sanitize_for_serialization(_typed(run, suspend))
        found["spec"]["pytorchReplicaSpecs"]["Worker"]["template"] = template
        return [found | {"metadata": metadata(run, name, who | queue_label(run.spec))}]

    def is_suspended(self, job: Object) -> bool:
        return bool(job["spec"].get("runPolicy", {}).get("suspend", False))

    def is_running(self, job: Object) -> bool:
        return has(job, "Running") and not self.is_suspended(job)


def _typed(run: Run, suspend: bool) -> KubeflowOrgV1PyTorchJob:
    trainer = run.spec["trainer"]
    elastic, count = trainer.get("elastic"), trainer.get("procPerNode", 1)
    # Without a policy, the training operator waits for pods that may never come: kubeflow/trainer#1751.
    policy = KubeflowOrgV1ElasticPolicy(
        min_replicas=elastic["min"], max_replicas=elastic["max"], rdzv_backend="c10d", rdzv_port=PORT
    ) if elastic else None  # fmt: skip
    worker = KubeflowOrgV1ReplicaSpec(
        replicas=run.most_nodes, restart_policy="Never", template=V1PodTemplateSpec(spec=V1PodSpec(containers=[]))
    )
    return KubeflowOrgV1PyTorchJob(
        api_version=PyTorchJob.api_version,
        kind=PyTorchJob.kind,
        metadata=V1ObjectMeta(),
        spec=KubeflowOrgV1PyTorchJobSpec(
            elastic_policy=policy,
            nproc_per_node=str(count),
            run_policy=KubeflowOrgV1RunPolicy(
                clean_pod_policy="Running", suspend=suspend, managed_by=run.spec.get("managedBy")
            ),
            pytorch_replica_specs={"Worker": worker},
        ),
    )


PYTORCHJOB = PyTorchJob()
