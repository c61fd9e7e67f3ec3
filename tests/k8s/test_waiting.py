"""Tests of runs that wait for pods, stall, are edited, and of where their time goes."""

from datetime import timedelta
from typing import Any

from capsfusion_k8s.planning.actions import Children, LookAgain, MakeJob, SetStatus, Trouble
from capsfusion_k8s.planning.goodput import accounted, at_change
from capsfusion_k8s.planning.plan import plan
from capsfusion_k8s.run import Object, written
from objects import NOW, SPEC, job, run, status_of

TWO: Object = {"trainer": SPEC["trainer"] | {"nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 8}}}}


def at(seconds: float) -> str:
    return written(NOW + timedelta(seconds=seconds))


def test_until_every_pod_has_run_the_run_waits_with_the_scheduler_s_words() -> None:
    one = Children(jobs={1: job("Running", spec=TWO)}, there=2, ran=1)
    [waits] = plan(run("Queued", spec=TWO, attempt=1), one, NOW)
    assert isinstance(waits, SetStatus)
    assert (waits.changes["phase"], waits.conditions["Running"]) == (
        "WaitingForPods",
        ("False", "WaitingForPods", "training begins when 2 pods run"),
    )
    why = Trouble("Unschedulable", "0/4 nodes are available")
    [told] = plan(run("WaitingForPods", spec=TWO, attempt=1), Children(jobs=one.jobs, there=2, ran=1, trouble=why), NOW)
    assert isinstance(told, SetStatus)
    assert told.conditions["Running"] == ("False", *why)
    both = Children(jobs=one.jobs, there=2, ran=2)
    assert status_of(plan(run("WaitingForPods", spec=TWO, attempt=1), both, NOW)) == ("Running", "Running")
    done = Children(jobs={1: job("Succeeded", spec=TWO)}, there=2, ran=1)
    assert status_of(plan(run("WaitingForPods", spec=TWO, attempt=1), done, NOW))[0] == "Succeeded"


def stalling(spec: Object | None = None, **progress: Any) -> Any:
    began = [{"type": "Running", "status": "True", "lastTransitionTime": at(-1000)}]
    return run("Running", spec={"stallSeconds": 600} | (spec or {}), attempt=1, conditions=began, progress=progress)


def test_a_gang_that_says_nothing_new_is_restarted() -> None:
    calm = Children(jobs={1: job("Running")}, there=1, ran=1, last_heard="july-1-worker-3 (node 3) was last heard of")
    [again] = plan(stalling(step=5, updatedAt=at(-700)), calm, NOW)
    assert isinstance(again, SetStatus)
    assert status_of([again]) == ("Restarting", "Stalled")
    assert again.message == "no progress for 600 seconds: july-1-worker-3 (node 3) was last heard of"
    assert again.changes["restarts"] == 1
    # It is not stalled yet, busy with something long, or nobody wants to know.
    assert plan(stalling(step=5, updatedAt=at(-500)), calm, NOW) == [LookAgain(NOW + timedelta(seconds=100))]
    assert plan(stalling(step=5, updatedAt=at(-700), activity="checkpointing"), calm, NOW) == []
    assert plan(stalling({"stallSeconds": 0}, step=5, updatedAt=at(-700)), calm, NOW) == []
    # Progress of the attempt before says nothing: the time counts from the start of this one.
    assert status_of(plan(stalling(step=5, updatedAt=at(-5000), activity="checkpointing"), calm, NOW))[1] == "Stalled"
    # Without a log nobody knows, and pods of another cluster have none here.
    unread = Children(jobs={1: job("Running")}, there=1, ran=1)
    assert plan(stalling(step=5, updatedAt=at(-700)), unread, NOW) == []
    far = stalling({"managedBy": "kueue.x-k8s.io/multikueue", "queueName": "g"}, step=5, updatedAt=at(-700))
    assert plan(far, Children(jobs={1: job("Running", spec=far.spec)}, last_heard="x"), NOW) == []


def test_a_job_that_a_webhook_rewrites_is_restored_once() -> None:
    found = job("Running")
    found["spec"]["runPolicy"]["cleanPodPolicy"] = "None"
    rewritten = Children(jobs={1: found}, there=1, ran=1)
    restore, said = plan(run("Running", attempt=1), rewritten, NOW)
    assert restore == MakeJob(1, suspend=False)
    assert isinstance(said, SetStatus)
    assert said.conditions["JobAsMade"][:2] == ("False", "JobEdited")
    known = [{"type": "JobAsMade", **said.conditions["JobAsMade"]._asdict()}]
    [left] = plan(run("Running", attempt=1, conditions=known), rewritten, NOW)
    assert isinstance(left, SetStatus)
    assert left.conditions["JobAsMade"][:2] == ("False", "JobRewritten")
    known = [{"type": "JobAsMade", **left.conditions["JobAsMade"]._asdict()}]
    assert plan(run("Running", attempt=1, conditions=known), rewritten, NOW) == []
    restored = Children(jobs={1: job("Running")}, there=1, ran=1)
    assert status_of(plan(run("Running", attempt=1, conditions=known), restored, NOW)) == ("Running", "JobAsMade")
    # A controller that changes it a moment later is not fought either; somebody's edit of another day is.
    for minutes, reason in ((9, "JobRewritten"), (11, "JobEdited")):
        known = [{"type": "JobAsMade", "status": "True", "lastTransitionTime": at(-60 * minutes)}]
        assert status_of(plan(run("Running", attempt=1, conditions=known), rewritten, NOW))[1] == reason


def test_where_the_time_of_a_run_goes() -> None:
    spec = TWO | {"gpuHourUsd": 2.5}
    known: Object = {"queued": 100, "since": at(-3600)}
    queued = run("Queued", spec=spec, goodput=known)
    assert at_change(queued, "WaitingForPods", NOW, failed=False) == {"queued": 3700, "since": at(0)}
    training = run("Running", spec=spec, goodput=known | {"training": 3600}, checkpoint={"time": at(-600)})
    assert accounted(training, NOW) == {"queued": 100, "training": 7200, "gpuHours": 32.0, "usd": 80.0}
    # What came after the last checkpoint of an attempt that fails is lost; all of it, if it saved none.
    assert accounted(training, NOW, failed=True) | {"gpuHours": 0, "usd": 0} == {
        "queued": 100, "training": 6600, "lost": 600, "gpuHours": 0, "usd": 0,
    }  # fmt: skip
    none = run("Running", goodput=known, checkpoint={"time": at(-9999)})
    assert accounted(none, NOW, failed=True) == {"queued": 100, "training": 0, "lost": 3600}
    assert at_change(training, "Succeeded", NOW, failed=False)["since"] is None
    assert accounted(run(), NOW) == {}


def test_a_pin_that_was_not_asked_for_is_refused() -> None:
    from capsfusion_k8s.planning.resolve import Resolved
    from objects import PIN

    for dataset, phase in (
        ({"snapshot": "n"}, "Queued"), ({"version": 3}, "Queued"), ({"snapshot": "3"}, "Queued"),
        ({"latestPassing": True}, "Queued"), ({"snapshot": "june"}, "Failed"), ({"version": 4}, "Failed"),
    ):  # fmt: skip
        asked = run("Gating", spec={"dataset": {"uri": "/lake"} | dataset})
        actions = plan(asked, Children(resolver={}, resolved=Resolved(PIN)), NOW)
        assert status_of(actions)[0] == phase, dataset
