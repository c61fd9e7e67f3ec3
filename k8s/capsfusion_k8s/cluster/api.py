"""Requests to the Kubernetes API server. They block, so call them in a thread."""

import json
from collections.abc import Callable
from typing import Any, cast

from kubernetes.client import ApiClient, ApiException
from urllib3.exceptions import HTTPError

from capsfusion_k8s.backends import BACKENDS
from capsfusion_k8s.cluster.kinds import PLURALS, PODS, ROOTS, RUNS, TRAINING, slim
from capsfusion_k8s.objects.meta import LABEL, UID, is_of, main_container
from capsfusion_k8s.run import Object, Run

MANAGER = "capsfusion-operator"
TIMEOUT_S, LOG_TIMEOUT_S = (5, 30), (5, 10)  # connect, read; a kubelet may not answer for its pods
NO_ANSWER = (ApiException, HTTPError)  # a refusal, and silence
_METHODS = {
    "list": "GET", "get": "GET", "log": "GET", "create": "POST", "apply": "PATCH", "patch": "PATCH", "delete": "DELETE",
}  # fmt: skip
_MERGE, _APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
_KUEUE = "kueue.x-k8s.io"


class NameTakenError(Exception):
    """Somebody else's object has the name of a child."""


class Api:
    """Client of the API server that calls `count(verb, kind)` for each request.

    Every method raises `ApiException` if a request fails, except where noted.
    """

    def __init__(self, client: ApiClient, count: Callable[[str, str], None] = lambda verb, kind: None) -> None:
        self._client, self._count = client, count

    def listed(self, kind: str, namespace: str | None, run: str | None = None) -> list[Object]:
        """Return the objects of a kind, in one namespace or in all (None), of one run or of all runs (None).

        What the operator does not read is left out (see `slim`).
        """
        query: Object = {} if kind == RUNS else {"labelSelector": f"{LABEL}={run}" if run else LABEL}
        found: list[Object] = []
        while True:
            try:
                page = self._call("list", kind, namespace, query={**query, "limit": 500})
            except ApiException as error:
                if error.status == 404 and kind in TRAINING:  # its operator is not installed
                    return []
                raise
            found += [slim(kind, item) for item in page["items"]]
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

    def make(self, found: Object, *, known: bool = False) -> tuple[str, Object]:
        """Create an object, or restore one that has the same owner; return its kind and what the server made of it.

        Args:
            known: The object exists, and is the owner's.

        Raises:
            NameTakenError: Somebody else's object has this name.
        """
        kind, metadata = PLURALS[found["kind"]], found["metadata"]
        if not known:
            try:
                query = {"fieldManager": MANAGER}
                return kind, cast(Object, self._call("create", kind, metadata["namespace"], query=query, body=found))
            except ApiException as error:
                if error.status != 409:
                    raise
            there = self.get(kind, metadata["namespace"], metadata["name"])
            owners = metadata.get("ownerReferences", [])
            uid = metadata["labels"][UID]
            ours = there is None or (
                is_of(there, uid) if owners else there["metadata"].get("labels", {}).get(UID) == uid
            )
            if not ours:
                name = f"{found['kind']} {metadata['name']}"
                raise NameTakenError(
                    f"{name} exists and belongs to somebody else: delete it, or give the run another name"
                )
        return kind, self._apply(kind, found)

    def _apply(self, kind: str, found: Object) -> Object:
        """Update an object by server-side apply, taking over fields that another manager owns."""
        query, metadata = {"fieldManager": MANAGER, "force": "true"}, found["metadata"]
        path = metadata["namespace"], metadata["name"]
        return cast(Object, self._call("apply", kind, *path, query=query, body=found, mime=_APPLY))

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
            ApiException: With status 409 if the run has changed or was deleted.
        """
        body: Object = {"status": changes, "metadata": {"uid": run.uid}}
        if as_seen:
            body["metadata"]["resourceVersion"] = run.object["metadata"]["resourceVersion"]
        path = run.namespace, run.name, "status"
        try:
            return cast(Object, self._call("patch", RUNS, *path, body=body, mime=_MERGE))
        except ApiException as error:
            if error.status == 404:
                raise ApiException(status=409, reason="the run was deleted") from error
            raise

    def patch_spec(self, namespace: str, name: str, changes: Object) -> Object:
        """Merge `changes` into the spec of a run, on behalf of its user."""
        body = {"spec": changes}
        return cast(Object, self._call("patch", RUNS, namespace, name, body=body, mime=_MERGE))

    def annotate(self, path: str, annotations: dict[str, str]) -> None:
        """Set annotations of the object at an address; ignore one that no longer exists."""
        try:
            self._raw("patch", path.split("/")[-2], path, body={"metadata": {"annotations": annotations}}, mime=_MERGE)
        except ApiException as error:
            if error.status != 404:
                raise

    def create_run(self, found: Object) -> Object:
        """Create a run on behalf of its user; unknown fields are refused."""
        strict = {"fieldValidation": "Strict"}
        return cast(Object, self._call("create", RUNS, found["metadata"]["namespace"], query=strict, body=found))

    def log(self, pod: Object, lines: int | None, *, times: bool = False) -> str:
        """Return the last `lines` lines of the log of a pod's main container, or the whole log (None).

        Args:
            times: Begin each line with its time.
        """
        query = {"container": main_container(pod), "tailLines": lines, "timestamps": "true" if times else None}
        path = pod["metadata"]["namespace"], pod["metadata"]["name"], "log"
        return cast(str, self._call("log", PODS, *path, query=query, answer="str", timeout=LOG_TIMEOUT_S))

    def backends(self) -> frozenset[str]:
        """Return the names of the backends whose kinds the cluster has."""
        return frozenset(name for name, backend in BACKENDS.items() if self.has(backend.api_version, backend.plural))

    def has(self, api_version: str, plural: str) -> bool:
        """Return whether the cluster has a kind. Its group alone says nothing: others may be in it, too."""
        try:
            found = self._raw("get", "apis", f"/apis/{api_version}")
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        return any(resource.get("name") == plural for resource in found.get("resources") or [])

    def workloads(self, job: Object) -> list[Object] | None:
        """Return Kueue's Workloads of a job; None without Kueue. Each has its address as `path`."""
        try:
            group = self._raw("get", "apis", f"/apis/{_KUEUE}")
            root = f"/apis/{group['preferredVersion']['groupVersion']}"
            path = f"{root}/namespaces/{job['metadata']['namespace']}/workloads"
            query = {"labelSelector": f"{_KUEUE}/job-uid={job['metadata']['uid']}"}
            listed = self._raw("list", "workloads", path, query=query)["items"]
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return [item | {"path": f"{path}/{item['metadata']['name']}"} for item in listed]

    def events(self, namespace: str, about: str) -> list[str]:
        """Return the messages of the warning events about the object that a field selector names, oldest first."""
        query = {"fieldSelector": f"{about},type=Warning"}
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
        root = "/api" if kind == PODS else "/apis"
        address = "/".join([f"{root}/{ROOTS[kind]}{where}/{kind}", *path])
        return self._raw(verb, kind, address, **request)

    def _raw(
        self, verb: str, kind: str, address: str, *, query: Object | None = None, body: Any = None,
        mime: str = "application/json", answer: str = "object", timeout: tuple[int, int] = TIMEOUT_S,
    ) -> Any:  # fmt: skip
        self._count(verb, kind)
        return self._client.call_api(
            address, _METHODS[verb],
            query_params=[(k, v) for k, v in (query or {}).items() if v is not None], body=body,
            header_params={"Accept": "application/json", "Content-Type": mime},
            response_type=answer, auth_settings=["BearerToken"], _return_http_data_only=True,
            _request_timeout=timeout,
        )  # fmt: skip


def words(error: Exception) -> tuple[str, str]:
    """Return the reason and message of a refused or unanswered request."""
    if not isinstance(error, ApiException):
        return "NoAnswer", str(error)[:500]
    try:
        said = json.loads(error.body or "")
        return str(said.get("reason") or error.reason), str(said.get("message") or error.reason)
    except ValueError:
        return str(error.reason or "ApiError"), str(error.body or error.reason)[:500]
