"""Test which children belong to a run, what its resolve Job said, and that resyncs and deletions lose nothing."""

import asyncio
import json
from typing import Any, cast

import pytest
from capsfusion_k8s.cluster import release
from capsfusion_k8s.cluster.api import Api
from capsfusion_k8s.cluster.kinds import PODS, RUNS, SHORT_JOBS
from capsfusion_k8s.cluster.observe import News, children_of
from capsfusion_k8s.cluster.release import Releases
from capsfusion_k8s.cluster.store import Store
from capsfusion_k8s.objects.meta import ATTEMPT, LABEL, ROLE, UID
from capsfusion_k8s.run import Object, Run
from kubernetes.client import ApiClient, ApiException
from objects import PIN, run

KEY = ("ml", "july")
SPEC: Object = {"dataset": {"uri": "s3://lake", "snapshot": "n"}, "trainer": {"image": "i", "recipe": "micro_cpu"}}


def child(name: str, owner: str | None, role: str = "trainer", *, of: str = "u", **status: Any) -> Object:
    """Return a child of the run with the uid `of`."""
    labels = {LABEL: "july", UID: of, ROLE: role, ATTEMPT: "1"}
    metadata: Object = {"name": name, "namespace": "ml", "uid": f"{name} of {owner}", "labels": labels}
    if owner is not None:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {"metadata": metadata, "spec": {}, "status": status}


def said(version: str, container: str = "pytorch") -> Object:
    message = json.dumps(PIN | {"name": version})
    return {"name": container, "state": {"terminated": {"exitCode": 0, "message": message}}}


@pytest.mark.parametrize("owner", ["deleted", None])  # None: an orphan, left by `kubectl delete --cascade=orphan`
def test_a_run_made_anew_does_not_take_what_its_predecessor_left(owner: str | None) -> None:
    store, mine = Store(), run()
    old = child("july-resolve", owner, "resolver", of="deleted")
    pod = child("july-resolve-x", old["metadata"]["uid"], "resolver", of="deleted", containerStatuses=[said("june")])
    store.put(SHORT_JOBS, old)
    store.put(PODS, pod)
    store.put("pytorchjobs", child("july-1", owner, of="deleted"))
    found = children_of(mine, KEY, store, News())
    assert (found.resolver, found.resolved, found.jobs, found.keepers) == (None, None, {}, {})
    new = child("july-resolve", mine.uid, "resolver")
    store.drop(SHORT_JOBS, old)
    store.put(SHORT_JOBS, new)
    store.put(PODS, child("july-resolve-y", new["metadata"]["uid"], "resolver", containerStatuses=[said("july")]))
    resolved = children_of(mine, KEY, store, News()).resolved
    assert resolved is not None
    assert resolved.snapshot["name"] == "july"


def test_containers_that_others_inject_say_nothing_about_the_snapshot() -> None:
    store, mine = Store(), run()
    job = child("july-resolve", mine.uid, "resolver")
    statuses = [said("july"), said("mesh", "zz-proxy")]
    store.put(SHORT_JOBS, job)
    store.put(PODS, child("july-resolve-x", job["metadata"]["uid"], "resolver", containerStatuses=statuses))
    resolved = children_of(mine, KEY, store, News()).resolved
    assert resolved is not None
    assert resolved.snapshot["name"] == "july"


def test_what_is_submitted_while_a_list_is_made_stays() -> None:
    store = Store()
    before = store.known(RUNS)
    store.put(RUNS, child("july", None))
    assert store.replace(RUNS, [], before) == set()
    assert store.run(KEY) is not None
    assert store.replace(RUNS, [], store.known(RUNS)) == {KEY}


def test_a_release_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "PAUSES_S", (0, 0))
    applied: list[Object] = []

    class Busy:
        def make(self, found: Object) -> tuple[str, Object]:
            applied.append(found)
            if len(applied) < 3:
                raise ApiException(status=403, reason="the namespace is terminating")
            return "jobs", found

    async def deleted() -> None:
        releases = Releases(Busy())  # type: ignore[arg-type]
        for status in "True", "False":
            held = run(spec=SPEC, conditions=[{"type": "RetentionHeld", "status": status}])
            releases.let_go(Run(held.object))
        await asyncio.gather(*releases.tasks)

    asyncio.run(deleted())
    assert [job["metadata"]["name"] for job in applied] == ["july-release-2"] * 3


def test_a_run_deleted_between_the_look_and_the_write_is_a_change_and_no_error() -> None:
    class Server:
        def call_api(self, *args: Any, **request: Any) -> Any:
            raise ApiException(status=404, reason="Not Found")

    with pytest.raises(ApiException) as error:
        Api(cast(ApiClient, Server())).patch_status(run(), {"phase": "Running"})
    assert (error.value.status, error.value.reason) == (409, "the run was deleted")
