"""Fixtures: a cluster for the whole test session, and an operator in it that a test can kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from plane import CHARTS, CRD, Plane
from prerequisites import KUBECONFIG, programs, unavailable
from waiting import until

Object = dict[str, Any]
HELM = str(Path(sys.executable).parent / "helm")
PIN = {
    "name": "july", "strategy": "fused", "tableId": "t-1", "version": 3, "files": 2, "bytes": 1000,
    "manifestSha256": "ab", "gate": {"result": "passed", "passedAt": "2026-11-01T00:00:00Z"},
}  # fmt: skip
IMAGE = "example.org/trainer@sha256:" + "0" * 64


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Control plane, training operator and fake nodes, or the cluster that the environment names."""
    if KUBECONFIG in os.environ:
        yield Plane.existing(Path(os.environ[KUBECONFIG]), tmp_path_factory.mktemp("plane"))
        return
    reason = unavailable()
    if reason:
        (pytest.fail if "CAPSFUSION_WANT_CLUSTER" in os.environ else pytest.skip)(reason)
    found = Plane(programs(), tmp_path_factory.mktemp("plane"))
    try:
        found.control_plane(CRD, *(found.programs / f"{name}.yaml" for name in ("pytorchjobs", "servicemonitors")))
        found.training_operator()
        found.fake_nodes()
        yield found
    finally:
        found.stop()


class Runs:
    """Client for the runs of one namespace."""

    def __init__(self, plane: Plane, namespace: str) -> None:
        self.plane, self.namespace = plane, namespace
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
        trainer = {"image": IMAGE, "recipe": "micro_cpu", "nodes": 2, "podTemplate": {"metadata": metadata}}
        body = {
            "apiVersion": "capsfusion.io/v1alpha1", "kind": "CaptionTrainingRun",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "dataset": {"uri": "/lake", "snapshot": "july"}, "checkpoint": {"uri": "/checkpoints"},
                "restartPolicy": {"backoff": "1s"}, **spec, "trainer": trainer | spec.get("trainer", {}),
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
        """Return its PyTorchJobs by name."""
        path = f"/apis/kubeflow.org/v1/namespaces/{self.namespace}/pytorchjobs?labelSelector=capsfusion.io/run={name}"
        return {item["metadata"]["name"]: item for item in self.plane.call(path)["items"]}

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


class Operator:
    """The operator process: `capsfusion operator run`."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path) -> None:
        self._kubeconfig, self._namespace, self.log = kubeconfig, namespace, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start the process; by default without metrics."""
        command = [sys.executable, "-m", "capsfusion_etl.cli", "operator", "run", "-n", self._namespace, "--tick", "1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--log-level", "debug", *(options or ("--metrics-port", "0"))], stdout=log, stderr=log,
                env=os.environ | {"KUBECONFIG": str(self._kubeconfig)}, start_new_session=True,
            )  # fmt: skip

    def end(self, how: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(how)
        return process.wait(30)

    def lines(self) -> list[Object]:
        """Return its log lines; a line that is not JSON has the severity `raw`."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                found.append({"message": line, "severity": "raw"})
        return found


def installed(plane: Plane, log: Path, *, enforce: str = "restricted") -> tuple[Runs, Operator]:
    """Create a namespace that admits only restricted pods, and an operator for it with the RBAC rules of its chart."""
    name = f"t-{time.monotonic_ns() % 10**10}"
    restricted = {"pod-security.kubernetes.io/enforce": enforce}
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    chart = str(CHARTS / "capsfusion-operator")
    command = [HELM, "template", "x", chart, "-n", name, "--show-only", "templates/rbac.yaml"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    plane.apply(*yaml.safe_load_all(rendered), namespace=name)
    until(lambda: plane.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "it has a service account")
    return Runs(plane, name), Operator(plane.account(name, "x-capsfusion-operator"), name, log)


@pytest.fixture(scope="module")
def shared(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runs, Operator]]:
    """A namespace and its operator, shared by the tests of a module that do not stop the operator."""
    runs, operator = installed(plane, tmp_path_factory.mktemp("operator") / "operator.log")
    operator.start()
    yield runs, operator
    assert operator.end() == 0
    assert not [line for line in operator.lines() if "in vain" in line["message"] or line["severity"] == "raw"]


@pytest.fixture
def runs(shared: tuple[Runs, Operator]) -> Runs:
    """Runs of the shared namespace."""
    return shared[0]


@pytest.fixture
def own(plane: Plane, tmp_path: Path) -> Iterator[tuple[Runs, Operator]]:
    """A namespace and an operator, not yet started, of one test, which may kill it."""
    runs, operator = installed(plane, tmp_path / "operator.log")
    yield runs, operator
    if operator.process is not None:
        assert operator.end() == 0
