"""Tests of how pod failures are classified, counted and turned into restarts."""

from datetime import timedelta

import pytest
from capsfusion_k8s.actions import Children, LookAgain, SetStatus
from capsfusion_k8s.failures import Kind, first_failure
from capsfusion_k8s.plan import plan
from capsfusion_k8s.run import Object, written
from objects import NOW, job, pod, run, status_of


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
    [first] = plan(run("Running", spec=policy, attempt=1, restarts=1), crash, NOW)
    assert isinstance(first, SetStatus)
    assert (first.changes["restarts"], "disruptions" in first.changes) == (2, False)
    assert first.changes["restartAt"] == written(NOW + timedelta(seconds=20))
    assert status_of(plan(run("Running", spec=policy, attempt=1, restarts=2), crash, NOW)) == ("Failed", "Error")
    [second] = plan(run("Running", spec=policy, attempt=1, restarts=2), gone, NOW)
    assert isinstance(second, SetStatus)
    assert (second.changes["disruptions"], second.changes["restartAt"]) == (1, written(NOW))
    assert status_of(plan(run("Running", spec=policy, attempt=1, disruptions=1), gone, NOW)) == ("Failed", "JobDeleted")


def test_failures_of_before_a_pause_are_not_counted() -> None:
    resumed = job("Failed")
    resumed["status"]["startTime"] = written(NOW)
    before, after = pod("a", 143, -60), pod("b", 1, 5)
    children = Children(jobs={1: resumed}, pods=[before, after])
    assert status_of(plan(run("Running", attempt=1), children, NOW)) == ("Restarting", "Error")


def test_a_pod_that_failed_before_a_late_start_time_still_tells_why() -> None:
    late = job("Failed")
    late["status"]["startTime"] = written(NOW)
    late["status"]["conditions"][-1]["lastTransitionTime"] = written(NOW)
    children = Children(jobs={1: late}, pods=[pod("a", 2, -2)])
    [wait] = plan(run("Running", attempt=1), children, NOW)  # evidence of after the start may still come
    assert isinstance(wait, LookAgain)
    assert status_of(plan(run("Running", attempt=1), children, wait.at)) == ("Failed", "InvalidInput")


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
