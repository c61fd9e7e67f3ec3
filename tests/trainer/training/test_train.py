"""Tests of training in one process: learning, resuming, checkpoints, metrics and the feature cache."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import micro_cpu, of_settings
from capsfusion_trainer.data.batch import Batch
from capsfusion_trainer.evaluation.held_out import evaluate
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.train import train
from capsfusion_trainer.training.monitor import summary
from capsfusion_trainer.training.optimizer import learning_rate
from capsfusion_trainer.training.step import TrainStep
from torchrun import losses

TINY = replace(
    micro_cpu(), steps=6, global_batch_size=4, checkpoint_every=2, llm_width=32, vision_width=32, image_size=32
)
Snapshot = Callable[..., Path]


@pytest.fixture
def lake(snapshot: Snapshot) -> Path:
    """A lake with a snapshot of eleven pairs: one has a broken image, two are held out."""
    return snapshot()


def test_training_learns_reports_and_evaluates(lake: Path, tmp_path: Path) -> None:
    manifest, out = open_snapshot(f"{lake}@first"), tmp_path / "out"
    last = train(replace(TINY, steps=30), manifest, out)
    assert last["step"] == 30
    assert losses(out)[-1] < losses(out)[0] - 2.0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {p for line in lines for p in line.get("unreadable", [])} == {f"{3:064x}"}
    result = evaluate(manifest, out)
    assert result["pairs"] == 2
    assert result["first_loss"] == losses(out)[0]
    assert result["loss"] < result["first_loss"] - 2.0
    assert result["mismatched_loss"] > 0
    assert len(result["captions"]) == 2


def test_a_resumed_run_is_the_uninterrupted_one(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = open_snapshot(f"{lake}@first")
    train(TINY, manifest, tmp_path / "whole")
    real = TrainStep.update

    def stop_at_five(train_step: TrainStep, batch: Batch, step: int) -> dict[str, Any]:
        if step == 5:
            raise KeyboardInterrupt
        return real(train_step, batch, step)

    monkeypatch.setattr(TrainStep, "update", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, manifest, tmp_path / "parts")
    monkeypatch.undo()
    train(replace(TINY, checkpoint_every=3), manifest, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    weights = "model/model.safetensors"
    assert (tmp_path / "parts" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_checkpoints_and_the_model_outlive_a_machine(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pod's local disk is lost with the pod."""
    manifest, place = open_snapshot(f"{lake}@first"), str(tmp_path / "store" / "july")
    train(TINY, manifest, tmp_path / "whole")
    train(replace(TINY, checkpoint_every=3), manifest, tmp_path / "pod-1", place)
    weights = (tmp_path / "whole/model/model.safetensors").read_bytes()
    assert (tmp_path / "store/july/model/model.safetensors").read_bytes() == weights
    # The pod ended after the last step, before anyone saw the result: nothing is left to train.
    monkeypatch.setenv("CAPSFUSION_PROGRESS", "stdout")
    capsys.readouterr()
    again = train(TINY, manifest, tmp_path / "pod-2", place)
    assert summary(again) == "6 steps, made on another machine"
    assert (tmp_path / "pod-2/model/model.safetensors").read_bytes() == weights
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("progress ")]
    lines = [json.loads(line.removeprefix("progress ")) for line in said]
    assert (lines[-1]["checkpoint_step"], lines[-1]["activity"]) == (6, "training")
    assert {line["activity"] for line in lines} == {"training", "checkpointing", "verifying", "exporting"}
    assert "checkpoint_at" not in lines[-1]  # another machine made it


def test_a_run_begins_with_checkpoints_of_its_own_elsewhere(lake: Path, tmp_path: Path) -> None:
    manifest, old, new = open_snapshot(f"{lake}@first"), str(tmp_path / "old"), str(tmp_path / "new")
    train(TINY, manifest, tmp_path / "whole", old)
    shutil.rmtree(tmp_path / "old/step-000000006")
    train(TINY, manifest, tmp_path / "moved", new, old)
    assert losses(tmp_path / "moved") == losses(tmp_path / "whole")[4:]
    with pytest.raises(InputError, match="holds no whole checkpoint to resume from"):
        train(TINY, manifest, tmp_path / "other", str(tmp_path / "none"), str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="checkpoints of a run with other settings"):
        train(replace(TINY, seed=3), manifest, tmp_path / "third", str(tmp_path / "none"), old)


def test_prometheus_reads_the_last_step(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("CAPSFUSION_METRICS_PORT", str(port))
    real, seen = TrainStep.backward, []

    def look(train_step: TrainStep, batch: Batch) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            seen.append(answer.read().decode())
        return real(train_step, batch)

    monkeypatch.setattr(TrainStep, "backward", look)
    train(TINY, open_snapshot(f"{lake}@first"), tmp_path / "out")
    assert "capsfusion_trainer_step 5.0" in seen[-1]
    assert "capsfusion_trainer_steps_total 6.0" in seen[-1]
    assert f"capsfusion_trainer_loss {losses(tmp_path / 'out')[-2]}" in seen[-1]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_finished_run_is_not_repeated_and_another_is_refused(lake: Path, tmp_path: Path) -> None:
    manifest = open_snapshot(f"{lake}@first")
    train(TINY, manifest, tmp_path / "out")
    before = (tmp_path / "out/metrics.jsonl").read_text()
    train(TINY, manifest, tmp_path / "out")
    assert (tmp_path / "out/metrics.jsonl").read_text() == before
    with pytest.raises(InputError, match="holds a run with other settings"):
        train(replace(TINY, seed=1), manifest, tmp_path / "out")


def test_sigterm_saves_and_exits_143(lake: Path, tmp_path: Path) -> None:
    job = [
        sys.executable,
        "-m",
        "capsfusion_etl.cli",
        "train",
        "--snapshot",
        f"{lake}@first",
        "--out",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen([*job, "--set", "trainer.steps=100000"]) as process:
        log = tmp_path / "out/metrics.jsonl"
        for _ in range(2400):
            if log.is_file() and log.read_text().count("\n") >= 3:
                break
            threading.Event().wait(0.1)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 143
    newest = max((tmp_path / "out/checkpoints").glob("step-*"))
    step = json.loads((newest / "complete.json").read_text())["step"]
    assert step == len(losses(tmp_path / "out")) >= 3
    assert json.loads((tmp_path / "out/progress.json").read_text())["step"] == step


def test_a_snapshot_with_changed_files_is_refused(lake: Path) -> None:
    file = next(lake.rglob("split=train/*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"snapshot first is broken: .*parquet has \d+ bytes"):
        open_snapshot(f"{lake}@first")
    file.unlink()
    with pytest.raises(InputError, match="is gone: was the table vacuumed"):
        open_snapshot(f"{lake}@first")


def test_a_missing_snapshot_names_those_that_there_are(lake: Path) -> None:
    with pytest.raises(InputError, match="there are: first"):
        open_snapshot(f"{lake}@second")


def test_learning_rate_warms_up_and_decays() -> None:
    config = replace(TINY, steps=100, warmup_steps=10, peak_lr=1.0, min_lr=0.1)
    rates = [learning_rate(config, s, 100) for s in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert abs(rates[99] - 0.1) < 1e-9
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_snapshot_without_pictures_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no pictures to train on"):
        train(TINY, open_snapshot(f"{snapshot(images=False)}@first"), tmp_path / "out")


def test_a_frozen_tower_looks_at_each_picture_once(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, looked = open_snapshot(f"{lake}@first"), []
    real = CaptionModel.encode_images
    monkeypatch.setattr(
        CaptionModel, "encode_images", lambda model, seen: looked.append(len(seen)) or real(model, seen)
    )
    frozen = replace(TINY, freeze_vision=True, micro_batch_size=3)
    train(frozen, manifest, tmp_path / "plain")
    cached = replace(frozen, feature_cache=str(tmp_path / "features"))
    looked.clear()
    train(cached, manifest, tmp_path / "cold")
    cold = sum(looked)
    train(replace(cached, workers=2), manifest, tmp_path / "warm")
    # Nine images fill 24 rows. The broken one is encoded each time, and so are the rows that pad an uneven batch.
    assert 9 <= cold < 24
    assert sum(looked) - cold <= 4
    assert losses(tmp_path / "warm") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    assert losses(tmp_path / "cold") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    kept = [*(tmp_path / "features").rglob("*.safetensors")]
    assert len(kept) == 8
    kept[0].write_bytes(b"cut")
    with pytest.raises(InputError, match=r"is damaged .*: remove it"):
        train(cached, manifest, tmp_path / "damaged")
    train(replace(cached, seed=1), manifest, tmp_path / "another")  # the small tower's weights depend on the seed
    assert len([*(tmp_path / "features").iterdir()]) == 2


def test_what_a_cache_of_features_needs() -> None:
    with pytest.raises(InputError, match="needs freeze_vision"):
        of_settings({"trainer": {"feature_cache": "features"}})
