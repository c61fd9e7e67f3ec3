"""Test the exit status of the launcher when the other nodes do not come."""

import subprocess
import sys

import pytest
from processes import free_port


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
