"""Tests of the run commands (submit, status, suspend, resume, logs) against a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from plane import Plane
from runs import PIN
from waiting import until

if TYPE_CHECKING:
    from runs import Runs

pytestmark = pytest.mark.cluster


@pytest.fixture
def capsfusion(plane: Plane) -> Any:
    """The `capsfusion` command with the cluster's kubeconfig."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "capsfusion_etl.cli", *arguments], capture_output=True, text=True,
            env=os.environ | {"KUBECONFIG": str(plane.kubeconfig)}, check=False, timeout=60,
        )  # fmt: skip

    return command


def test_a_run_by_commands(runs: "Runs", capsfusion: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    body = {
        "apiVersion": "capsfusion.io/v1alpha1", "kind": "CaptionTrainingRun", "metadata": {"name": "by-hand"},
        "spec": {
            "dataset": {"uri": "/lake", "latestPassing": True}, "checkpoint": {"uri": "/checkpoints"},
            "trainer": {
                "image": "example.org/trainer:1", "recipe": "micro_cpu",
                "podTemplate": {"metadata": {"annotations": {"test/pin": json.dumps(PIN)}}},
            },
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump(body))
    done = capsfusion("submit", str(file), "-n", runs.namespace)
    assert (done.returncode, done.stdout) == (
        0,
        f"{runs.namespace}/by-hand is submitted; see how it goes: capsfusion status by-hand -n {runs.namespace}\n",
    )
    assert "example.org/trainer:1 has no digest" in done.stderr
    runs.wait("by-hand", "Running")
    shown = capsfusion("status", str(file), "-n", runs.namespace).stdout
    assert shown.startswith(f"{runs.namespace}/by-hand  Running\n  snapshot           july, version 3: 2 files")
    assert json.loads(capsfusion("status", "by-hand", "-n", runs.namespace, "--json").stdout)["attempt"] == 1
    assert "is asked to save and pause" in capsfusion("suspend", "by-hand", "-n", runs.namespace).stdout
    until(lambda: runs.condition("by-hand", "Suspended").get("status") == "True", "it pauses")
    assert capsfusion("resume", "by-hand", "-n", runs.namespace).returncode == 0
    runs.wait("by-hand", "Running")
    again = capsfusion("submit", str(file), "-n", runs.namespace)
    assert (again.returncode, "already exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status", "nothing"), "there is no training run nothing in namespace "),
        (("suspend", "nothing"), "there is no training run nothing in namespace "),
        (("logs", "nothing"), "there is no training run nothing in namespace "),
    ],
)
def test_a_run_that_is_not_there(runs: "Runs", capsfusion: Any, arguments: tuple[str, ...], said: str) -> None:
    done = capsfusion(*arguments, "-n", runs.namespace)
    assert (done.returncode, said in done.stderr) == (2, True)


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    config.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [cluster], "contexts": [context],
        "users": users,
    }))  # fmt: skip
    for kubeconfig, said in ((config, "does not answer"), (tmp_path / "none", "no cluster is configured")):
        done = subprocess.run(
            [sys.executable, "-m", "capsfusion_etl.cli", "status", "july"], capture_output=True, text=True,
            env=os.environ | {"KUBECONFIG": str(kubeconfig)}, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
