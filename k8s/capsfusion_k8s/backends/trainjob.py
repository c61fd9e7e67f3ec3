"""TrainJobs of Kubeflow Trainer (v2), which makes a JobSet of them.

A TrainJob refers to a runtime, which holds the pod template: each run has a TrainingRuntime of its own, because a
TrainJob's runtimePatches cannot carry a podTemplate. The pods meet at node 0 by torchrun's c10d rendezvous; JobSet
makes the Service. A failed pod fails the whole JobSet, and the next attempt is a new TrainJob.
"""

from capsfusion_k8s.backends.backend import Backend
from capsfusion_k8s.objects.commands import training_command
from capsfusion_k8s.objects.meta import ATTEMPT, labels, metadata, queue_label
from capsfusion_k8s.objects.pods import pod_metadata, training_pod
from capsfusion_k8s.run import GROUP, Object, Run

RUNTIME = "TrainingRuntime"
API_GROUP = "trainer.kubeflow.org"
NODE = "node"  # what Trainer calls the Job of the pods that train, and their container
ANCESTOR = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


class TrainJob(Backend):
    """Kubeflow Trainer v2."""

    name = "trainjob"
    kind = "TrainJob"
    api_version = f"{API_GROUP}/v1alpha1"
    plural = "trainjobs"
    install = "Kubeflow Trainer v2"
    success = "Complete"
    rank_label = "batch.kubernetes.io/job-completion-index"
    pods_of = f"-{NODE}-0"

    def build(self, run: Run, attempt: int, *, suspend: bool) -> list[Object]:
        """Return the TrainingRuntime of the run and the TrainJob of an attempt."""
        name, who = run.child(attempt), labels(run, "trainer")
        pod = training_pod(run, training_command(run, attempt, f"{name}-{NODE}-0-0.{name}"), NODE)
        [main] = [container for container in pod["containers"] if container["name"] == NODE]
        command = main.pop("command")  # each TrainJob has its own, and all of a run have one runtime
        numbered = {"metadata": {"labels": {ATTEMPT: str(attempt)}}}
        patch = {"manager": f"{GROUP}/operator", "trainingRuntimeSpec": _replicated(numbered)}
        managed = {"managedBy": run.spec["managedBy"]} if "managedBy" in run.spec else {}
        job = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": metadata(run, name, who | {ATTEMPT: str(attempt)} | queue_label(run.spec)),
            "spec": {
                "runtimeRef": {"apiGroup": API_GROUP, "kind": RUNTIME, "name": run.runtime},
                "trainer": {
                    "command": command,
                    "numNodes": run.most_nodes,
                    "numProcPerNode": run.spec["trainer"].get("procPerNode", 1),
                },
                "runtimePatches": [patch],
                "suspend": suspend,
                **managed,
            },
        }
        return [_runtime(run, pod), job]

    def is_suspended(self, job: Object) -> bool:
        return bool(job["spec"].get("suspend", False))

    def is_running(self, job: Object) -> bool:
        jobs = (job.get("status") or {}).get("jobsStatus") or []
        return any(found.get("active") or found.get("ready") for found in jobs) and not self.is_suspended(job)


def _runtime(run: Run, pod: Object) -> Object:
    who = labels(run, "trainer")
    spec = _replicated({"metadata": pod_metadata(run, who, trains=True), "spec": pod})
    spec["template"]["spec"]["failurePolicy"] = {"maxRestarts": 0}
    [job] = spec["template"]["spec"]["replicatedJobs"]
    job["replicas"] = 1
    job["template"]["metadata"] = {"labels": ANCESTOR}
    job["template"]["spec"]["backoffLimit"] = 0
    return {
        "apiVersion": TrainJob.api_version,
        "kind": RUNTIME,
        "metadata": metadata(run, run.runtime, who),
        "spec": {"mlPolicy": {"numNodes": run.most_nodes, "torch": {}}, **spec},
    }


def _replicated(pod: Object) -> Object:
    """Return the part of a runtime that leads to its pods."""
    job: Object = {"name": NODE, "template": {"spec": {"template": pod}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


TRAINJOB = TrainJob()
