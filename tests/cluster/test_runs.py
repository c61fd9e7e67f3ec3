"""Tests of runs from submission to their end, with a real API server, controllers and Kubeflow's training operator."""

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import both_backends
from plane import Plane
from runs import PIN, all_run
from waiting import until

if TYPE_CHECKING:
    from runs import Runs

pytestmark = pytest.mark.cluster


backend = both_backends()


def test_to_success(runs: "Runs") -> None:
    runs.submit("well", annotations={"test/exit": "0", "test/after": "1s"})
    status = runs.wait("well", "Succeeded")
    assert status["snapshot"] == PIN
    assert (status["attempt"], status["jobRef"]["name"]) == (1, "well-1")
    said = ["Resolving", "Gating", "SnapshotResolved", "GatePassed", "Running", "Succeeded"]
    # Both pods may run before the operator looks.
    until(lambda: [reason for reason in runs.reasons("well") if reason != "WaitingForPods"] == said, "it is said", 10)
    assert status["backend"] == runs.backend.name
    assert set(status["goodput"]) >= {"preparing", "queued", "training"}
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions == {
        "SnapshotResolved": "True", "QualityGatePassed": "True", "Running": "False",
        "Succeeded": "True", "BackendChosen": "True",
    }  # fmt: skip
    assert all(c["lastTransitionTime"] and c["message"] for c in status["conditions"])


def test_a_gang_that_fails_restarts_as_a_whole(runs: "Runs") -> None:
    runs.submit("crash")
    all_run(runs, "crash")
    failed = runs.pod("crash-1", 1)
    runs.annotate(failed, exit="1", message="capsfusion: RuntimeError: a shape\n\nmore")
    until(lambda: runs.status("crash").get("attempt") == 2, "another attempt")
    all_run(runs, "crash", attempt=2)
    status = runs.status("crash")
    assert (status["restarts"], status.get("disruptions", 0)) == (1, 0)
    failure = status["lastFailure"]
    assert (failure["pod"], failure["exitCode"], failure["reason"]) == (failed, 1, "Error")
    assert failure["message"] == "capsfusion: RuntimeError: a shape"
    assert failure["logTail"].endswith("more")
    assert set(runs.jobs("crash")) == {"crash-1", "crash-2"}


def test_crashes_are_counted_to_an_end(runs: "Runs") -> None:
    policy = {"maxRestarts": 1, "backoff": "1s"}
    runs.submit("again", annotations={"test/exit": "1"}, restartPolicy=policy)
    status = runs.wait("again", "Failed")
    assert (status["attempt"], status["restarts"]) == (2, 1)
    assert "1 restarts without a newer checkpoint are used up" in runs.condition("again", "Failed")["message"]


@pytest.mark.parametrize(
    ("name", "message", "reason"),
    [
        ("wrong", "capsfusion: trainer.step: no such setting", "InvalidInput"),
        ("vacuumed", "capsfusion: part-1 is gone: was the table vacuumed?", "SnapshotVacuumed"),
    ],
)
def test_a_users_error_is_not_repeated(runs: "Runs", name: str, message: str, reason: str) -> None:
    runs.submit(name, annotations={"test/exit": "2", "test/message": message})
    status = runs.wait(name, "Failed")
    assert (status["attempt"], status.get("restarts", 0)) == (1, 0)
    condition = runs.condition(name, "Failed")
    assert (condition["reason"], condition["message"]) == (reason, message)


def test_disruptions_do_not_use_restarts_up(runs: "Runs") -> None:
    runs.submit("moved", restartPolicy={"maxRestarts": 0, "backoff": "1s"})
    all_run(runs, "moved")
    runs.annotate(runs.pod("moved-1", 0), exit="137", disruption="PreemptionByScheduler")
    until(lambda: runs.status("moved").get("attempt") == 2, "another attempt")
    assert runs.status("moved")["lastFailure"]["reason"] == "PreemptionByScheduler"
    all_run(runs, "moved", attempt=2)
    runs.plane.call(f"/api/v1/namespaces/{runs.namespace}/pods/{runs.pod('moved-2', 1)}", "DELETE")  # a drain
    until(lambda: runs.status("moved").get("attempt") == 3 or runs.status("moved")["phase"] == "Failed", "a third", 60)
    status = runs.status("moved")
    assert (status.get("restarts", 0), status["disruptions"]) == (0, 2)


def test_suspend_and_resume(runs: "Runs") -> None:
    runs.submit("paused")
    all_run(runs, "paused")
    runs.patch("paused", suspend=True)
    until(lambda: not runs.pods("paused"), "the pods are gone")
    status = runs.wait("paused", "Queued")
    assert runs.condition("paused", "Suspended")["status"] == "True"
    assert "lastFailure" not in status  # pods ended by a pause are not a failure
    time.sleep(1)  # timestamps of pods have a resolution of one second
    runs.patch("paused", suspend=False)
    all_run(runs, "paused")
    assert runs.condition("paused", "Suspended")["status"] == "False"
    runs.annotate(runs.pod("paused-1", 0), exit="1")
    until(lambda: runs.status("paused").get("attempt") == 2, "another attempt")
    assert runs.status("paused")["restarts"] == 1


def test_submitted_suspended(runs: "Runs") -> None:
    runs.submit("later", suspend=True)
    until(lambda: runs.condition("later", "Suspended").get("status") == "True", "it waits")
    assert runs.jobs("later") == {}
    runs.patch("later", suspend=False)
    runs.wait("later", "Running")


def test_a_queue_admits(runs: "Runs") -> None:
    runs.submit("queued", queueName="gpus", annotations={"test/exit": "0", "test/after": "1s"})
    until(lambda: runs.jobs("queued"), "its job is there")
    job = runs.jobs("queued")["queued-1"]
    assert runs.backend.is_suspended(job)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    runs.release("queued-1")
    runs.wait("queued", "Succeeded")
    assert runs.condition("queued", "Admitted")["status"] == "True"


@pytest.mark.parametrize(
    ("name", "pin", "spec", "phase", "reason"),
    [
        ("gated", PIN | {"gate": {"result": "failed", "failures": ["too short"]}}, {}, "Rejected", "GateFailed"),
        ("unread", PIN | {"gate": "nonsense"}, {}, "Rejected", "GateResultInvalid"),
        ("old", PIN, {"qualityGate": {"maxAge": "1d"}}, "Rejected", "GateTooOld"),
        ("none", {"error": "none passed", "reason": "NoPassingSnapshot"}, {}, "Rejected", "NoPassingSnapshot"),
        ("noise", "Traceback (most recent call last)", {}, "Failed", "ResolveFailed"),
        ("other", PIN, {"dataset": {"uri": "/lake", "version": 3, "tableId": "t-2"}}, "Failed", "TableMismatch"),
        ("ungated", PIN | {"gate": {"result": "failed"}}, {"qualityGate": {"required": False}}, "Running", "Running"),
    ],
)  # fmt: skip
def test_data_that_may_not_be_trained_on(
    runs: "Runs", name: str, pin: Any, spec: dict[str, Any], phase: str, reason: str
) -> None:
    runs.submit(name, pin=pin, **spec)
    status = runs.wait(name, phase)
    until(lambda: runs.reasons(name)[-1:] == [reason], "it is said", 10)
    assert bool(status.get("completionTime")) == (phase != "Running")
    assert bool(runs.jobs(name)) == (phase == "Running")


def test_a_job_edited_by_hand_is_set_back(runs: "Runs") -> None:
    if runs.backend.name == "trainjob":
        pytest.skip("the API server refuses such an edit: a TrainJob's fields are immutable")
    runs.submit("edited")
    all_run(runs, "edited")
    path = f"{runs.jobs_path}/edited-1"
    edit = {"spec": {"runPolicy": {"cleanPodPolicy": "None"}}}
    runs.plane.call(path, "PATCH", edit, "application/merge-patch+json")
    until(lambda: "JobEdited" in runs.reasons("edited"), "it is said")
    until(lambda: runs.plane.get(path)["spec"]["runPolicy"]["cleanPodPolicy"] == "Running", "it is set back")
    until(lambda: runs.condition("edited", "JobAsMade").get("status") == "True", "it is as it was made")
    said = next(e for e in runs.events("edited") if e["reason"] == "JobEdited")
    assert "cleanPodPolicy is None, not Running" in said["message"]
    assert runs.reasons("edited").count("JobEdited") == 1


def test_a_job_deleted_by_hand_is_a_disruption(runs: "Runs") -> None:
    runs.submit("deleted")
    all_run(runs, "deleted")
    runs.plane.call(f"{runs.jobs_path}/deleted-1", "DELETE")
    until(lambda: runs.status("deleted").get("attempt") == 2, "another attempt")
    all_run(runs, "deleted", attempt=2)
    assert runs.status("deleted")["lastFailure"]["reason"] == "JobDeleted"


def test_an_attempt_waits_for_the_pods_of_the_one_before(runs: "Runs") -> None:
    runs.submit("slow", checkpoint={"uri": "/checkpoints", "graceSeconds": 2})
    all_run(runs, "slow")
    stuck = runs.pod("slow-1", 1)
    runs.annotate(stuck, stuck="its node does not answer")
    runs.annotate(runs.pod("slow-1", 0), exit="1")
    until(lambda: runs.condition("slow", "Running").get("reason") == "WaitsForPods", "it is said")
    assert f"{stuck} on fake-" in runs.condition("slow", "Running")["message"]
    status = runs.status("slow")
    assert (status["phase"], status["attempt"], status["restarts"]) == ("Restarting", 1, 1)
    runs.annotate(stuck, stuck=None)
    all_run(runs, "slow", attempt=2)


def test_limits_of_time(runs: "Runs") -> None:
    runs.submit("late", activeDeadlineSeconds=3, ttlSecondsAfterFinished=2)
    status = runs.wait("late", "Failed")
    assert runs.condition("late", "Failed")["reason"] == "DeadlineExceeded"
    assert status["completionTime"]
    until(lambda: not runs.get("late"), "it is removed")
    until(lambda: not runs.jobs("late") and not runs.pods("late"), "and what it had")


def test_a_run_is_deleted_with_all_it_has(runs: "Runs") -> None:
    runs.submit("gone")
    all_run(runs, "gone")
    assert "finalizers" not in runs.get("gone")["metadata"]
    runs.plane.call(f"{runs.path}/gone", "DELETE")
    until(lambda: not runs.get("gone") and not runs.jobs("gone") and not runs.pods("gone"), "all is gone", 60)


def test_what_does_not_begin_says_why(runs: "Runs") -> None:
    runs.submit(
        "homeless", trainer={"resources": {"requests": {"nvidia.com/gpu": "64"}, "limits": {"nvidia.com/gpu": "64"}}}
    )
    until(lambda: runs.condition("homeless", "Running").get("reason") == "Unschedulable", "it is said")
    assert "Insufficient nvidia.com/gpu" in runs.condition("homeless", "Running")["message"]
    assert runs.status("homeless")["phase"] == "WaitingForPods"
    runs.submit("nobody", trainer={"serviceAccountName": "nobody"})
    until(lambda: runs.condition("nobody", "SnapshotResolved").get("reason") == "FailedCreate", "it is said")
    assert 'serviceaccount "nobody" not found' in runs.condition("nobody", "SnapshotResolved")["message"]
    runs.submit("bold", trainer={"podTemplate": {"spec": {"hostNetwork": True}}})
    until(lambda: runs.condition("bold", "Running").get("reason") == "FailedCreate", "it is said")
    assert 'violates PodSecurity "restricted' in runs.condition("bold", "Running")["message"]
    runs.submit("odd", trainer={"podTemplate": {"spec": {"dnsPolicy": "Whatever"}}})
    until(lambda: runs.condition("odd", "SnapshotResolved").get("reason") == "Invalid", "it is said")
    assert "dnsPolicy" in runs.condition("odd", "SnapshotResolved")["message"]


def test_an_image_without_digest_is_warned_of(runs: "Runs") -> None:
    runs.submit("loose", trainer={"image": "example.org/trainer:latest"})
    until(lambda: "ImageNotPinned" in runs.reasons("loose"), "it is said")
    runs.wait("loose", "Running")
    assert runs.reasons("loose").count("ImageNotPinned") == 1


def test_a_run_that_does_not_change_costs_no_write(runs: "Runs", plane: Plane) -> None:
    runs.submit("quiet")
    all_run(runs, "quiet")
    time.sleep(1)
    account = f"{runs.namespace}:x-capsfusion-operator"
    before = len(plane.requests(account))
    time.sleep(12)  # twelve ticks: pods that say nothing are not asked at each
    later = [
        r for r in plane.requests(account)[before:] if (r.get("objectRef", {}).get("name") or "").startswith("quiet")
    ]
    assert later, "it is looked at"
    assert {r["verb"] for r in later} == {"get"}
    assert json.dumps(later).count('"subresource": "log"') == len(later)
