"""Tests of the launcher on several nodes: others that do not come, and one that comes late."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import free_port
from torchrun import SMALL, wait_for_steps


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
def test_nodes_that_do_not_come(host: str) -> None:
    """Alone at the meeting point, and without one: an operator must tell both from a crash."""
    launch = [
        "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=july-1",
        f"--rdzv-endpoint={host}:{free_port()}", "--rdzv-conf=join_timeout=2,read_timeout=2",
    ]  # fmt: skip
    command = [sys.executable, "-m", "capsfusion_trainer.launch", *launch, "train", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 75, done.stderr
    assert "capsfusion: the other nodes did not come" in done.stdout


def test_a_node_that_comes_late_joins_an_elastic_run(snapshot: Callable[[], Path], tmp_path: Path) -> None:
    """The workers of the first start again with those of the second, from a checkpoint; both end with the training."""
    port, place = free_port(), str(tmp_path / "checkpoints")
    lake, steps = snapshot(), 60

    def node(name: str) -> subprocess.Popen[bytes]:
        launch = [
            "--nnodes=1:2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=july-1",
            f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-conf=join_timeout=60,read_timeout=60,last_call_timeout=2",
            "--monitor-interval=0.5",
        ]  # fmt: skip
        train = ["train", "--snapshot", f"{lake}@first", "--out", str(tmp_path / name), "--checkpoints", place]
        sets = [f"--set=trainer.{key}={value}" for key, value in (SMALL | {"steps": steps, "workers": 0}).items()]
        return subprocess.Popen([sys.executable, "-m", "capsfusion_trainer.launch", *launch, *train, *sets])

    with node("one") as first:
        wait_for_steps(tmp_path / "one", first)
        with node("two") as second:
            assert (first.wait(300), second.wait(300)) == (0, 0)
    [done, *_] = tmp_path.glob("*/complete.json")  # of the first rank, on either node
    assert json.loads(done.read_text())["step"] == steps
    assert (tmp_path / "checkpoints" / "model" / "model.safetensors").is_file()
