"""The operator's decisions: case by case, and under every order of events that hypothesis finds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from capsfusion_k8s.actions import (
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
from capsfusion_k8s.failures import Kind, first_failure
from capsfusion_k8s.gate import judge
from capsfusion_k8s.plan import plan
from capsfusion_k8s.pytorchjob import ended
from capsfusion_k8s.resolve import Resolved
from capsfusion_k8s.run import TERMINAL, Object, Run, duration, written
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
PIN = {
    "tableId": "t", "name": "n", "version": 3, "files": 2, "bytes": 10, "manifestSha256": "a",
    "gate": {"result": "passed", "passedAt": written(NOW)},
}  # fmt: skip


def run(phase: str = "Pending", *, spec: Object | None = None, **status: Any) -> Run:
    metadata = {"name": "july", "namespace": "ml", "uid": "u", "generation": 2}
    return Run({"metadata": metadata, "spec": spec or {}, "status": {"phase": phase, "snapshot": PIN, **status}})


def job(*conditions: str, suspend: bool = False) -> Object:
    return {
        "spec": {"runPolicy": {"suspend": suspend}},
        "status": {"conditions": [{"type": c, "status": "True"} for c in conditions]},
    }


def pod(
    name: str, code: int, at: int = 0, *, reason: str = "Error", message: str = "", disrupted: bool = False
) -> Object:
    time = written(NOW + timedelta(seconds=at))
    ended_ = {"exitCode": code, "finishedAt": time, "reason": reason, "message": message}
    conditions = [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": time}] if disrupted else []
    status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended_}}], "conditions": conditions}
    return {"metadata": {"name": name}, "status": status}


def status_of(actions: list[Any]) -> tuple[str, str]:
    [action] = [a for a in actions if isinstance(a, SetStatus)]
    return action.changes["phase"], action.reason


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
        "SnapshotResolved": "SnapshotResolved", "QualityGatePassed": "GatePassed",
    }  # fmt: skip
    assert persisted.changes["attempt"] == 1  # before the job is made
    assert plan(run("Queued", attempt=1), resolved, NOW) == [MakeJob(1, suspend=False)]
    assert plan(run("Queued", attempt=1), Children(jobs={1: job()}), NOW) == []
    assert status_of(plan(run("Queued", attempt=1), Children(jobs={1: job("Running")}), NOW)) == ("Running", "Running")
    assert plan(run("Running", attempt=1), Children(jobs={1: job("Running")}), NOW) == []
    assert status_of(plan(run("Running", attempt=1), Children(jobs={1: job("Succeeded")}), NOW))[0] == "Succeeded"


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
    held = Children(jobs={1: job("Running", suspend=True)})
    assert status_of(plan(run("Running", spec=paused, attempt=1), held, NOW)) == ("Queued", "Suspended")
    assert plan(run("Queued", attempt=1), held, NOW) == [MakeJob(1, suspend=False)]


def test_a_queue_lets_the_job_go() -> None:
    spec = {"queueName": "gpus"}
    assert plan(run("Queued", spec=spec, attempt=1), Children(), NOW) == [MakeJob(1, suspend=True)]
    assert plan(run("Queued", spec=spec, attempt=1), Children(jobs={1: job(suspend=True)}), NOW) == []
    preempted = Children(jobs={1: job("Running", suspend=True)})
    assert status_of(plan(run("Running", spec=spec, attempt=1), preempted, NOW)) == ("Queued", "Suspended")


def test_time_limits() -> None:
    started = written(NOW - timedelta(hours=2))
    late = run("Running", spec={"activeDeadlineSeconds": 3600}, attempt=1, startTime=started)
    actions = plan(late, Children(jobs={1: job("Running")}), NOW)
    assert actions[0] == DeleteJob(1)
    assert status_of(actions) == ("Failed", "DeadlineExceeded")
    over = run("Succeeded", spec={"ttlSecondsAfterFinished": 60}, completionTime=started)
    assert plan(over, Children(), NOW) == [DeleteRun()]
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
    begun = run("Restarting", attempt=1, restartAt=written(NOW), spec={"checkpoint": {"graceSeconds": 60}})
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


def test_failures_of_before_a_pause_are_not_counted() -> None:
    resumed = job("Failed")
    resumed["status"]["startTime"] = written(NOW)
    before, after = pod("a", 143, -60), pod("b", 1, 5)
    children = Children(jobs={1: resumed}, pods=[before, after])
    assert status_of(plan(run("Running", attempt=1), children, NOW)) == ("Restarting", "Error")


def test_among_failures_of_one_second_a_survivor_says_least() -> None:
    found = first_failure([pod("a", 143), pod("b", 2, message="capsfusion: no such setting\nTraceback\n")])
    assert found is not None
    assert (found.kind, found.pod, found.message) == (Kind.USER, "b", "capsfusion: no such setting")
    assert found.log_tail == "capsfusion: no such setting\nTraceback"


def test_what_is_held_follows_what_is_wanted() -> None:
    now = written(NOW)
    asked = {"retention": {"holdSnapshot": True, "until": written(NOW + timedelta(days=1))}}
    held = [{"type": "RetentionHeld", "status": "True"}]
    done = Children(keepers={"july-hold-2": job("Complete"), "july-release-2": job("Complete")})
    assert plan(run("Succeeded", spec=asked), Children(), NOW) == [MakeKeeper(hold=True)]
    assert plan(run("Succeeded", spec=asked), Children(keepers={"july-hold-2": job()}), NOW) == []
    [said] = plan(run("Succeeded", spec=asked), done, NOW)
    assert isinstance(said, SetStatus)
    assert (said.changes["phase"], said.conditions["RetentionHeld"].status) == ("Succeeded", "True")
    until = [LookAgain(NOW + timedelta(days=1))]
    assert plan(run("Succeeded", spec=asked, conditions=held), done, NOW) == until
    late = NOW + timedelta(days=1)
    assert plan(run("Succeeded", spec=asked, conditions=held), Children(), late) == [MakeKeeper(hold=False)]
    [let_go] = plan(run("Succeeded", spec=asked, conditions=held), done, late)
    assert isinstance(let_go, SetStatus)
    assert let_go.conditions["RetentionHeld"][:2] == ("False", "Released")
    failed = Children(keepers={"july-hold-2": job("Failed")})
    [trouble] = plan(run("Succeeded", spec=asked), failed, NOW)
    assert isinstance(trouble, SetStatus)
    assert trouble.conditions["RetentionHeld"][:2] == ("Unknown", "HoldFailed")
    never = run("Succeeded", spec={"retention": {"until": now}})
    assert plan(never, Children(), NOW) == []


def test_durations() -> None:
    texts = {"30s": 30, "15m": 900, "1h30m": 5400, "7d": 604800}
    assert {text: duration(text).total_seconds() for text in texts} == texts
    for text in ("", "5", "1w", "m"):
        with pytest.raises(ValueError, match="not a duration"):
            duration(text)


def test_a_disruption_without_an_exit_code() -> None:
    why = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    evicted = {"metadata": {"name": "a"}, "status": {"phase": "Failed", "conditions": [why]}}
    found = first_failure([evicted])
    assert found is not None
    assert (found.kind, found.reason, found.message) == (Kind.DISRUPTION, "EvictionByEvictionAPI", "drained")


class Cluster(RuleBasedStateMachine):
    """An API server with a training operator that does anything, and an operator whose knowledge may be old, who
    repeats himself, and who dies between two actions."""

    def __init__(self) -> None:
        super().__init__()
        self.spec: Object = {"restartPolicy": {"maxRestarts": 2, "maxDisruptions": 2, "backoff": "10s"}}
        self.status: Object = {}
        self.resolver: Object | None = None
        self.resolved: Resolved | None = None
        self.jobs: dict[int, Object] = {}
        self.pods: list[Object] = []
        self.now = NOW
        self.phases: list[str] = []
        self.made: list[int] = []

        self.views: list[tuple[Run, Children]] = []

    def seen(self) -> tuple[Run, Children]:
        metadata = {"name": "july", "namespace": "ml", "uid": "u", "generation": 1}
        children = Children(self.resolver, self.resolved, jobs=dict(self.jobs), pods=list(self.pods))
        return Run({"metadata": metadata, "spec": dict(self.spec), "status": dict(self.status)}), children

    @initialize(running=st.booleans())
    def begin(self, running: bool) -> None:
        """Most of what can go wrong comes later than the first job."""
        if running:
            self.resolver, self.resolved = {}, Resolved(PIN)
            for _ in range(6):
                self.reconcile(dies_after=3, repeats=1, age=0)
            self.job_moves("Running", 0)
            self.reconcile(dies_after=3, repeats=1, age=0)

    @rule(times=st.integers(1, 4))
    def operator_keeps_up(self, times: int) -> None:
        for _ in range(times):
            self.reconcile(dies_after=3, repeats=1, age=0)

    @rule(dies_after=st.integers(0, 3), repeats=st.integers(1, 2), age=st.sampled_from([0, 0, 1, 2, 4, 6]))
    def reconcile(self, dies_after: int, repeats: int, age: int) -> None:
        self.views = [self.seen(), *self.views][:7]
        # Runs and jobs are watched apart: what is known of one may be older than what is known of the other.
        before, children = self.views[0][0], self.views[min(age, len(self.views) - 1)][1]
        for _ in range(repeats):
            for action in plan(before, children, self.now)[:dies_after]:
                self.carry_out(action, before)

    def carry_out(self, action: Any, before: Run) -> None:
        match action:
            case MakeResolver():
                self.resolver = self.resolver or {}
            case SetStatus(changes=changes):
                if before.status == self.status:  # the API server refuses an old resourceVersion
                    self.status = self.status | changes
                    self.phases.append(self.status["phase"])
            case MakeJob(attempt=attempt, suspend=suspend):
                alive = [a for a, found in self.jobs.items() if not ended(found) and a != attempt]
                if before.status != self.status or alive:  # read again
                    return
                if attempt not in self.jobs:
                    self.made.append(attempt)
                    self.jobs[attempt] = job(suspend=suspend)
                self.jobs[attempt]["spec"]["runPolicy"]["suspend"] = suspend
            case DeleteJob(attempt=attempt):
                self.jobs.pop(attempt, None)

    @precondition(lambda self: self.resolver is not None and self.resolved is None)
    @rule(good=st.sampled_from([True, True, True, False]))
    def resolve(self, good: bool) -> None:
        self.resolved = Resolved(PIN) if good else Resolved(error="gone", reason="NoPassingSnapshot")

    @rule(
        condition=st.sampled_from(["Running", "Running", "Failed", "Failed", "Failed", "Succeeded"]),
        code=st.sampled_from([1, 1, 137, 143, 143, 2]),
    )
    def job_moves(self, condition: str, code: int) -> None:
        for attempt, found in self.jobs.items():
            if not ended(found) and not found["spec"]["runPolicy"]["suspend"]:
                self.jobs[attempt] = job(condition)
                self.pods = [pod("a", code)] if condition == "Failed" else []

    @rule(code=st.sampled_from([1, 143]))
    def a_whole_attempt_fails(self, code: int) -> None:
        self.job_moves("Failed", code)
        self.operator_keeps_up(times=2)
        self.now += timedelta(minutes=10)
        self.operator_keeps_up(times=3)
        self.job_moves("Running", 0)
        self.operator_keeps_up(times=1)

    @rule()
    def somebody_deletes_the_job(self) -> None:
        self.jobs.clear()

    @rule(suspend=st.booleans())
    def user(self, suspend: bool) -> None:
        self.spec["suspend"] = suspend

    @rule(seconds=st.sampled_from([1, 15, 60]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def teardown(self) -> None:
        """When everybody behaves at last, the run ends."""
        self.user(suspend=False)
        self.resolve(good=True)
        for _ in range(40):
            self.reconcile(dies_after=3, repeats=1, age=0)
            self.job_moves("Running" if self.status.get("phase") == "Queued" else "Succeeded", 0)
            self.now += timedelta(minutes=10)
        assert self.status["phase"] in TERMINAL

    @invariant()
    def never_two_live_jobs(self) -> None:
        assert sum(not ended(found) for found in self.jobs.values()) <= 1

    @invariant()
    def a_terminal_phase_never_reopens(self) -> None:
        terminal = [phase for phase in self.phases if phase in TERMINAL]
        assert len(set(terminal)) <= 1
        assert not terminal or self.phases[-1] in TERMINAL

    @invariant()
    def limits_hold(self) -> None:
        assert self.status.get("restarts", 0) <= 2
        assert self.status.get("disruptions", 0) <= 2
        assert len(set(self.made)) <= 5

    @invariant()
    def an_attempt_is_known_before_its_job(self) -> None:
        assert all(attempt <= self.status.get("attempt", 0) for attempt in self.made)


TestCluster = Cluster.TestCase
TestCluster.settings = settings(deadline=None, max_examples=200, stateful_step_count=40)
