"""Tests of how pod failures are classified, counted and turned into restarts."""

from datetime import timedelta

import pytest
from capsfusion_k8s.planning.actions import Children, LookAgain, SetStatus
from capsfusion_k8s.planning.failures import Kind, first_failure
from capsfusion_k8s.planning.plan import plan
from capsfusion_k8s.run import Object, written
from objects import NOW, job, lost_pod, pod, run, status_of


@pytest.mark.parametrize(
    ("pods", "phase", "reason"),
    [
        ([pod("a", 2, message="trainer.step: unknown key")], "Failed", "InvalidInput"),
        ([pod("a", 2, message="x.parquet is gone: was the table vacuumed?")], "Failed", "SnapshotVacuumed"),
        ([pod("a", 143), pod("b", 1, 9)], "Restarting", "Terminated"),
        ([pod("a", 143, 9), pod("b", 1)], "Restarting", "Error"),
        ([pod("a", 1, disrupted=True)], "Restarting", "Disrupted"),
        ([pod("a", 137, reason="OOMKilled")], "Restarting", "OOMKilled"),
        ([], "Restarting", "Unknown"),
    ],
)
def test_failures_by_what_follows(pods: list[Object], phase: str, reason: str) -> None:
    children = Children(jobs={1: job("Failed")}, pods=pods)
    assert status_of(plan(run("Running", attempt=1), children, NOW)) == (phase, reason)


def test_disruptions_and_crashes_are_counted_apart_and_end_somewhere() -> None:
    crash, gone = Children(jobs={1: job("Failed")}, pods=[pod("a", 1)]), Children()
    policy = {"restartPolicy": {"maxRestarts": 2, "maxDisruptions": 1, "backoff": "10s"}}
    once, twice = {"restarts": 1, "step": 40}, {"restarts": 2, "disruptions": 1, "step": 40}
    saved = {"step": 40}
    known = run("Running", spec=policy, attempt=1, restarts=9, sinceCheckpoint=once, checkpoint=saved)
    [first] = plan(known, crash, NOW)
    assert isinstance(first, SetStatus)
    assert (first.changes["restarts"], "disruptions" in first.changes) == (10, False)
    assert first.changes["restartAt"] == written(NOW + timedelta(seconds=20))
    assert first.changes["sinceCheckpoint"] == {"restarts": 2, "disruptions": 0, "step": 40}
    spent = run("Running", spec=policy, attempt=1, restarts=9, sinceCheckpoint=twice, checkpoint=saved)
    assert status_of(plan(spent, crash, NOW)) == ("Failed", "Error")
    assert status_of(plan(spent, gone, NOW)) == ("Failed", "JobDeleted")
    [second] = plan(known, gone, NOW)
    assert isinstance(second, SetStatus)
    assert (second.changes["disruptions"], second.changes["restartAt"]) == (1, written(NOW))
    # A newer checkpoint refills both.
    moved = run("Running", spec=policy, attempt=1, restarts=9, sinceCheckpoint=twice, checkpoint={"step": 41})
    [third] = plan(moved, crash, NOW)
    assert isinstance(third, SetStatus)
    assert third.changes["sinceCheckpoint"] == {"restarts": 1, "disruptions": 0, "step": 41}
    assert third.changes["restartAt"] == written(NOW + timedelta(seconds=10))


def test_failures_of_before_a_pause_are_not_counted() -> None:
    resumed = [{"type": "Suspended", "status": "False", "lastTransitionTime": written(NOW)}]
    before, after = pod("a", 143, -60), pod("b", 1, 5)
    children = Children(jobs={1: job("Failed")}, pods=[before, after])
    assert status_of(plan(run("Running", attempt=1, conditions=resumed), children, NOW)) == ("Restarting", "Error")


def test_a_pod_that_failed_before_a_late_note_still_tells_why() -> None:
    late = job("Failed")
    late["status"]["conditions"][-1]["lastTransitionTime"] = written(NOW)
    admitted = [{"type": "Admitted", "status": "True", "lastTransitionTime": written(NOW)}]
    children = Children(jobs={1: late}, pods=[pod("a", 2, -2)])
    known = run("Running", attempt=1, conditions=admitted)
    [wait] = plan(known, children, NOW)  # evidence of after the admission may still come
    assert isinstance(wait, LookAgain)
    assert status_of(plan(known, children, wait.at)) == ("Failed", "InvalidInput")


def test_among_failures_of_one_second_a_survivor_says_least() -> None:
    found = first_failure([pod("a", 143), pod("b", 2, message="capsfusion: no such setting\nTraceback\n")])
    assert found is not None
    assert (found.kind, found.pod, found.message) == (Kind.USER, "b", "capsfusion: no such setting")
    assert found.log_tail == "capsfusion: no such setting\nTraceback"


def test_a_disruption_without_an_exit_code() -> None:
    why = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    evicted = {"metadata": {"name": "a"}, "status": {"phase": "Failed", "conditions": [why]}}
    found = first_failure([evicted])
    assert found is not None
    assert (found.kind, found.reason, found.message) == (Kind.DISRUPTION, "EvictionByEvictionAPI", "drained")


def test_a_lost_node_comes_before_the_errors_of_those_that_missed_it() -> None:
    nccl = pod("b", 134, message="NCCL error: remote process exited")
    found = first_failure([nccl, lost_pod("a")])
    assert found is not None
    assert (found.kind, found.reason, found.message) == (
        Kind.DISRUPTION,
        "NodeLost",
        "node-7, where a ran, does not answer",
    )
    tainted = lost_pod("a") | {
        "status": {"conditions": [{"type": "DisruptionTarget", "reason": "DeletionByTaintManager"}]}
    }
    assert first_failure([nccl, tainted]) == found
    bug = first_failure([pod("b", 2, message="no such setting"), lost_pod("a")])
    assert bug is not None
    assert bug.kind is Kind.USER
    healthy = lost_pod("a")
    healthy["status"]["conditions"][0]["status"] = "True"
    crash = first_failure([nccl, healthy])
    assert crash is not None
    assert crash.kind is Kind.CRASH


def test_a_job_that_does_not_fail_although_its_pod_has() -> None:
    """A Job of Kubernetes fails once all of its pods have ended: on a dead node, none does."""
    spec = {"checkpoint": {"uri": "/c", "graceSeconds": 60}}
    known = run("Running", spec=spec, attempt=1, backend="trainjob")
    found = job("Running", backend="trainjob", spec=spec)
    children = Children(jobs={1: found}, pods=[pod("b", 1, 0), lost_pod("a")])
    due = NOW + timedelta(seconds=65)
    assert plan(known, children, NOW) == [LookAgain(due)]
    assert status_of(plan(known, children, due)) == ("Restarting", "NodeLost")


def test_a_node_that_turns_out_to_be_lost_gives_a_restart_back() -> None:
    failure = {"kind": "crash", "reason": "Error", "pod": "b", "message": "NCCL error"}
    counts = {"restarts": 2, "disruptions": 0, "step": -1}
    begun = run(
        "Restarting", attempt=1, restarts=2, sinceCheckpoint=counts, lastFailure=failure, restartAt=written(NOW)
    )
    children = Children(jobs={1: job("Failed")}, pods=[lost_pod("a")], ending=["a on node-7"])
    [told] = plan(begun, children, NOW)
    assert isinstance(told, SetStatus)
    assert (told.reason, told.changes["restarts"], told.changes["disruptions"]) == ("NodeLost", 1, 1)
    assert told.changes["sinceCheckpoint"] == {"restarts": 1, "disruptions": 1, "step": -1}
    assert told.changes["lastFailure"]["kind"] == "disruption"  # so that it is told once
    again = run("Restarting", attempt=1, lastFailure=told.changes["lastFailure"], restartAt=written(NOW))
    assert [type(action) for action in plan(again, children, NOW)] == [LookAgain]


def test_the_last_restart_waits_for_a_dead_node_to_be_noticed() -> None:
    failed = job("Failed")
    failed["status"]["conditions"][0]["lastTransitionTime"] = written(NOW)
    spent = run("Running", attempt=1, sinceCheckpoint={"restarts": 3, "step": -1})
    crash, silent = [pod("b", 1)], ["a on node-7"]
    later = NOW + timedelta(seconds=90)
    assert plan(spent, Children(jobs={1: failed}, pods=crash, ending=silent), NOW) == [LookAgain(later)]
    assert status_of(plan(spent, Children(jobs={1: failed}, pods=crash, ending=silent), later)) == ("Failed", "Error")
    assert status_of(plan(spent, Children(jobs={1: failed}, pods=crash), NOW)) == ("Failed", "Error")
    noticed = Children(jobs={1: failed}, pods=[*crash, lost_pod("a")], ending=silent)
    assert status_of(plan(spent, noticed, NOW)) == ("Restarting", "NodeLost")


@pytest.mark.parametrize(
    ("code", "message"),
    [(75, "capsfusion: the other pods did not come"), (1, "torch...RendezvousTimeoutError\n")],
)
def test_waiting_in_vain_for_pods_without_a_machine_is_no_crash(code: int, message: str) -> None:
    """Until every pod has run, their time-outs use nothing up; later, pods that do not meet are a crash."""
    children = Children(jobs={1: job("Failed")}, pods=[pod("a", code, message=message)], there=2, ran=1)
    spec = {"trainer": {"image": "i@sha256:0", "recipe": "m", "nodes": 2}, "restartPolicy": {"maxRestarts": 0}}
    [again] = plan(run("WaitingForPods", spec=spec, attempt=1), children, NOW)
    assert isinstance(again, SetStatus)
    assert status_of([again]) == ("Restarting", "RendezvousTimeout")
    assert "restarts" not in again.changes
    assert status_of(plan(run("Running", spec=spec, attempt=1), children, NOW)) == ("Failed", "RendezvousTimeout")


def test_what_others_inject_into_a_pod_says_nothing_of_the_training() -> None:
    proxy = {"name": "istio-proxy", "ready": True, "state": {"running": {}}}
    crash = pod("a", 1)
    crash["status"]["containerStatuses"].append(proxy)
    crash["status"] |= {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
    found = first_failure([crash])
    assert found is not None
    assert found.kind is Kind.CRASH
    shipper = {"name": "shipper", "state": {"terminated": {"exitCode": 2, "finishedAt": written(NOW)}}}
    trains = {"name": "pytorch", "ready": True, "state": {"running": {}}}
    assert first_failure([{"metadata": {"name": "a"}, "status": {"containerStatuses": [trains, shipper]}}]) is None


def test_a_hundred_crashes_without_a_checkpoint_are_a_number_like_another() -> None:
    policy = {"restartPolicy": {"maxRestarts": 1000, "backoff": "99999999999d"}}
    known = run("Running", spec=policy, attempt=1, sinceCheckpoint={"restarts": 500, "step": -1})
    [again] = plan(known, Children(jobs={1: job("Failed")}, pods=[pod("a", 1)]), NOW)
    assert isinstance(again, SetStatus)
    assert again.changes["restartAt"] == written(NOW + timedelta(minutes=30))


def test_pods_of_before_a_pause_do_not_doom_what_follows_it() -> None:
    found = job("Running")
    resumed = [{"type": "Suspended", "status": "False", "lastTransitionTime": written(NOW)}]
    before = Children(jobs={1: found}, pods=[pod("a", 143, -600)], there=1, ran=1)
    assert plan(run("Running", attempt=1, conditions=resumed), before, NOW) == []
