"""Train with several ranks, each in a separate process started by torchrun, or alone in this process."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import of_settings
from capsfusion_trainer.train import train

SMALL = {"steps": 6, "global_batch_size": 8, "checkpoint_every": 2, "llm_width": 32, "vision_width": 32, "seed": 5}


def command(lake: Path, out: Path, ranks: int, **settings: object) -> list[str]:
    sets = [f"--set=trainer.{key}={json.dumps(value)}" for key, value in (SMALL | settings).items()]
    launch = ["-m", "capsfusion_trainer.launch", "--standalone", f"--nproc-per-node={ranks}"]
    return [sys.executable, *launch, "train", "--snapshot", f"{lake}@first", "--out", str(out), *sets]


def losses(out: Path) -> list[float]:
    log = out / "metrics.jsonl"
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()] if log.is_file() else []


def wait_for_steps(out: Path, torchrun: subprocess.Popen[bytes]) -> None:
    """Wait until three steps are done."""
    for _ in range(3000):
        if len(losses(out)) >= 3:
            return
        assert torchrun.poll() is None
        threading.Event().wait(0.1)
    torchrun.kill()
    pytest.fail("no three steps in five minutes")


def alone(lake: Path, out: Path, **settings: object) -> list[float]:
    """Train in this process; return the losses."""
    train(of_settings({"trainer": SMALL | settings}), open_snapshot(f"{lake}@first"), out)
    return losses(out)
