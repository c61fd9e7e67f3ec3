"""Tests of the backends: the choice between them, the objects of a TrainJob, and elastic PyTorchJobs."""

import pytest
from capsfusion_k8s.backends import BACKENDS, TRAINJOB
from capsfusion_k8s.backends.choice import choose
from capsfusion_k8s.planning.actions import Children, SetStatus
from capsfusion_k8s.planning.plan import plan
from capsfusion_k8s.run import Object
from objects import NOW, SPEC, job, run, status_of

ELASTIC = {"trainer": SPEC["trainer"] | {"elastic": {"min": 2, "max": 8}}}


@pytest.mark.parametrize(
    ("spec", "there", "backend", "reason"),
    [
        ({}, {"pytorchjob"}, "pytorchjob", "OnlyBackend"),
        ({}, {"trainjob"}, "trainjob", "OnlyBackend"),
        ({}, {"pytorchjob", "trainjob"}, "pytorchjob", "Preferred"),
        ({"queueName": "gpus"}, {"pytorchjob", "trainjob"}, "trainjob", "QueueManages"),
        ({"queueName": "gpus"} | ELASTIC, {"pytorchjob", "trainjob"}, "pytorchjob", "AskedFor"),
        ({"backend": "trainjob"}, {"pytorchjob", "trainjob"}, "trainjob", "AskedFor"),
        ({"backend": "trainjob"}, {"pytorchjob"}, None, "TrainingOperatorMissing"),
        (ELASTIC, {"trainjob"}, None, "TrainingOperatorMissing"),
        ({}, set(), None, "TrainingOperatorMissing"),
    ],
)
def test_the_choice(spec: Object, there: set[str], backend: str | None, reason: str) -> None:
    choice = choose(run(spec=spec, backend=None), frozenset(there))
    assert (choice.backend, choice.reason) == (backend, reason)
    assert choice.message


def test_a_run_without_a_backend_waits_and_says_for_what() -> None:
    waits = run("Queued", backend=None, attempt=1)
    [said] = plan(waits, Children(backends=frozenset()), NOW)
    assert isinstance(said, SetStatus)
    assert said.conditions["Running"].reason == "TrainingOperatorMissing"
    assert "Kubeflow's training operator v1 or Kubeflow Trainer v2" in said.message
    [chosen] = plan(waits, Children(backends=frozenset({"trainjob"})), NOW)
    assert isinstance(chosen, SetStatus)
    assert (chosen.changes["backend"], chosen.conditions["BackendChosen"].status) == ("trainjob", "True")


def test_a_trainjob_and_its_runtime() -> None:
    mount = {"name": "m", "mountPath": "/m"}
    trainer = SPEC["trainer"] | {
        "nodes": 4, "procPerNode": 8, "resources": {"limits": {"nvidia.com/gpu": 8}},
        "podTemplate": {"spec": {"containers": [{"name": "pytorch", "volumeMounts": [mount]}]}},
    }  # fmt: skip
    found = run("Queued", spec={"trainer": trainer, "queueName": "gpus"}, backend="trainjob", attempt=2)
    runtime, made = TRAINJOB.build(found, 2, suspend=True)
    assert (runtime["kind"], runtime["metadata"]["name"]) == ("TrainingRuntime", "july-runtime")
    assert (made["kind"], made["metadata"]["name"], made["spec"]["suspend"]) == ("TrainJob", "july-2", True)
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert made["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "july-runtime",
    }  # fmt: skip
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (4, 8)
    assert "--rdzv-endpoint=july-2-node-0-0.july-2:23456" in trainer["command"]
    [job] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert runtime["spec"]["template"]["spec"]["failurePolicy"] == {"maxRestarts": 0}
    assert (job["name"], job["replicas"], job["template"]["spec"]["backoffLimit"]) == ("node", 1, 0)
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"  # users call it pytorch, whatever the backend
    assert "/m" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}}
    assert "command" not in container


def test_an_elastic_run_is_one_for_the_training_operator() -> None:
    """Without a policy, it would wait for pods that may never come (kubeflow/trainer#1751)."""
    [made] = BACKENDS["pytorchjob"].build(run(spec=ELASTIC), 1, suspend=False)
    policy = made["spec"]["elasticPolicy"]
    assert (policy["minReplicas"], policy["maxReplicas"], policy["rdzvBackend"]) == (2, 8, "c10d")
    assert made["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 8
    two = Children(jobs={1: job("Running", spec=ELASTIC)}, there=8, ran=2)
    one = Children(jobs={1: job("Running", spec=ELASTIC)}, there=8, ran=1)
    assert status_of(plan(run("WaitingForPods", spec=ELASTIC, attempt=1), two, NOW)) == ("Running", "Running")
    assert status_of(plan(run("WaitingForPods", spec=ELASTIC, attempt=1), one, NOW))[0] == "WaitingForPods"


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_what_a_job_says(backend: str) -> None:
    kind = BACKENDS[backend]
    for condition in ("Running", "Succeeded", "Failed"):
        found = job(condition, backend=backend)
        assert (kind.is_running(found), kind.succeeded(found), kind.failed(found)) == (
            condition == "Running", condition == "Succeeded", condition == "Failed",
        )  # fmt: skip
    held = job("Running", suspend=True, backend=backend)
    assert (kind.is_running(held), kind.is_suspended(held)) == (False, True)
    assert kind.edits(run(attempt=1, backend=backend), job(backend=backend)) == []


def test_pods_of_another_cluster_are_not_waited_for() -> None:
    spec = {"managedBy": "kueue.x-k8s.io/multikueue", "queueName": "gpus"}
    [made] = BACKENDS["pytorchjob"].build(run(spec=spec), 1, suspend=True)
    assert made["spec"]["runPolicy"]["managedBy"] == "kueue.x-k8s.io/multikueue"
    assert BACKENDS["trainjob"].build(run(spec=spec), 1, suspend=True)[1]["spec"]["managedBy"] == spec["managedBy"]
    far = Children(jobs={1: job("Running", spec=spec)})
    assert status_of(plan(run("Queued", spec=spec, attempt=1), far, NOW)) == ("Running", "Running")
