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
from capsfusion_k8s.backends import BACKENDS
from controllers import crds, trainer, training_operator
from plane import CHARTS, CRD, Plane
from prerequisites import KUBECONFIG, programs, unavailable
from runs import Object, Runs
from waiting import until

HELM = str(Path(sys.executable).parent / "helm")
IMAGE_VALUE = ("--set", "image.repository=example.org/operator")


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Control plane, Kubeflow's controllers and fake nodes, or the cluster that the environment names."""
    if KUBECONFIG in os.environ:
        yield Plane.existing(Path(os.environ[KUBECONFIG]), tmp_path_factory.mktemp("plane"))
        return
    reason = unavailable()
    if reason:
        (pytest.fail if "CAPSFUSION_WANT_CLUSTER" in os.environ else pytest.skip)(reason)
    found = Plane(programs(), tmp_path_factory.mktemp("plane"))
    try:
        monitoring = (found.programs / f"{kind}.yaml" for kind in ("servicemonitors", "prometheusrules"))
        found.control_plane(CRD, *crds(found.programs), *monitoring)
        training_operator(found)
        trainer(found)
        found.fake_nodes()
        yield found
    finally:
        found.stop()


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


def installed(
    plane: Plane, log: Path, *, enforce: str = "restricted", backend: str = "pytorchjob"
) -> tuple[Runs, Operator]:  # fmt: skip
    """Create a namespace that admits only restricted pods, and an operator for it with the RBAC rules of its chart."""
    name = f"t-{time.monotonic_ns() % 10**10}"
    restricted = {"pod-security.kubernetes.io/enforce": enforce}
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    chart = str(CHARTS / "capsfusion-operator")
    command = [HELM, "template", "x", chart, "-n", name, "--show-only", "templates/rbac.yaml", *IMAGE_VALUE]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    plane.apply(*yaml.safe_load_all(rendered), namespace=name)
    until(lambda: plane.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "it has a service account")
    return Runs(plane, name, backend), Operator(plane.account(name, "x-capsfusion-operator"), name, log)


@pytest.fixture(scope="module")
def backend() -> str:
    """The backend of the runs of a module; a module may have another one, or both."""
    return "pytorchjob"


@pytest.fixture(scope="module")
def shared(plane: Plane, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runs, Operator]]:
    """A namespace and its operator, shared by the tests of a module that do not stop the operator."""
    runs, operator = installed(plane, tmp_path_factory.mktemp("operator") / "operator.log", backend=backend)
    operator.start()
    yield runs, operator
    assert operator.end() == 0
    assert not [
        line for line in operator.lines() if "reconciliation failed" in line["message"] or line["severity"] == "raw"
    ]


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


def both_backends() -> Any:
    """Return a fixture `backend` for a module whose tests run with each backend."""
    return pytest.fixture(scope="module", params=sorted(BACKENDS), name="backend")(lambda request: str(request.param))
