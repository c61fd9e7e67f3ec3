"""Tests of the operator's decisions (`plan`), case by case."""

import json
from datetime import timedelta
from typing import Any

import pytest
from capsfusion_k8s.planning.actions import (
    Children,
    DeleteJob,
    DeleteRun,
    LookAgain,
    MakeJob,
    MakeKeeper,
    MakeResolver,
    Say,
    SetStatus,
    Trouble,
)
from capsfusion_k8s.planning.gate import judge
from capsfusion_k8s.planning.plan import plan
from capsfusion_k8s.planning.resolve import Resolved
from capsfusion_k8s.run import Object, Run, duration, written
from objects import NOW, PIN, job, run, status_of


def test_from_nothing_to_a_running_job() -> None:
    assert status_of(plan(run(), Children(), NOW)) == ("Resolving", "Resolving")
    assert plan(run(), Children(), NOW)[0] == MakeResolver()
    assert plan(run("Resolving"), Children(), NOW) == [MakeResolver()]
    assert plan(run("Resolving"), Children(resolver={}), NOW) == []
    resolved = Children(resolver={}, resolved=Resolved(PIN))
    for begun in (resolved, Children(resolver={}, resolver_runs=True)):
        assert status_of(plan(run("Resolving"), begun, NOW)) == ("Gating", "Gating")
    assert plan(run("Gating"), Children(resolver={}, resolver_runs=True), NOW) == []
    told, persisted = plan(run("Gating"), resolved, NOW)
    assert told == Say("SnapshotResolved", "n: version 3, 2 files")
    assert isinstance(persisted, SetStatus)
    assert (persisted.changes["phase"], persisted.changes["snapshot"]) == ("Queued", PIN)
    assert {kind: said.reason for kind, said in persisted.conditions.items()} == {
        "SnapshotResolved": "SnapshotResolved", "QualityGatePassed": "GatePassed", "BackendChosen": "OnlyBackend",
    }  # fmt: skip
    assert persisted.changes["backend"] == "pytorchjob"
    assert persisted.changes["attempt"] == 1  # stored before the job is created
    assert plan(run("Queued", attempt=1), resolved, NOW) == [MakeJob(1, suspend=False)]
    assert plan(run("Queued", attempt=1), Children(jobs={1: job()}), NOW) == []
    begun = Children(jobs={1: job("Running")}, there=1, ran=1)
    assert status_of(plan(run("Queued", attempt=1), begun, NOW)) == ("Running", "Running")
    assert plan(run("Running", attempt=1), begun, NOW) == []
    assert status_of(plan(run("Running", attempt=1), Children(jobs={1: job("Succeeded")}), NOW))[0] == "Succeeded"


def test_an_attempt_begins_when_the_old_one_is_gone_and_the_pause_is_over() -> None:
    later = NOW + timedelta(seconds=30)
    restarting = run("Restarting", attempt=1, restartAt=written(later))
    assert plan(restarting, Children(jobs={1: job("Running")}), NOW) == [DeleteJob(1)]
    assert plan(restarting, Children(jobs={1: job("Failed")}), NOW) == [LookAgain(later)]
    [next_] = plan(restarting, Children(jobs={1: job("Failed")}), later)
    assert isinstance(next_, SetStatus)
    assert (next_.changes["phase"], next_.changes["attempt"]) == ("Queued", 2)


def test_suspend_and_resume() -> None:
    paused = {"suspend": True}
    assert status_of(plan(run("Queued", spec=paused), Children(), NOW)) == ("Queued", "Suspended")
    told = run("Queued", spec=paused, conditions=[{"type": "Suspended", "status": "True"}])
    assert plan(told, Children(), NOW) == []
    live = Children(jobs={1: job("Running")})
    assert plan(run("Running", spec=paused, attempt=1), live, NOW) == [MakeJob(1, suspend=True)]
    held = Children(jobs={1: job(suspend=True)})
    assert status_of(plan(run("Running", spec=paused, attempt=1), held, NOW)) == ("Queued", "Suspended")
    assert plan(run("Queued", attempt=1), held, NOW) == [MakeJob(1, suspend=False)]


def test_a_queue_lets_the_job_go() -> None:
    spec = {"queueName": "gpus"}
    assert plan(run("Queued", spec=spec, attempt=1), Children(), NOW) == [MakeJob(1, suspend=True)]
    assert plan(run("Queued", spec=spec, attempt=1), Children(jobs={1: job(suspend=True)}), NOW) == []
    preempted = Children(jobs={1: job("Running", suspend=True)}, queue=Trouble("Preempted", "to accommodate july-2"))
    [told] = plan(run("Running", spec=spec, attempt=1), preempted, NOW)
    assert isinstance(told, SetStatus)
    assert status_of([told]) == ("Queued", "Preempted")
    assert "to accommodate july-2" in told.message
    assert told.conditions["Admitted"].status == "False"
    # A pause that the user asked for is none, even if a queue is asked for.
    paused = run("Running", spec=spec | {"suspend": True}, attempt=1)
    assert status_of(plan(paused, preempted, NOW)) == ("Queued", "Suspended")


def test_a_queue_that_starts_nothing_is_told_of() -> None:
    waits = Children(jobs={1: job(suspend=True)}, queue=Trouble("NoWorkload", "Kueue has made no Workload"))
    [said] = plan(run("Queued", spec={"queueName": "gpus"}, attempt=1), waits, NOW)
    assert isinstance(said, SetStatus)
    assert (said.warning, said.conditions["Admitted"]) == (True, ("False", "NoWorkload", "Kueue has made no Workload"))


def test_time_limits() -> None:
    started = written(NOW - timedelta(hours=2))
    late = run("Running", spec={"activeDeadlineSeconds": 3600}, attempt=1, startTime=started)
    actions = plan(late, Children(jobs={1: job("Running")}), NOW)
    assert actions[0] == DeleteJob(1)
    assert status_of(actions) == ("Failed", "DeadlineExceeded")
    queued = late.object["status"] | {"goodput": {"queued": 3700, "since": written(NOW)}}
    assert plan(Run(late.object | {"status": queued}), Children(jobs={1: job("Running")}), NOW) == []
    over = run("Succeeded", spec={"ttlSecondsAfterFinished": 60}, completionTime=started)
    assert plan(over, Children(), NOW) == [DeleteRun()]
    keeps = {"ttlSecondsAfterFinished": 60, "retention": {"holdSnapshot": True}}
    assert DeleteRun() not in plan(run("Succeeded", spec=keeps, completionTime=started), Children(), NOW)
    soon = run("Succeeded", spec={"ttlSecondsAfterFinished": 7300}, completionTime=started)
    assert plan(soon, Children(), NOW) == [LookAgain(NOW + timedelta(seconds=100))]
    assert plan(run("Succeeded", completionTime=started), Children(), NOW) == []
    assert plan(run("Failed", attempt=1), Children(jobs={1: job("Running")}), NOW) == [DeleteJob(1)]


@pytest.mark.parametrize(
    ("wanted", "gate", "reason"),
    [
        ({"required": False}, None, "GateNotRequired"),
        ({}, "not JSON", "GateResultInvalid"),
        ({}, {"verdict": 1}, "GateResultInvalid"),
        ({}, {"result": "failed", "failures": ["captions: too short"]}, "GateFailed"),
        ({"minSuccessPercent": 99}, {"result": "passed", "successPercent": 98}, "GateBelowMinimum"),
        ({"suite": "shape"}, {"result": "failed", "suites": {"shape": True, "facts": False}}, "GatePassed"),
        ({"suite": "facts"}, {"result": "failed", "suites": {"shape": True, "facts": False}}, "GateFailed"),
        ({"suite": "typo"}, {"result": "passed", "suites": {"shape": True}}, "GateSuiteMissing"),
        ({"maxAge": "1m"}, {"result": "passed"}, "GateResultInvalid"),
        ({"maxAge": "1m"}, {"result": "passed", "passedAt": "2026-01-01T00:00:00"}, "GateResultInvalid"),
        ({"minSuccessPercent": 99}, {"result": "passed", "successPercent": None}, "GateResultInvalid"),
        ({"suite": "a"}, {"result": "passed", "suites": ["a"]}, "GateResultInvalid"),
        ({}, {"result": "failed", "failures": 3}, "GateResultInvalid"),
        ({"maxAge": "1m"}, {"result": "passed", "passedAt": written(NOW - timedelta(days=2))}, "GateTooOld"),
        ({"maxAge": "1m"}, {"result": "passed", "passedAt": written(NOW)}, "GatePassed"),
    ],
)
def test_gates(wanted: Object, gate: Any, reason: str) -> None:
    verdict = judge(wanted, gate, NOW)
    assert (verdict.reason, verdict.passed) == (reason, reason in ("GatePassed", "GateNotRequired"))
    assert verdict.message


@pytest.mark.parametrize(
    ("message", "error", "reason"),
    [
        ("", "said nothing that can be read", "ResolveFailed"),
        ("[]", "said no object", "ResolveFailed"),
        ('{"version": 3}', "did not say bytes, files, manifestSha256, name, tableId", "ResolveFailed"),
        (json.dumps(PIN | {"version": "x"}), "said something odd as version", "ResolveFailed"),
        ('{"error": "none passed", "reason": "NoPassingSnapshot"}', "none passed", "NoPassingSnapshot"),
    ],
)
def test_what_the_resolver_says(message: str, error: str, reason: str) -> None:
    found = Resolved.parse(message)
    assert error in str(found.error)
    [end] = plan(run("Gating"), Children(resolver={}, resolved=found), NOW)
    assert isinstance(end, SetStatus)
    assert end.changes["phase"] == ("Rejected" if reason == "NoPassingSnapshot" else "Failed")
    assert end.reason == reason
    assert {kind: said.status for kind, said in end.conditions.items()} == {
        "SnapshotResolved": "False",
        "Failed": "True",
    }


def test_another_table_than_the_one_that_was_meant() -> None:
    spec = {"dataset": {"uri": "/lake", "version": 3, "tableId": "other"}}
    [end] = plan(run("Gating", spec=spec), Children(resolver={}, resolved=Resolved(PIN)), NOW)
    assert status_of([end]) == ("Failed", "TableMismatch")


def test_trouble_is_said_once_and_again_when_it_changes() -> None:
    found = Children(jobs={1: job()}, trouble=Trouble("Unschedulable", "0/2 nodes are available"))
    [said] = plan(run("Queued", attempt=1), found, NOW)
    assert isinstance(said, SetStatus)
    assert said.conditions == {"Running": ("False", "Unschedulable", "0/2 nodes are available")}
    known = [{"type": "Running", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}]
    assert plan(run("Queued", attempt=1, conditions=known), found, NOW) == []
    known[0]["message"] = "0/1 nodes are available"
    assert len(plan(run("Queued", attempt=1, conditions=known), found, NOW)) == 1


def test_an_attempt_waits_for_pods_that_still_live() -> None:
    begun = run("Restarting", attempt=1, restartAt=written(NOW), spec={"checkpoint": {"uri": "/c", "graceSeconds": 60}})
    old = Children(jobs={1: job("Failed")}, ending=["july-1-worker-1 on node-7"])
    assert plan(begun, old, NOW) == [LookAgain(NOW + timedelta(seconds=60))]
    assert status_of(plan(begun, old, NOW + timedelta(seconds=60))) == ("Restarting", "WaitsForPods")
    assert status_of(plan(begun, Children(jobs={1: job("Failed")}), NOW)) == ("Queued", "Attempt")


def test_what_pods_say_may_come_after_what_the_job_says() -> None:
    failed = job("Failed")
    failed["status"]["conditions"][0]["lastTransitionTime"] = written(NOW)
    later = NOW + timedelta(seconds=5)
    assert plan(run("Running", attempt=1), Children(jobs={1: failed}), NOW) == [LookAgain(later)]
    assert status_of(plan(run("Running", attempt=1), Children(jobs={1: failed}), later)) == ("Restarting", "Unknown")


def test_what_is_held_follows_what_is_wanted() -> None:
    now = written(NOW)
    asked = {"retention": {"holdSnapshot": True, "until": written(NOW + timedelta(days=1))}}
    held = [{"type": "RetentionHeld", "status": "True"}]
    done = Children(keepers={"july-hold-2": job("Complete"), "july-release-2": job("Complete")})
    assert plan(run("Succeeded", spec=asked), Children(), NOW) == [MakeKeeper("july-hold-2", hold=True)]
    assert plan(run("Succeeded", spec=asked), Children(keepers={"july-hold-2": job()}), NOW) == []
    [said] = plan(run("Succeeded", spec=asked), done, NOW)
    assert isinstance(said, SetStatus)
    assert (said.changes["phase"], said.conditions["RetentionHeld"].status) == ("Succeeded", "True")
    until = [LookAgain(NOW + timedelta(days=1))]
    lasts = written(NOW + timedelta(days=30))
    assert plan(run("Succeeded", spec=asked, conditions=held, heldUntil=lasts), done, NOW) == until
    late = NOW + timedelta(days=1)
    release = MakeKeeper("july-release-2", hold=False)
    assert plan(run("Succeeded", spec=asked, conditions=held), Children(), late) == [release]
    [let_go] = plan(run("Succeeded", spec=asked, conditions=held), done, late)
    assert isinstance(let_go, SetStatus)
    assert let_go.conditions["RetentionHeld"][:2] == ("False", "Released")
    failed = Children(keepers={"july-hold-2": job("Failed")})
    [trouble] = plan(run("Succeeded", spec=asked), failed, NOW)
    assert isinstance(trouble, SetStatus)
    assert trouble.conditions["RetentionHeld"][:2] == ("Unknown", "HoldFailed")
    never = run("Succeeded", spec={"retention": {"until": now}})
    assert plan(never, Children(), NOW) == []


def test_a_hold_is_renewed_before_it_ends() -> None:
    spec, held = {"retention": {"holdSnapshot": True}}, [{"type": "RetentionHeld", "status": "True"}]
    lasts = NOW + timedelta(days=30)
    known = run("Running", spec=spec, attempt=1, conditions=held, heldUntil=written(lasts))
    calm = Children(jobs={1: job("Running")})
    assert plan(known, calm, NOW) == [LookAgain(lasts - timedelta(days=15))]
    later = NOW + timedelta(days=15)
    name = f"july-hold-2-{later:%Y%m%d}"
    assert plan(known, calm, later) == [MakeKeeper(name, hold=True)]
    made = job("Complete")
    made["metadata"]["creationTimestamp"] = written(later)
    [renewed] = plan(known, Children(jobs={1: job("Running")}, keepers={name: made}), later)
    assert isinstance(renewed, SetStatus)
    assert renewed.changes["heldUntil"] == written(later + timedelta(days=30))
    # A renewal that fails is told once, and tried again the next day; the hold is valid meanwhile.
    broken = Children(jobs={1: job("Running")}, keepers={name: job("Failed"), "july-hold-2": job("Complete")})
    [failed] = plan(known, broken, later)
    assert isinstance(failed, SetStatus)
    assert failed.conditions["RetentionHeld"][:2] == ("True", "HoldFailed")
    told = [held[0] | {"reason": "HoldFailed", "message": failed.message}]
    again = run("Running", spec=spec, attempt=1, conditions=told, heldUntil=written(lasts))
    assert plan(again, broken, later) == []
    assert plan(again, broken, later + timedelta(days=1)) == [
        MakeKeeper(f"july-hold-2-{later + timedelta(days=1):%Y%m%d}", hold=True)
    ]


def test_durations() -> None:
    texts = {"30s": 30, "15m": 900, "1h30m": 5400, "7d": 604800}
    assert {text: duration(text).total_seconds() for text in texts} == texts
    for text in ("", "5", "1w", "m"):
        with pytest.raises(ValueError, match="not a duration"):
            duration(text)
