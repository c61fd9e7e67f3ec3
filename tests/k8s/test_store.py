"""Tests of the operator's object store with events in any order."""

from typing import Any

from capsfusion_k8s.cluster.kinds import PODS, RUNS
from capsfusion_k8s.cluster.store import Store
from capsfusion_k8s.objects.meta import ATTEMPT, LABEL, ROLE

JOBS = "pytorchjobs"
KEY = ("ml", "july")


def found(name: str, version: int, role: str = "trainer", **status: Any) -> dict[str, Any]:
    labels = {LABEL: "july", ROLE: role, ATTEMPT: "1"}
    metadata = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "status": status}


def test_older_news_are_forgotten() -> None:
    store = Store()
    store.put(RUNS, found("july", 9, phase="Running"))
    store.put(RUNS, found("july", 8, phase="Queued"))
    seen = store.run(KEY)
    assert seen is not None
    assert seen.phase == "Running"


def test_a_pod_that_is_gone_but_failed_is_remembered_until_its_job_goes() -> None:
    store = Store()
    store.put(JOBS, found("july-1", 1))
    store.put(PODS, found("july-1-worker-0", 2, phase="Failed"))
    store.put(PODS, found("july-1-worker-1", 2, phase="Running"))
    for name, phase in (("july-1-worker-0", "Failed"), ("july-1-worker-1", "Running")):
        store.drop(PODS, found(name, 3, phase=phase))
    assert [(pod["metadata"]["name"], pod["gone"]) for pod in store.pods(KEY, "trainer", 1)] == [
        ("july-1-worker-0", True)
    ]
    store.put(PODS, found("july-1-worker-0", 4, phase="Running"))  # a late event of a deleted pod
    assert store.pods(KEY, "trainer", 1)[0]["gone"]
    store.drop(JOBS, found("july-1", 5))
    assert store.of(PODS, KEY) == []


def test_a_fresh_list_tells_of_deletions_that_no_watch_told_of() -> None:
    store = Store()
    store.put(RUNS, found("july", 1))
    store.put(JOBS, found("july-1", 1))
    assert store.replace(JOBS, []) == {KEY}
    assert store.of(JOBS, KEY) == []
    assert store.replace(RUNS, []) == {KEY}
    assert store.run(KEY) is None


def test_a_run_made_anew_under_its_name_is_another() -> None:
    store = Store()
    old, new = found("july", 1), found("july", 5)
    old["metadata"]["uid"], new["metadata"]["uid"] = "old", "new"
    store.put(RUNS, old)
    store.put(RUNS, new)
    store.drop(RUNS, old)  # arrives late
    assert store.runs[KEY]["metadata"]["uid"] == "new"
