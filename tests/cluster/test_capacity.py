"""Tests of runs that wait for machines: elastic ones, missing nodes, queues; and of names that others have."""

import time
from typing import TYPE_CHECKING

import pytest
from conftest import both_backends
from kubernetes.client import ApiException
from runs import all_run
from waiting import until

if TYPE_CHECKING:
    from runs import Runs

pytestmark = pytest.mark.cluster
backend = both_backends()


def test_an_elastic_run_trains_with_the_nodes_there_are_and_ends(runs: "Runs") -> None:
    """Its late pods disturb nothing: they stay Pending here, as the nodes have GPUs for two."""
    elastic = {"nodes": None, "elastic": {"min": 2, "max": 8}}
    if runs.backend.name == "trainjob":
        with pytest.raises(ApiException, match="TrainJobs cannot be elastic"):
            runs.submit("elastic", trainer=elastic)
        return
    gpus = {"limits": {"nvidia.com/gpu": "8"}, "requests": {"nvidia.com/gpu": "8"}}
    runs.submit("elastic", trainer=elastic | {"resources": gpus})
    runs.wait("elastic", "Running")

    def phases() -> list[str]:
        return sorted(pod["status"]["phase"] for pod in runs.pods("elastic").values())

    until(lambda: phases() == ["Pending"] * 6 + ["Running"] * 2, "two of eight pods run")
    for name, pod in runs.pods("elastic").items():
        if pod["status"]["phase"] == "Running":
            runs.annotate(name, exit="0")
    runs.wait("elastic", "Succeeded")
    until(lambda: {pod["status"]["phase"] for pod in runs.pods("elastic").values()} == {"Succeeded"}, "none is left")


def test_waiting_for_nodes_uses_no_restart_up(runs: "Runs") -> None:
    gpus = {"limits": {"nvidia.com/gpu": "8"}, "requests": {"nvidia.com/gpu": "8"}}
    runs.submit("few", trainer={"nodes": 3, "resources": gpus}, restartPolicy={"maxRestarts": 0, "backoff": "1s"})
    until(lambda: runs.condition("few", "Running").get("reason") == "Unschedulable", "it is said")
    assert runs.status("few")["phase"] == "WaitingForPods"
    until(lambda: [p["status"]["phase"] for p in runs.pods("few").values()].count("Running") == 2, "two run")
    waiting = next(name for name, pod in runs.pods("few").items() if pod["status"]["phase"] == "Running")
    time.sleep(2)  # the training operator may say late, and in whole seconds, when the job began
    runs.annotate(waiting, exit="75", message="capsfusion: the other pods did not come within 3600 s")
    until(lambda: runs.status("few").get("attempt") == 2, "another attempt")
    status = runs.status("few")
    assert (status.get("restarts", 0), status["lastFailure"]["kind"]) == (0, "waited")
    runs.wait("few", "WaitingForPods")
    runs.plane.call(f"{runs.path}/few", "DELETE")


def test_a_preempted_run_says_so_and_goes_on(runs: "Runs") -> None:
    runs.submit("yields", queueName="gpus")
    until(lambda: runs.jobs("yields"), "its job is there")
    runs.release("yields-1")
    all_run(runs, "yields")
    v1 = runs.backend.name == "pytorchjob"
    pause = {"runPolicy": {"suspend": True}} if v1 else {"suspend": True}
    runs.plane.call(f"{runs.jobs_path}/yields-1", "PATCH", {"spec": pause}, "application/merge-patch+json")
    until(lambda: "Preempted" in runs.reasons("yields"), "it is said")
    assert runs.condition("yields", "Admitted")["status"] == "False"
    assert runs.condition("yields", "Suspended").get("status") != "True"
    until(lambda: not runs.pods("yields"), "the pods are gone")
    runs.release("yields-1")
    all_run(runs, "yields")
    assert runs.condition("yields", "Admitted")["status"] == "True"
    assert runs.status("yields").get("disruptions", 0) == 0


def test_another_s_object_is_not_taken_over(runs: "Runs") -> None:
    template = {"metadata": {"labels": {"app": "mine"}}, "spec": {"restartPolicy": "Never", "containers": []}}
    template["spec"]["containers"] = [{"name": "c", "image": "example.org/c"}]
    mine = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "taken-resolve"},
        "spec": {"template": template},
    }
    [before] = runs.plane.apply(mine, namespace=runs.namespace)
    runs.submit("taken")
    until(lambda: runs.condition("taken", "SnapshotResolved").get("reason") == "NameTaken", "it is said")
    path = f"/apis/batch/v1/namespaces/{runs.namespace}/jobs/taken-resolve"
    assert runs.plane.get(path)["spec"] == before["spec"]
    runs.plane.call(f"{path}?propagationPolicy=Background", "DELETE")
    runs.wait("taken", "Running")


def test_a_lost_node_is_a_disruption(runs: "Runs") -> None:
    """Its pod is marked as not ready by the control plane; the other pod fails first, for lack of it."""
    runs.submit("lost", restartPolicy={"maxRestarts": 0, "backoff": "1s"}, checkpoint={"uri": "/c", "graceSeconds": 2})
    all_run(runs, "lost")
    silent, survivor = runs.pod("lost-1", 1), runs.pod("lost-1", 0)
    runs.annotate(silent, stuck="its node does not answer")
    path = f"/api/v1/namespaces/{runs.namespace}/pods/{silent}"
    known = runs.plane.get(path)["status"]["conditions"]
    conditions = [c | ({"status": "False"} if c["type"] == "Ready" else {}) for c in known]
    runs.plane.call(f"{path}/status", "PATCH", {"status": {"conditions": conditions}}, "application/merge-patch+json")
    time.sleep(2)
    runs.annotate(survivor, exit="134", message="NCCL error: remote process exited")
    until(lambda: runs.condition("lost", "Running").get("reason") == "WaitsForPods", "it waits for the lost pod")
    runs.annotate(silent, stuck=None)
    all_run(runs, "lost", attempt=2)
    status = runs.status("lost")
    assert (status["lastFailure"]["reason"], status.get("restarts", 0), status["disruptions"]) == ("NodeLost", 0, 1)
