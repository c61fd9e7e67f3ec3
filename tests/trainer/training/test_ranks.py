"""Tests with several ranks, each in a separate process started by torchrun."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from capsfusion_trainer.training.export import load
from torchrun import alone, command, losses, wait_for_steps


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (2, {"shard": False}),
        (2, {"shard": True}),
        pytest.param(4, {"shard": True, "shard_size": 2}, marks=pytest.mark.storm),  # four processes on two cores
    ],
)
def test_several_ranks_learn_what_one_learns(
    snapshot: Callable[..., Path], tmp_path: Path, ranks: int, settings: dict[str, object]
) -> None:
    lake, many = snapshot(21), tmp_path / "many"
    one = alone(lake, tmp_path / "one")
    done = subprocess.run(command(lake, many, ranks, micro_batch_size=3, **settings), check=False, timeout=300)
    assert done.returncode == 0
    assert losses(many) == pytest.approx(one, abs=1e-5)
    ours, theirs = (load(tmp_path / name / "model") for name in ("one", "many"))
    for name, weight in ours.state_dict().items():
        assert torch.allclose(weight, theirs.state_dict()[name], atol=1e-3), name


def test_a_killed_rank_ends_the_others_and_another_number_of_ranks_goes_on(
    snapshot: Callable[..., Path], tmp_path: Path
) -> None:
    lake, out = snapshot(21), tmp_path / "out"
    one = alone(lake, tmp_path / "one", steps=60)
    with subprocess.Popen(command(lake, out, 2, steps=60)) as torchrun:
        wait_for_steps(out, torchrun)
        ranks = psutil.Process(torchrun.pid).children()
        victim = max(ranks, key=lambda p: int(p.environ()["RANK"]))
        os.kill(victim.pid, signal.SIGKILL)
        killed = time.monotonic()
        assert torchrun.wait(60) == 128 + signal.SIGKILL
        assert time.monotonic() - killed < 60
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in ranks)
    assert losses(out) == pytest.approx(one[: len(losses(out))], abs=1e-5)
    assert len(losses(out)) < 60
    assert alone(lake, out, steps=60) == pytest.approx(one, abs=2e-3)  # rounding errors of 60 steps


def test_sigterm_and_errors_of_the_user_keep_their_status(snapshot: Callable[..., Path], tmp_path: Path) -> None:
    lake, out = snapshot(21), tmp_path / "out"
    with subprocess.Popen(command(lake, out, 2, steps=100_000)) as torchrun:
        wait_for_steps(out, torchrun)
        torchrun.terminate()
        assert torchrun.wait(60) == 128 + signal.SIGTERM
    newest = max((out / "checkpoints").glob("step-*"))
    assert json.loads((newest / "complete.json").read_text())["step"] == len(losses(out))
    wrong = subprocess.run(command(lake, out, 1, stepz=1), check=False, capture_output=True, text=True, timeout=300)
    assert (wrong.returncode, "trainer.stepz: unknown key" in wrong.stderr) == (2, True), wrong.stderr[-2000:]
