"""Tests with real pods: the recipe micro_cpu on two workers over a snapshot of the ETL (`make test-cluster-real`).

CAPSFUSION_TEST_LAKE names an existing lake to use instead of running the ETL.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import real
from conftest import both_backends, installed
from controllers import crds, trainer, training_operator
from plane import CRD, Plane
from prerequisites import programs, unavailable
from waiting import until

if TYPE_CHECKING:
    from runs import Runs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif("CAPSFUSION_REAL_NODE" not in os.environ, reason="real pods: make test-cluster-real"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a snapshot, made by the demo unless CAPSFUSION_TEST_LAKE names one."""
    there = os.environ.get("CAPSFUSION_TEST_LAKE")
    if there:
        return Path(there).absolute()
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, str(ROOT / "examples" / "demo" / "main.py"), str(folder)], check=True)
    return folder / "lake"


backend = both_backends()


@pytest.fixture(scope="module")
def runs(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Runs"]:
    """A cluster with a real node, and an operator."""
    reason = unavailable() or real.missing()
    if reason:
        pytest.fail(reason)
    folder = tmp_path_factory.mktemp("real")
    plane, operator = Plane(programs("--node"), folder), None
    try:
        plane.control_plane(CRD, *crds(plane.programs))
        training_operator(plane)
        trainer(plane)
        real.start(plane)
        found, operator = installed(
            plane, folder / "operator.log", enforce="privileged", backend=backend
        )  # for hostPath
        operator.start()
        yield found
    finally:
        if operator is not None and operator.process is not None:
            operator.end()
        if "kubelet" in plane.processes:
            real.stop(plane)
        plane.stop()


@pytest.fixture
def checkpoints() -> Iterator[Path]:
    """A folder that uid 1000 can write to."""
    folder = Path("/var/tmp") / f"capsfusion-{os.getpid()}"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def submit(runs: "Runs", name: str, lake: Path, checkpoints: Path, **spec: Any) -> None:
    settings = {"steps": 60, "micro_batch_size": 2, "global_batch_size": 8}
    trainer = {
        "image": real.IMAGE, "nodes": 2, "set": settings, "podTemplate": real.mounts(lake, checkpoints),
        "env": [
            {"name": "PATH", "value": f"{Path(sys.prefix, 'bin')}:/usr/bin:/bin"},
            {"name": "OMP_NUM_THREADS", "value": "1"},
        ],
    }  # fmt: skip
    checkpoint = {"uri": str(checkpoints), "intervalSteps": 10, "graceSeconds": 60}
    dataset = {"uri": str(lake), "latestPassing": True}
    trainer |= spec.pop("trainer", {})
    runs.submit(name, pin=None, dataset=dataset, checkpoint=checkpoint, trainer=trainer, **spec)


def at_step(runs: "Runs", name: str, least: int) -> bool:
    return int(runs.status(name).get("checkpoint", {}).get("step", 0)) >= least


def test_a_training_is_killed_and_goes_on_to_its_end(runs: "Runs", lake: Path, checkpoints: Path) -> None:
    submit(runs, "killed", lake, checkpoints)
    runs.wait("killed", "Running", 180)
    pin = runs.status("killed")["snapshot"]
    assert pin["gate"]["result"] == "passed"
    until(lambda: at_step(runs, "killed", 10), "a checkpoint is seen in the status", 240)
    victim = runs.pod("killed-1", 1)
    os.kill(_process(victim), signal.SIGKILL)
    until(lambda: runs.status("killed").get("attempt") == 2, "another attempt", 120)
    failure = runs.status("killed")["lastFailure"]
    assert (failure["pod"], failure["exitCode"]) == (victim, 137)
    status = runs.wait("killed", "Succeeded", 400)
    assert status["disruptions"] == 1
    assert status["snapshot"] == pin
    assert (status["progress"]["step"], status["progress"]["total"], status["checkpoint"]["step"]) == (60, 60, 60)
    path = f"/api/v1/namespaces/{runs.namespace}/pods"
    options: Any = {"response_type": "str", "auth_settings": ["BearerToken"], "_return_http_data_only": True}
    names = [f"{path}/{runs.pod('killed-2', rank)}/log" for rank in range(2)]
    logs = "".join(runs.plane.api.call_api(name, "GET", **options) for name in names)
    assert "step 1/60" not in logs  # attempt 2 resumed from a checkpoint
    assert "step 60/60" in logs
    saved = status["checkpoint"]
    notes = runs.pods("killed")[runs.pod("killed-2", 0)]["metadata"]["annotations"]
    assert int(notes["capsfusion.io/last-checkpoint-step"]) <= saved["step"]
    assert notes["volcano.sh/last-checkpoint-time"] == notes["capsfusion.io/last-checkpoint-time"]
    assert {"preparing", "waiting", "training", "lost"} <= set(status["goodput"])


def test_a_pause_saves_a_checkpoint_and_keeps_143(runs: "Runs", lake: Path, checkpoints: Path) -> None:
    submit(runs, "paused", lake, checkpoints)
    until(lambda: at_step(runs, "paused", 10), "a checkpoint is seen in the status", 400)
    codes: dict[str, int] = {}

    def ended() -> bool:
        for name, pod in runs.pods("paused").items():
            for status in pod["status"].get("containerStatuses", []):
                if "terminated" in status["state"]:
                    codes[name] = status["state"]["terminated"]["exitCode"]
        return not runs.pods("paused")

    before = _steps(checkpoints / "paused")
    runs.patch("paused", suspend=True)
    until(ended, "the pods have ended", 120, every_s=0.02)
    until(lambda: runs.condition("paused", "Suspended").get("status") == "True", "it pauses")
    assert set(codes.values()) <= {143}
    saved = _steps(checkpoints / "paused")
    assert max(saved) > max(before)
    runs.patch("paused", suspend=False)
    status = runs.wait("paused", "Succeeded", 400)
    assert (status["attempt"], status.get("restarts", 0), status.get("disruptions", 0)) == (1, 0, 0)


def test_a_setting_that_does_not_exist_ends_it_with_the_trainers_words(
    runs: "Runs", lake: Path, checkpoints: Path
) -> None:
    submit(runs, "wrong", lake, checkpoints, trainer={"args": ["--set=trainer.stepz=3"]})
    runs.wait("wrong", "Failed", 240)
    condition = runs.condition("wrong", "Failed")
    assert condition["reason"] == "InvalidInput"
    assert "stepz" in condition["message"]


def test_a_lake_that_is_not_there(runs: "Runs", lake: Path, checkpoints: Path) -> None:
    submit(runs, "nowhere", checkpoints, checkpoints)
    runs.wait("nowhere", "Rejected", 120)
    assert "no snapshot" in runs.condition("nowhere", "SnapshotResolved")["message"]


def test_a_silent_gang_is_restarted(runs: "Runs", lake: Path, checkpoints: Path) -> None:
    trainer = {"command": ["/bin/sh", "-c", "echo $HOSTNAME begins; sleep 1000"]}
    submit(runs, "silent", lake, checkpoints, trainer=trainer, stallSeconds=60, restartPolicy={"backoff": "1s"})
    until(lambda: runs.status("silent").get("attempt") == 2, "another attempt", 240)
    failure = runs.status("silent")["lastFailure"]
    assert (failure["reason"], runs.status("silent")["restarts"]) == ("Stalled", 1)
    assert re.search(r"no progress for 60 seconds: silent-1-\S+ \(node [01]\) was last heard of", failure["message"])
    runs.plane.call(f"{runs.path}/silent", "DELETE")


def _process(pod: str) -> int:
    """Return the host's process id of the launcher in a pod. Its host name is the pod's, or what a JobSet gives it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment, command = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
            except OSError:
                continue
            host = environment.partition(b"HOSTNAME=")[2].partition(b"\0")[0].decode()
            if host and pod.startswith(host) and b"capsfusion_trainer.launch" in command:
                return int(folder.name)
    raise LookupError(f"no process of {pod}")


def _steps(folder: Path) -> list[int]:
    return [int(marker.parent.name.rpartition("-")[2]) for marker in folder.glob("step-*/complete.json")]
