"""Test that every file of a snapshot is verified, before training or beside it, and that ranks wait for long work."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.data.batch import Batch
from capsfusion_trainer.train import train
from capsfusion_trainer.training.distributed import init_distributed
from capsfusion_trainer.training.step import TrainStep
from capsfusion_trainer.training.verification import Verification
from processes import free_port
from torchrun import losses

TINY = replace(
    micro_cpu(), steps=6, global_batch_size=4, checkpoint_every=2, llm_width=32, vision_width=32, image_size=32
)
Snapshot = Callable[..., Path]


def changed(lake: Path) -> None:
    """Change a file of the snapshot, but not its size."""
    file = next(lake.rglob("split=train/*.parquet"))
    data = file.read_bytes()
    at = data.index(b"Oslo")
    file.write_bytes(data[:at] + b"Bonn" + data[at + 4 :])


def test_a_changed_snapshot_is_refused_before_the_first_step(snapshot: Snapshot, tmp_path: Path) -> None:
    lake = snapshot()
    manifest = open_snapshot(f"{lake}@first")
    changed(lake)
    with pytest.raises(InputError, match="has changed since it was published: its sha256 differs"):
        train(TINY, manifest, tmp_path / "out", hashes=True)
    assert losses(tmp_path / "out") == []


def test_a_change_that_is_found_late_stops_the_run(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = snapshot()
    manifest, real, steps = open_snapshot(f"{lake}@first"), Manifest.fault, threading.Event()
    monkeypatch.setattr("capsfusion_trainer.training.verification._BEFORE_TRAINING_S", 0.1)
    monkeypatch.setattr(Manifest, "fault", lambda *a, **k: (steps.wait(60), real(*a, **k))[1])
    before = TrainStep.update

    def update(train_step: TrainStep, batch: Batch, number: int) -> dict[str, Any]:
        if number == 3:
            steps.set()
        return before(train_step, batch, number)

    monkeypatch.setattr(TrainStep, "update", update)
    train(TINY, manifest, tmp_path / "sound", hashes=True)
    assert "are hashed while training runs" in capsys.readouterr().out
    changed(lake)
    steps.clear()
    with pytest.raises(InputError, match="its sha256 differs"):
        train(replace(TINY, steps=2000), manifest, tmp_path / "out", hashes=True)
    assert 3 <= len(losses(tmp_path / "out")) < 2000
    assert not (tmp_path / "out/model").exists()


def rank(number: int, port: int, said: Any) -> None:
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with init_distributed(timeout_s=2) as world:
        slept = world.together(lambda: number and threading.Event().wait(5))
        said.put((number, slept))
        try:
            world.together(lambda: 1 // (1 - number))
        except RuntimeError as error:
            said.put((number, str(error)))
        except ZeroDivisionError:
            said.put((number, "mine"))
        said.put((number, world.spread([1, 2, 3], lambda share: [10 * item for item in share])))


def test_ranks_wait_for_long_work_and_share_its_errors() -> None:
    """Five seconds are longer than the time-out of the collectives."""
    port = free_port()
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    ranks = [context.Process(target=rank, args=(number, port, said)) for number in range(2)]
    for process in ranks:
        process.start()
    found = sorted((said.get(timeout=60) for _ in range(6)), key=lambda pair: (pair[0], str(pair[1])))
    assert found == [
        (0, 0), (0, "ZeroDivisionError: integer division or modulo by zero"), (0, [10, 20, 30]),
        (1, False), (1, [10, 20, 30]), (1, "mine"),
    ]  # fmt: skip
    for process in ranks:
        process.join(30)
        assert process.exitcode == 0


def test_a_later_attempt_compares_sizes_and_hashes_a_sample(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 TB on 64 nodes are not read again at each restart."""
    lake, real = snapshot(), Manifest.fault
    manifest, hashed = open_snapshot(f"{lake}@first"), list[str]()

    def fault(self: Manifest, file: Any, *, hashes: bool = True) -> str | None:
        hashed.extend([file.path] if hashes else [])
        return real(self, file, hashes=hashes)

    monkeypatch.setattr(Manifest, "fault", fault)
    place = str(tmp_path / "checkpoints")
    train(replace(TINY, steps=2), manifest, tmp_path / "a", place, hashes=True)
    assert len(hashed) == len(manifest.files)
    hashed.clear()
    with init_distributed() as world, Verification(manifest, world, hashes=True, folder=place) as again:
        again.start()
        assert again.finished()
    assert len(hashed) == 1
    file = manifest.folder / manifest.files[0].path
    file.write_bytes(file.read_bytes() + b"more")
    with (
        pytest.raises(InputError, match=r"bytes, not"),
        init_distributed() as world,
        Verification(manifest, world, hashes=True, folder=place) as third,
    ):
        third.start()
