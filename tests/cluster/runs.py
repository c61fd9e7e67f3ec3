"""Client of the training runs of a namespace, for tests."""

import json
from typing import Any

from capsfusion_k8s.backends import BACKENDS
from plane import Plane
from waiting import until

Object = dict[str, Any]
PIN = {
    "name": "july", "strategy": "fused", "tableId": "t-1", "version": 3, "files": 2, "bytes": 1000,
    "manifestSha256": "ab", "gate": {"result": "passed", "passedAt": "2026-11-01T00:00:00Z"},
}  # fmt: skip
IMAGE = "example.org/trainer@sha256:" + "0" * 64


class Runs:
    """Client for the runs of one namespace, which have one backend."""

    def __init__(self, plane: Plane, namespace: str, backend: str = "pytorchjob") -> None:
        self.plane, self.namespace, self.backend = plane, namespace, BACKENDS[backend]
        self.path = f"/apis/capsfusion.io/v1alpha1/namespaces/{namespace}/captiontrainingruns"

    def submit(
        self, name: str, *, pin: Object | str | None = PIN, annotations: Object | None = None, **spec: Any
    ) -> Object:
        """Create a run.

        Args:
            pin: result of its resolve Job; without one the Job does not end.
            annotations: what its pods do (stages.yaml).
        """
        said = {"test/pin": pin if isinstance(pin, str) else json.dumps(pin)} if pin is not None else {}
        metadata = {"annotations": said | (annotations or {})}
        trainer, given = {"image": IMAGE, "recipe": "micro_cpu", "nodes": 2}, spec.get("trainer", {})
        body = {
            "apiVersion": "capsfusion.io/v1alpha1", "kind": "CaptionTrainingRun",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "dataset": {"uri": "/lake", "snapshot": "july"}, "checkpoint": {"uri": "/checkpoints"},
                "backend": self.backend.name, "restartPolicy": {"backoff": "1s"}, **spec,
                "trainer": trainer | given | {"podTemplate": {"metadata": metadata} | given.get("podTemplate", {})},
            },
        }  # fmt: skip
        found: Object = self.plane.call(self.path, "POST", body)
        return found

    def get(self, name: str) -> Object:
        """Return a run, or {} if it does not exist."""
        found: Object = self.plane.get(f"{self.path}/{name}")
        return found

    def status(self, name: str) -> Object:
        """Return its status, or {}."""
        found: Object = self.get(name).get("status") or {}
        return found

    def condition(self, name: str, kind: str) -> Object:
        """Return one of its conditions, or {}."""
        return next((c for c in self.status(name).get("conditions", []) if c["type"] == kind), {})

    def wait(self, name: str, phase: str, timeout_s: float = 60) -> Object:
        """Wait until it is in a phase and return its status."""
        try:
            until(lambda: self.status(name).get("phase") == phase, f"{name} is {phase}", timeout_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {json.dumps(self.status(name), indent=1)}") from None
        return self.status(name)

    def patch(self, name: str, **spec: Any) -> None:
        """Merge fields into its spec."""
        self.plane.call(f"{self.path}/{name}", "PATCH", {"spec": spec}, "application/merge-patch+json")

    def jobs(self, name: str) -> dict[str, Object]:
        """Return its training jobs by name."""
        path = f"{self.jobs_path}?labelSelector=capsfusion.io/run={name}"
        return {item["metadata"]["name"]: item for item in self.plane.call(path)["items"]}

    @property
    def jobs_path(self) -> str:
        """Address of the training jobs of the namespace."""
        return f"/apis/{self.backend.api_version}/namespaces/{self.namespace}/{self.backend.plural}"

    def pod(self, job: str, rank: int) -> str:
        """Return the name of the pod of a training job with this rank."""
        run = job.rpartition("-")[0]
        found = [
            name
            for name, pod in self.pods(run).items()
            if name.startswith(f"{job}-") and pod["metadata"]["labels"].get(self.backend.rank_label) == str(rank)
        ]
        return found[-1]

    def release(self, job: str) -> None:
        """Resume a training job, as Kueue does."""
        v1 = self.backend.name == "pytorchjob"
        spec = {"runPolicy": {"suspend": False}} if v1 else {"suspend": False}
        self.plane.call(f"{self.jobs_path}/{job}", "PATCH", {"spec": spec}, "application/merge-patch+json")

    def pods(self, name: str) -> dict[str, Object]:
        """Return its trainer pods by name."""
        selector = f"capsfusion.io/run={name},capsfusion.io/role=trainer"
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector}"
        return {item["metadata"]["name"]: item for item in self.plane.call(path)["items"]}

    def annotate(self, pod: str, **annotations: Any) -> None:
        """Set what a fake pod does: exit, message, reason, disruption, after, stuck (stages.yaml)."""
        body = {
            "metadata": {
                "annotations": {
                    f"test/{k}": json.dumps(v) if isinstance(v, dict) else v for k, v in annotations.items()
                }
            }
        }
        self.plane.call(
            f"/api/v1/namespaces/{self.namespace}/pods/{pod}", "PATCH", body, "application/merge-patch+json"
        )

    def events(self, name: str) -> list[Object]:
        """Return its events, oldest first."""
        path = f"/api/v1/namespaces/{self.namespace}/events?fieldSelector=involvedObject.name={name}"
        return sorted(self.plane.call(path)["items"], key=lambda e: int(e["metadata"]["resourceVersion"]))

    def reasons(self, name: str) -> list[str]:
        """Return the reasons of its events, oldest first."""
        return [event["reason"] for event in self.events(name)]


def all_run(runs: "Runs", name: str, attempt: int = 1) -> None:
    """Wait until both pods of an attempt, and the run, are Running."""

    def running() -> set[str]:
        pods = runs.pods(name).items()
        return {
            pod for pod, found in pods if found["status"]["phase"] == "Running" and pod.startswith(f"{name}-{attempt}-")
        }

    until(lambda: len(running()) == 2, "pods run")
    runs.wait(name, "Running")
