"""Tests of the operator process: killed in every phase, its RBAC rules, a missing training operator, metrics."""

import re
import signal
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import installed
from controllers import training_operator
from plane import CRD, Plane
from prerequisites import programs
from runs import PIN
from waiting import free_port, until

if TYPE_CHECKING:
    from conftest import Operator
    from runs import Runs

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("phase", ["Pending", "Resolving", "Gating", "Queued", "Running", "Suspended", "Restarting"])
def test_an_operator_that_is_killed_goes_on(own: "tuple[Runs, Operator]", phase: str) -> None:
    runs, operator = own
    spec: dict[str, Any] = {"restartPolicy": {"backoff": "4s"}}
    if phase == "Queued":
        spec["queueName"] = "gpus"
    if phase == "Resolving":
        spec["trainer"] = {"serviceAccountName": "late"}  # its Job gets no pod until the account exists
    if phase != "Pending":
        operator.start()
    runs.submit("july", pin=None if phase == "Gating" else PIN, **spec)
    jobs = f"/apis/kubeflow.org/v1/namespaces/{runs.namespace}/pytorchjobs/july-1"
    if phase in ("Resolving", "Gating", "Running"):
        runs.wait("july", phase)
    elif phase == "Queued":
        until(lambda: runs.jobs("july"), "its job is there")
    elif phase in ("Suspended", "Restarting"):
        runs.wait("july", "Running")
    if phase == "Suspended":
        runs.patch("july", suspend=True)
        until(lambda: runs.condition("july", "Suspended").get("status") == "True", "it pauses")
    if phase == "Restarting":
        runs.annotate("july-1-worker-0", exit="1")
        runs.wait("july", "Restarting")
    if phase != "Pending":
        assert operator.end(signal.SIGKILL) == -signal.SIGKILL
    # The cluster changes while the operator is down.
    if phase == "Resolving":
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "late"}}
        runs.plane.apply(account, namespace=runs.namespace)
    if phase == "Gating":
        path = f"/api/v1/namespaces/{runs.namespace}/pods"
        [pod] = runs.plane.call(f"{path}?labelSelector=capsfusion.io/role=resolver")["items"]
        runs.annotate(pod["metadata"]["name"], pin=PIN)
    if phase == "Queued":
        body = {"spec": {"runPolicy": {"suspend": False}}}
        runs.plane.call(jobs, "PATCH", body, "application/merge-patch+json")
    if phase == "Suspended":
        runs.patch("july", suspend=False)
    if phase == "Running":
        runs.annotate("july-1-worker-1", exit="143", disruption="TaintManager")
        until(lambda: _failed(runs), "its job has failed")
    operator.start()
    attempt = 2 if phase in ("Running", "Restarting") else 1
    until(
        lambda: set(runs.pods("july")) >= {f"july-{attempt}-worker-{rank}" for rank in range(2)}, "pods are there", 60
    )
    runs.wait("july", "Running")
    status = runs.status("july")
    assert (status["attempt"], status.get("restarts", 0)) == (attempt, int(phase == "Restarting"))
    assert status.get("disruptions", 0) == int(phase == "Running")
    assert set(runs.jobs("july")) == {f"july-{n + 1}" for n in range(attempt)}
    resolvers = runs.plane.call(f"/apis/batch/v1/namespaces/{runs.namespace}/jobs")["items"]
    assert [job["metadata"]["name"] for job in resolvers] == ["july-resolve"]
    reasons = runs.reasons("july")
    # The kill may lose an event.
    assert all(reasons.count(reason) <= 1 for reason in ("SnapshotResolved", "GatePassed"))


def _failed(runs: "Runs") -> bool:
    conditions = runs.jobs("july")["july-1"]["status"]["conditions"]
    return any(c["type"] == "Failed" and c["status"] == "True" for c in conditions)


def test_the_charts_rights_are_enough_and_none_is_idle(plane: Plane, own: "tuple[Runs, Operator]") -> None:
    runs, operator = own
    operator.start()
    runs.submit("well", annotations={"test/exit": "0"}, ttlSecondsAfterFinished=1)
    runs.submit("nobody", trainer={"serviceAccountName": "nobody"})  # the operator reads events
    runs.submit("late", activeDeadlineSeconds=2)  # the operator deletes its job
    runs.submit("crash", annotations={"test/exit": "1"}, restartPolicy={"maxRestarts": 1, "backoff": "1s"})
    for backend in ("pytorchjob", "trainjob"):
        runs.submit(f"paused-{backend}", backend=backend)
        runs.wait(f"paused-{backend}", "Running")
        runs.patch(f"paused-{backend}", suspend=True)
        runs.wait(f"paused-{backend}", "Queued")
    runs.submit("late-trainjob", backend="trainjob", activeDeadlineSeconds=2)
    runs.submit("again-trainjob", backend="trainjob", annotations={"test/exit": "1"}, restartPolicy={"backoff": "1s"})
    until(lambda: "Succeeded" in runs.reasons("well") and not runs.get("well"), "it is done and removed")
    until(lambda: runs.condition("nobody", "SnapshotResolved").get("reason") == "FailedCreate", "it is said")
    for name in ("late", "crash", "late-trainjob", "again-trainjob"):
        runs.wait(name, "Failed")
    asked = plane.requests(f"{runs.namespace}:x-capsfusion-operator")
    assert not [r for r in asked if r["responseStatus"].get("code") == 403]
    used = {(_resource(r["objectRef"]), r["verb"]) for r in asked if "resource" in r.get("objectRef", {})}
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{runs.namespace}/roles/x-capsfusion-operator"
    given = {(res, verb) for rule in plane.get(path)["rules"] for res in rule["resources"] for verb in rule["verbs"]}
    # Fake nodes have no logs, so no checkpoint is noted; there is no Kueue; and no Job's name was taken.
    not_here = {("pods", "patch"), ("workloads", "list"), ("workloads", "patch"), ("jobs", "get"), ("jobs", "patch")}
    kept = {("trainingruntimes", "get"), ("trainingruntimes", "patch")}  # the run's own, at its second attempt
    assert given - used <= not_here | kept
    assert used <= given | {("apis", "get")}


def _resource(reference: dict[str, str]) -> str:
    return "/".join(filter(None, [reference["resource"], reference.get("subresource")]))


def test_without_its_kind_and_without_a_training_operator(tmp_path: Path) -> None:
    plane, operator = Plane(programs(), tmp_path), None
    try:
        plane.control_plane()
        plane.fake_nodes()
        runs, operator = installed(plane, tmp_path / "operator.log")
        metrics, health = free_port(), free_port()
        operator.start("--metrics-port", str(metrics), "--liveness", f"http://127.0.0.1:{health}/healthz")
        until(lambda: "install the chart capsfusion-crds" in operator.log.read_text(), "it says what is missing")
        assert _status(health, "healthz") == 200  # it lives
        assert _status(metrics, "metrics") is None  # and is not ready
        plane.apply(*yaml.safe_load_all(CRD.read_text()))
        until(lambda: _status(metrics, "metrics") == 200, "it is ready")
        runs.submit("early")
        until(lambda: runs.condition("early", "Running").get("reason") == "TrainingOperatorMissing", "it is said")
        assert "install Kubeflow's training operator" in runs.condition("early", "Running")["message"]
        plane.apply(*yaml.safe_load_all((plane.programs / "pytorchjobs.yaml").read_text()))
        training_operator(plane)
        runs.wait("early", "Running", timeout_s=90)
        assert operator.process is not None  # it recovered without a restart
        assert operator.process.poll() is None
    finally:
        if operator is not None:
            operator.end()
        plane.stop()


def _status(port: int, path: str) -> int | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return None


def test_metrics_and_health(own: "tuple[Runs, Operator]") -> None:
    runs, operator = own
    operator.start("--metrics-port", "18080", "--liveness", "http://127.0.0.1:18081/healthz")
    runs.submit("july")
    runs.wait("july", "Running")
    with urllib.request.urlopen("http://127.0.0.1:18080/metrics", timeout=5) as answer:
        said = answer.read().decode()
    assert f'capsfusion_training_runs{{namespace="{runs.namespace}",phase="Running"}} 1.0' in said
    assert re.search(r'capsfusion_operator_transitions_total\{from_phase="\w+",to_phase="Running"\} 1.0', said)
    assert re.search(r'capsfusion_operator_api_requests_total\{kind="pytorchjobs",verb="create"\} 1.0', said)
    assert re.search(r'capsfusion_training_seconds\{doing="preparing",namespace="[^"]+",run="july"\} \d', said)
    with urllib.request.urlopen("http://127.0.0.1:18081/healthz", timeout=5) as answer:
        assert answer.status == 200
    lines = operator.lines()
    assert {"message", "timestamp", "severity"} <= set(lines[0])
    assert any(line.get("run") == "july" and line.get("phase") == "Running" for line in lines)
