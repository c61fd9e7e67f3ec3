"""Stateful test of the operator's decisions under the orders of events that hypothesis generates."""

from datetime import timedelta
from typing import Any

from capsfusion_k8s.backends import BACKENDS
from capsfusion_k8s.planning.actions import (
    Children,
    DeleteJob,
    MakeJob,
    MakeResolver,
    SetStatus,
)
from capsfusion_k8s.planning.plan import plan
from capsfusion_k8s.planning.resolve import Resolved
from capsfusion_k8s.run import TERMINAL, Object, Run
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from objects import NOW, PIN, SPEC, job, pod


class Cluster(RuleBasedStateMachine):
    """An API server, a training operator that acts at random, and an operator under test.

    The operator may have an outdated view, may repeat its actions, and may die between two of them.
    """

    backend = BACKENDS["pytorchjob"]

    def __init__(self) -> None:
        super().__init__()
        self.spec: Object = SPEC | {"restartPolicy": {"maxRestarts": 2, "maxDisruptions": 2, "backoff": "10s"}}
        self.status: Object = {}
        self.resolver: Object | None = None
        self.resolved: Resolved | None = None
        self.jobs: dict[int, Object] = {}
        self.pods: list[Object] = []
        self.there = self.ran = 0
        self.now = NOW
        self.phases: list[str] = []
        self.made: list[int] = []

        self.views: list[tuple[Run, Children]] = []

    def made_job(self, attempt: int, *conditions: str, suspend: bool = False) -> Object:
        found = job(*conditions, suspend=suspend, backend=self.backend.name)
        if attempt > 1:  # as it is made: otherwise it was edited
            status = {"backend": self.backend.name, "snapshot": PIN, "attempt": attempt}
            metadata = {"name": "july", "namespace": "ml", "uid": "u"}
            run = Run({"metadata": metadata, "spec": self.spec, "status": status})
            found["spec"] = self.backend.build(run, attempt, suspend=suspend)[-1]["spec"]
        return found

    def seen(self) -> tuple[Run, Children]:
        metadata = {"name": "july", "namespace": "ml", "uid": "u", "generation": 1}
        children = Children(
            self.resolver, self.resolved, jobs=dict(self.jobs), pods=list(self.pods), there=self.there, ran=self.ran,
            backends=frozenset({self.backend.name}),
        )  # fmt: skip
        return Run({"metadata": metadata, "spec": dict(self.spec), "status": dict(self.status)}), children

    @initialize(running=st.booleans())
    def begin(self, running: bool) -> None:
        """Start some examples with a running job, as most faults occur after that."""
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
        # Runs and their children come from separate watches, so the view of the children may be older.
        before, children = self.views[0][0], self.views[min(age, len(self.views) - 1)][1]
        for _ in range(repeats):
            for action in plan(before, children, self.now)[:dies_after]:
                self.carry_out(action, before)

    def carry_out(self, action: Any, before: Run) -> None:
        match action:
            case MakeResolver():
                self.resolver = self.resolver or {}
            case SetStatus(changes=changes):
                if before.status == self.status:  # the API server rejects an outdated resourceVersion
                    self.status = self.status | changes
                    self.phases.append(self.status["phase"])
            case MakeJob(attempt=attempt, suspend=suspend):
                alive = [a for a, found in self.jobs.items() if not self.backend.ended(found) and a != attempt]
                if before.status != self.status or alive:  # the operator re-reads both before it creates a job
                    return
                if attempt not in self.jobs:
                    self.made.append(attempt)
                    self.there = self.ran = 0
                told = [
                    c["type"] for c in self.jobs.get(attempt, {"status": {"conditions": []}})["status"]["conditions"]
                ]
                self.jobs[attempt] = self.made_job(attempt, *told, suspend=suspend)
            case DeleteJob(attempt=attempt):
                self.jobs.pop(attempt, None)

    @precondition(lambda self: self.resolver is not None and self.resolved is None)
    @rule(good=st.sampled_from([True, True, True, False]))
    def resolve(self, good: bool) -> None:
        self.resolved = Resolved(PIN) if good else Resolved(error="gone", reason="NoPassingSnapshot")

    @rule(
        condition=st.sampled_from(["Waiting", "Running", "Running", "Failed", "Failed", "Failed", "Succeeded"]),
        code=st.sampled_from([1, 1, 137, 143, 143, 2]),
    )
    def job_moves(self, condition: str, code: int) -> None:
        for attempt, found in self.jobs.items():
            if not self.backend.ended(found) and not self.backend.is_suspended(found):
                self.jobs[attempt] = self.made_job(attempt, *([] if condition == "Waiting" else [condition]))
                self.pods = [pod("a", code)] if condition == "Failed" else []
                self.there, self.ran = 1, int(condition == "Running")

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
        """Check that the run ends once all participants behave."""
        self.user(suspend=False)
        self.resolve(good=True)
        for _ in range(40):
            self.reconcile(dies_after=3, repeats=1, age=0)
            self.job_moves("Running" if self.status.get("phase") == "Queued" else "Succeeded", 0)
            self.now += timedelta(minutes=10)
        assert self.status["phase"] in TERMINAL

    @invariant()
    def never_two_live_jobs(self) -> None:
        assert sum(not self.backend.ended(found) for found in self.jobs.values()) <= 1

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


class ClusterWithTrainer(Cluster):
    """The same with Kubeflow Trainer."""

    backend = BACKENDS["trainjob"]


TestCluster = Cluster.TestCase
TestCluster.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestClusterWithTrainer = ClusterWithTrainer.TestCase
TestClusterWithTrainer.settings = settings(deadline=None, max_examples=50, stateful_step_count=40)
