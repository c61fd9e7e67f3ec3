"""Requests to the Kubernetes API server. They block, so call them in a thread."""

import json
from collections.abc import Callable
from typing import Any, cast

from kubernetes.client import ApiClient, ApiException

from capsfusion_k8s.build import CONTAINER, LABEL
from capsfusion_k8s.run import GROUP, PLURAL, VERSION, Object, Run
from capsfusion_k8s.store import JOBS, PODS, RUNS, SHORT_JOBS

MANAGER = "capsfusion-operator"
TIMEOUT_S = (5, 30)  # connect, read
_ROOTS = {
    RUNS: f"/apis/{GROUP}/{VERSION}",
    JOBS: "/apis/kubeflow.org/v1",
    SHORT_JOBS: "/apis/batch/v1",
    PODS: "/api/v1",
}
_METHODS = {
    "list": "GET", "get": "GET", "log": "GET", "create": "POST", "apply": "PATCH", "patch": "PATCH", "delete": "DELETE",
}  # fmt: skip
_PLURALS = {RUNS: PLURAL, JOBS: "pytorchjobs", SHORT_JOBS: "jobs", PODS: "pods"}


class Api:
    """Client of the API server that calls `count(verb, kind)` for each request.

    Every method raises `ApiException` if a request fails, except where noted.
    """

    def __init__(self, client: ApiClient, count: Callable[[str, str], None] = lambda verb, kind: None) -> None:
        self._client, self._count = client, count

    def listed(self, kind: str, namespace: str | None, run: str | None = None) -> list[Object]:
        """Return the objects of a kind, in one namespace or in all (None), of one run or of all runs (None)."""
        query: Object = {} if kind == RUNS else {"labelSelector": f"{LABEL}={run}" if run else LABEL}
        found: list[Object] = []
        while True:
            try:
                page = self._call("list", kind, namespace, query={**query, "limit": 500})
            except ApiException as error:
                if error.status == 404 and kind == JOBS:  # the training operator is not installed yet
                    return []
                raise
            found += page["items"]
            query["continue"] = page["metadata"].get("continue")
            if not query["continue"]:
                return found

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        try:
            return cast(Object, self._call("get", kind, namespace, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def apply(self, kind: str, found: Object) -> Object:
        """Create or update an object by server-side apply, taking over fields that another manager owns."""
        metadata = found["metadata"]
        query = {"fieldManager": MANAGER, "force": "true"}
        path = metadata["namespace"], metadata["name"]
        return cast(
            Object,
            self._call("apply", kind, *path, query=query, body=found, mime="application/apply-patch+yaml"),
        )

    def delete(self, kind: str, found: Object) -> None:
        """Delete the object with this uid and what it owns; ignore one that no longer exists."""
        metadata = found["metadata"]
        options = {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}}
        try:
            self._call("delete", kind, metadata["namespace"], metadata["name"], body=options)
        except ApiException as error:
            if error.status not in (404, 409):
                raise

    def patch_status(self, run: Run, changes: Object, *, as_seen: bool = True) -> Object:
        """Merge `changes` into the status of a run.

        Args:
            as_seen: Refuse the write if the run's resourceVersion has changed since it was read.

        Raises:
            ApiException: With status 409 if the run has changed.
        """
        body: Object = {"status": changes, "metadata": {"uid": run.uid}}
        if as_seen:
            body["metadata"]["resourceVersion"] = run.object["metadata"]["resourceVersion"]
        path = run.namespace, run.name, "status"
        return cast(Object, self._call("patch", RUNS, *path, body=body, mime="application/merge-patch+json"))

    def patch_spec(self, namespace: str, name: str, changes: Object) -> Object:
        """Merge `changes` into the spec of a run, on behalf of its user."""
        body = {"spec": changes}
        return cast(Object, self._call("patch", RUNS, namespace, name, body=body, mime="application/merge-patch+json"))

    def create_run(self, found: Object) -> Object:
        """Create a run on behalf of its user; unknown fields are refused."""
        strict = {"fieldValidation": "Strict"}
        return cast(Object, self._call("create", RUNS, found["metadata"]["namespace"], query=strict, body=found))

    def log(self, namespace: str, pod: str, lines: int | None) -> str:
        """Return the last `lines` lines of the log of a pod's main container, or the whole log (None).

        Meshes and monitors inject further containers.
        """
        query = {"container": CONTAINER, "tailLines": lines}
        return cast(str, self._call("log", PODS, namespace, pod, "log", query=query, answer="str"))

    def events(self, found: Object) -> list[str]:
        """Return the messages of the warning events about an object, oldest first."""
        uid, namespace = found["metadata"]["uid"], found["metadata"]["namespace"]
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning"}
        listed = self._raw("list", "events", f"/api/v1/namespaces/{namespace}/events", query=query)["items"]
        ordered = sorted(listed, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
        return [str(event.get("message", "")) for event in ordered]

    def say(self, event: Object) -> None:
        """Create an event; ignore one whose name already exists."""
        namespace = event["metadata"]["namespace"]
        try:
            self._raw("create", "events", f"/api/v1/namespaces/{namespace}/events", body=event)
        except ApiException as error:
            if error.status != 409:
                raise

    def _call(self, verb: str, kind: str, namespace: str | None, *path: str, **request: Any) -> Any:
        where = f"/namespaces/{namespace}" if namespace else ""
        address = "/".join([f"{_ROOTS[kind]}{where}/{_PLURALS[kind]}", *path])
        return self._raw(verb, kind, address, **request)

    def _raw(
        self, verb: str, kind: str, address: str, *, query: Object | None = None, body: Any = None,
        mime: str = "application/json", answer: str = "object",
    ) -> Any:  # fmt: skip
        self._count(verb, kind)
        return self._client.call_api(
            address, _METHODS[verb],
            query_params=[(k, v) for k, v in (query or {}).items() if v is not None], body=body,
            header_params={"Accept": "application/json", "Content-Type": mime},
            response_type=answer, auth_settings=["BearerToken"], _return_http_data_only=True,
            _request_timeout=TIMEOUT_S,
        )  # fmt: skip


def words(error: ApiException) -> tuple[str, str]:
    """Return the reason and message of a refused request."""
    try:
        said = json.loads(error.body or "")
        return str(said.get("reason") or error.reason), str(said.get("message") or error.reason)
    except ValueError:
        return str(error.reason or "ApiError"), str(error.body or error.reason)[:500]
