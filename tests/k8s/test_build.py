"""Tests of the Kubernetes objects and commands built from a run."""

import json
from typing import Any

from capsfusion_k8s.backends import PYTORCHJOB
from capsfusion_k8s.objects.commands import snapshot_address, training_command
from capsfusion_k8s.objects.merge import differences
from capsfusion_k8s.objects.short_jobs import resolve_job
from capsfusion_k8s.run import Object, Run

SPEC: Object = {
    "dataset": {"uri": "s3://lake/", "snapshot": "july"},
    "trainer": {
        "image": "registry.example/trainer@sha256:00", "recipe": "emu_7b_10m", "nodes": 2, "procPerNode": 8,
        "set": {"micro_batch_size": 32, "llm_model": "/models/llama"}, "serviceAccountName": "trainer",
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
        "resources": {"limits": {"nvidia.com/gpu": 8}, "requests": {"cpu": "32"}},
        "podTemplate": {"spec": {
            "nodeSelector": {"gpu": "h100"},
            "containers": [{"name": "pytorch", "volumeMounts": [{"name": "models", "mountPath": "/models"}]}],
            "volumes": [{"name": "models", "hostPath": {"path": "/models"}}],
        }},
    },
    "checkpoint": {"uri": "s3://checkpoints", "intervalSteps": 200, "keep": 3, "graceSeconds": 300},
    "priorityClassName": "training",
}  # fmt: skip


def pytorchjob(found: Run, attempt: int, *, suspend: bool) -> Object:
    [made] = PYTORCHJOB.build(found, attempt, suspend=suspend)
    return made


def run(**changes: Any) -> Run:
    metadata = {"name": "july", "namespace": "ml", "uid": "u-1", "generation": 1}
    return Run(
        {
            "metadata": metadata,
            "spec": SPEC | changes,
            "status": {
                "snapshot": {"name": "july-2", "version": 7, "manifestSha256": "ab", "gate": {"result": "passed"}},
                "attempt": 2,
            },
        }
    )


def test_a_dataset_by_name_by_version_and_the_newest() -> None:
    assert snapshot_address(run()) == "s3://lake@july"
    assert snapshot_address(run(dataset={"uri": "s3://lake", "version": 0})) == "s3://lake@0"
    assert snapshot_address(run(dataset={"uri": "s3://lake", "latestPassing": True})) == "s3://lake@latest"


def test_an_attempt() -> None:
    job = pytorchjob(run(), 2, suspend=False)
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == ("july-2", "ml")
    assert job["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert job["spec"]["runPolicy"] == {"cleanPodPolicy": "Running", "suspend": False}
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert (worker["replicas"], worker["restartPolicy"]) == (2, "Never")
    pod = worker["template"]["spec"]
    [container] = pod["containers"]
    command = container["command"]
    assert command[:3] == ["python", "-m", "capsfusion_trainer.launch"]
    assert {"--nnodes=2", "--nproc-per-node=8", "--rdzv-endpoint=july-2-worker-0:23456"} <= set(command)
    assert "--rdzv-conf=join_timeout=3600,read_timeout=3600" in command  # a node may take long to come
    # The pinned snapshot, even if `latest` has moved on; one checkpoint folder per run, so that attempts share it.
    assert command[command.index("--snapshot") + 1] == "s3://lake@july-2"
    assert command[command.index("--manifest-sha256") + 1] == "ab"
    assert command[command.index("--checkpoints") + 1] == "s3://checkpoints/july"
    assert {'--set=trainer.llm_model="/models/llama"', "--set=trainer.checkpoint_every=200"} <= set(command)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert {"name": "NCCL_DEBUG", "value": "WARN"} in container["env"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [m["name"] for m in container["volumeMounts"]] == ["work", "tmp", "models", "capsfusion-shm"]
    assert [v["name"] for v in pod["volumes"]] == ["work", "tmp", "models", "capsfusion-shm"]
    assert (pod["nodeSelector"], pod["terminationGracePeriodSeconds"]) == ({"gpu": "h100"}, 300)
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("training", "trainer")
    assert json.dumps(job) == json.dumps(pytorchjob(run(), 2, suspend=False))


def test_a_queue_and_elastic_nodes() -> None:
    trainer = SPEC["trainer"] | {"elastic": {"min": 1, "max": 4}}
    job = pytorchjob(run(trainer=trainer, queueName="gpus"), 1, suspend=True)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"]["runPolicy"]["suspend"] is True
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert worker["replicas"] == 4
    assert "--nnodes=1:4" in worker["template"]["spec"]["containers"][0]["command"]


def test_a_command_of_ones_own() -> None:
    trainer = SPEC["trainer"] | {"command": ["python", "mine.py"], "args": ["--fast"]}
    job = pytorchjob(run(trainer=trainer), 1, suspend=False)
    container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "mine.py", "--fast"]


def test_the_snapshot_is_resolved_under_the_run_s_own_account() -> None:
    job = resolve_job(run())
    pod = job["spec"]["template"]["spec"]
    assert (job["kind"], job["metadata"]["name"]) == ("Job", "july-resolve")
    assert (pod["serviceAccountName"], pod["restartPolicy"]) == ("trainer", "Never")
    assert pod["containers"][0]["command"][:4] == ["capsfusion", "pin", "--snapshot", "s3://lake@july"]


def test_a_gate_that_was_overruled_is_not_asked_again_by_the_trainer() -> None:
    overruled = run(qualityGate={"required": False})
    overruled.object["status"]["snapshot"]["gate"] = {"result": "failed"}
    assert "--set=trainer.failed_gate=true" in training_command(overruled, 1, "a")
    assert "--set=trainer.failed_gate=true" not in training_command(run(), 1, "a")


def test_another_folder_of_checkpoints_to_begin_with() -> None:
    moved = run(checkpoint={"uri": "s3://new", "resumeFrom": "s3://old/july"})
    command = training_command(moved, 1, "a")
    assert command[command.index("--resume-from") + 1] == "s3://old/july"
    assert command[command.index("--checkpoints") + 1] == "s3://new/july"


def test_what_was_changed_by_hand_is_found_and_what_others_added_is_not() -> None:
    wanted = pytorchjob(run(), 1, suspend=False)["spec"]
    found = json.loads(json.dumps(wanted))
    worker = found["pytorchReplicaSpecs"]["Worker"]
    worker["template"]["spec"]["nodeSelector"]["zone"] = "a"
    worker["template"]["spec"]["tolerations"] = [{"key": "gpu"}]
    assert differences(wanted, found) == []
    worker["replicas"] = 3
    del worker["template"]["spec"]["containers"][0]["command"][0]
    said = differences(wanted, found)
    assert said[0] == "spec.pytorchReplicaSpecs.Worker.replicas is 3, not 2"
    assert len(said) == 2


def test_a_pod_that_brings_its_own_shared_memory_keeps_it() -> None:
    mount = {"name": "big", "mountPath": "/dev/shm"}
    users = {"spec": {"containers": [{"name": "pytorch", "volumeMounts": [mount]}], "volumes": [{"name": "big"}]}}
    pod = pytorchjob(run(trainer=SPEC["trainer"] | {"podTemplate": users}), 1, suspend=False)["spec"]
    pod = pod["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert [m["name"] for m in pod["containers"][0]["volumeMounts"]] == ["work", "tmp", "big"]
    assert [v["name"] for v in pod["volumes"]] == ["work", "tmp", "big"]


def test_the_jobs_that_read_the_lake_need_no_gpus() -> None:
    """A pod for a manifest must not start a GPU node; it needs what reaches the lake."""
    main = {
        "name": "pytorch",
        "volumeMounts": [{"name": "lake", "mountPath": "/lake"}],
        "resources": {"limits": {"a": 8}},
    }
    users = {"spec": {
        "nodeSelector": {"gpu": "h100"}, "schedulerName": "volcano", "tolerations": [{"key": "gpu"}],
        "containers": [main, {"name": "sidecar"}], "volumes": [{"name": "lake", "hostPath": {"path": "/lake"}}],
        "imagePullSecrets": [{"name": "registry"}], "securityContext": {"runAsNonRoot": True},
    }}  # fmt: skip
    resolver = {"queueName": "cpus", "activeDeadlineSeconds": 900, "nodeSelector": {"kind": "cpu"}}
    job = resolve_job(run(trainer=SPEC["trainer"] | {"podTemplate": users}, resolver=resolver))
    pod = job["spec"]["template"]["spec"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cpus"
    assert job["spec"]["activeDeadlineSeconds"] == 900
    assert pod["nodeSelector"] == {"kind": "cpu"}
    assert not {"schedulerName", "tolerations", "priorityClassName"} & pod.keys()
    [container] = pod["containers"]
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "512Mi"}}
    assert "/lake" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert (pod["imagePullSecrets"], pod["securityContext"]) == ([{"name": "registry"}], {"runAsNonRoot": True})


def test_a_pod_template_is_merged_without_losing_anything() -> None:
    """Mounts by their path, environment by its name, once; commands are replaced, and a longer grace is kept."""
    mounts = [{"name": "data", "mountPath": "/a", "subPath": "a"}, {"name": "data", "mountPath": "/b", "subPath": "b"}]
    mounts.append({"name": "big", "mountPath": "/work"})
    users = {"spec": {
        "terminationGracePeriodSeconds": 600,
        "containers": [
            {"name": "pytorch", "volumeMounts": mounts, "env": [{"name": "A", "value": "2"}], "command": ["x"]}
        ],
        "volumes": [{"name": "data"}, {"name": "big"}],
    }, "metadata": {"labels": {"sidecar.istio.io/inject": "true"}}}  # fmt: skip
    env = [{"name": "HOME", "value": "/home"}, {"name": "A", "value": "1"}]
    trainer = SPEC["trainer"] | {"podTemplate": users, "env": env}
    job = pytorchjob(run(trainer=trainer), 1, suspend=False)
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    [container] = template["spec"]["containers"]
    assert {m["mountPath"]: m["name"] for m in container["volumeMounts"]} == {
        "/work": "big", "/tmp": "tmp", "/a": "data", "/b": "data", "/dev/shm": "capsfusion-shm",
    }  # fmt: skip
    names = [e["name"] for e in container["env"]]
    assert sorted(names) == sorted(set(names))
    assert {e["name"]: e["value"] for e in container["env"]}.items() >= {"HOME": "/home", "A": "2"}.items()
    assert (container["command"], template["spec"]["terminationGracePeriodSeconds"]) == (["x"], 600)
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "true"
    assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
