"""Tests of faults in training (kills, full disks, damaged checkpoints, diverging loss) and of the recovery."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from capsfusion_etl.errors import InputError, RetryError, explain
from capsfusion_etl.lake.run import Counts
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_etl.storage import as_path
from capsfusion_trainer import steps
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.data.batch import Batch
from capsfusion_trainer.train import train
from capsfusion_trainer.training.checkpoint import Checkpoints
from capsfusion_trainer.training.monitor import cut_back
from capsfusion_trainer.training.step import TrainStep
from torchrun import losses

TINY = replace(
    micro_cpu(), steps=6, global_batch_size=4, checkpoint_every=2, keep=3, llm_width=32, vision_width=32, image_size=32
)
Snapshot = Callable[..., Path]


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt training before the update number `step`, counted from 0."""
    real = TrainStep.update

    def update(train_step: TrainStep, batch: Batch, number: int) -> dict[str, Any]:
        if number == step:
            raise KeyboardInterrupt
        return real(train_step, batch, number)

    monkeypatch.setattr(TrainStep, "update", update)


def test_what_was_never_finished_takes_no_place_of_what_was(snapshot: Snapshot, tmp_path: Path) -> None:
    manifest, out = open_snapshot(f"{snapshot()}@first"), tmp_path / "out"
    (out / "checkpoints/step-000000007").mkdir(parents=True)
    train(replace(TINY, keep=1), manifest, out)
    assert [p.name for p in (out / "checkpoints").glob("step-*")] == ["step-000000006"]


@pytest.mark.parametrize("fault", ["cut", "gone", "unfinished"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    manifest, out = open_snapshot(f"{snapshot()}@first"), tmp_path / "out"
    train(TINY, manifest, tmp_path / "whole")
    stop_before(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, manifest, out)
    monkeypatch.undo()
    newest = out / "checkpoints/step-000000004"
    data = next(newest.glob("*.distcp"))
    if fault == "cut":
        data.write_bytes(data.read_bytes()[:-100])
    elif fault == "gone":
        data.unlink()
    else:
        (newest / "complete.json").unlink()
    train(TINY, manifest, out)
    assert "checkpoint step-000000004 is passed over: " in capsys.readouterr().out
    assert losses(out) == losses(tmp_path / "whole")


def test_a_full_disk_keeps_the_checkpoint_before(
    snapshot: Snapshot, small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    manifest = open_snapshot(f"{snapshot()}@first")
    train(TINY, manifest, tmp_path / "whole")
    size = sum(p.stat().st_size for p in (tmp_path / "whole/checkpoints/step-000000002").iterdir())
    disk = small_disk(int(1.6 * size))
    with pytest.raises((OSError, RuntimeError)) as caught:
        train(TINY, manifest, tmp_path / "out", str(disk / "checkpoints"))
    error = explain(caught.value)
    assert isinstance(error, RetryError)
    assert "make room" in str(error)
    assert (disk / "checkpoints/step-000000002/complete.json").is_file()
    small_disk(100 * size)
    train(TINY, manifest, tmp_path / "out", str(disk / "checkpoints"))
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def test_sigterm_in_the_middle_of_a_save(snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, out = open_snapshot(f"{snapshot()}@first"), tmp_path / "out"
    real = Checkpoints.save

    def save(checkpoints: Checkpoints, *arguments: Any) -> None:
        real(checkpoints, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(SystemExit) as caught:
        train(TINY, manifest, out)
    assert caught.value.code == 143
    monkeypatch.undo()
    newest = max((out / "checkpoints").glob("step-*"))
    assert json.loads((newest / "complete.json").read_text())["step"] == len(losses(out)) == 3
    train(TINY, manifest, tmp_path / "whole")
    train(TINY, manifest, out)
    assert losses(out) == losses(tmp_path / "whole")


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_pairs(snapshot: Snapshot, tmp_path: Path) -> None:
    manifest, out = open_snapshot(f"{snapshot()}@first"), tmp_path / "out"
    with pytest.raises(InputError, match=r"the loss is (nan|inf) at step \d+: .*astray\.json") as caught:
        train(replace(TINY, steps=50, peak_lr=1e30, min_lr=1e30), manifest, out)
    said = json.loads((out / "astray.json").read_text())
    assert len(said["pair_ids"]) == 4
    assert said["pair_ids"][0] in str(caught.value)
    assert len(losses(out)) == said["step"] - 1


def test_a_spike_stops_the_run(snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TrainStep.backward

    steps = iter(range(100))

    def backward(train_step: TrainStep, batch: Batch) -> float:
        return real(train_step, batch) * (4 if next(steps) == 40 else 1)

    monkeypatch.setattr(TrainStep, "backward", backward)
    manifest = open_snapshot(f"{snapshot()}@first")
    config = replace(TINY, steps=60, spike_factor=3.0, peak_lr=0.0, min_lr=0.0)
    spike = r"4\.\d times the median of the last 40 at step 41.*--set trainer.spike_factor=0"
    with pytest.raises(InputError, match=spike):
        train(config, manifest, tmp_path / "out")
    steps = iter([40, *range(41, 100)])  # resumed after step 40, with its losses: the same batch stops it again
    with pytest.raises(InputError, match=spike):
        train(config, manifest, tmp_path / "out")
    steps = iter([40, *range(41, 100)])
    shutil.copytree(tmp_path / "out", tmp_path / "skipping")
    train(replace(config, spike_factor=0.0), manifest, tmp_path / "out")
    assert len(losses(tmp_path / "out")) == 60
    steps = iter(range(41, 100))  # the batch of step 41 is not learned
    with pytest.raises(InputError, match="--skip-step 40: the checkpoint of step 40 has learned it"):
        train(config, manifest, tmp_path / "skipping", skip=[40])
    with pytest.raises(InputError, match="--skip-step 61: the run has 60 steps"):
        train(config, manifest, tmp_path / "skipping", skip=[61])
    train(config, manifest, tmp_path / "skipping", skip=[41])
    assert len(losses(tmp_path / "skipping")) == 59
    complete = json.loads((tmp_path / "skipping/complete.json").read_text())
    assert (complete["skipped_steps"], complete["pairs_seen"], complete["step"]) == ([41], 59 * 4, 60)
    train(config, manifest, tmp_path / "skipping", skip=[41])  # the same command again
    with pytest.raises(InputError, match=r"--skip-step 7: the run in .* is finished and has learned it"):
        train(config, manifest, tmp_path / "skipping", skip=[7])


def test_a_checkpoint_knows_what_its_run_skips(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, place = open_snapshot(f"{snapshot()}@first"), str(tmp_path / "store")
    stop_before(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, manifest, tmp_path / "pod-1", place, skip=[2, 6])
    monkeypatch.undo()
    train(TINY, manifest, tmp_path / "pod-2", place, skip=[2, 6])  # the same command on another machine
    assert [json.loads(line)["step"] for line in (tmp_path / "pod-1/metrics.jsonl").read_text().splitlines()] == [
        1,
        3,
        4,
    ]
    assert [json.loads(line)["step"] for line in (tmp_path / "pod-2/metrics.jsonl").read_text().splitlines()] == [5]
    assert json.loads((tmp_path / "pod-2/complete.json").read_text())["skipped_steps"] == [2, 6]
    assert json.loads((tmp_path / "pod-2/progress.json").read_text())["step"] == 6


def test_batches_without_a_single_picture_teach_nothing_and_stop_nothing(snapshot: Snapshot, tmp_path: Path) -> None:
    manifest = open_snapshot(f"{snapshot(9, broken=tuple(range(9)), group=3)}@first")
    train(TINY, manifest, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert {(line["loss"], line["tokens"], line["grad_norm"]) for line in lines} == {(0.0, 0, 0.0)}
    assert all(len(line["unreadable"]) == line["pairs"] for line in lines)


@pytest.mark.parametrize("scheme", ["file", "s3"])
def test_snapshot_and_checkpoints_at_urls(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, scheme: str
) -> None:
    bucket = request.getfixturevalue("s3") / "bucket" if scheme == "s3" else tmp_path / "bucket"
    url = "s3://bucket" if scheme == "s3" else f"file://{bucket}"
    lake, out = snapshot(), tmp_path / "out"
    local = open_snapshot(f"{lake}@first")
    train(TINY, local, tmp_path / "whole")
    shutil.move(lake, bucket / "lake")
    (bucket / "lake/_capsfusion/snapshots/first.json").write_text(
        replace(local, table=f"{url}/lake/training_pairs").text()
    )
    manifest = open_snapshot(f"{url}/lake@first")
    with monkeypatch.context() as patch:
        stop_before(5, patch)
        with pytest.raises(KeyboardInterrupt):
            train(replace(TINY, keep=1), manifest, out, f"{url}/july")
    assert [p.name for p in (bucket / "july").iterdir()] == ["step-000000004"]
    train(TINY, manifest, out, f"{url}/july")
    assert losses(out) == losses(tmp_path / "whole")
    assert not (out / "checkpoints").exists()
    train(TINY, manifest, tmp_path / "again", f"{url}/july")  # as if on another machine
    made = {str(p.relative_to(out / "model")): p.read_bytes() for p in (out / "model").rglob("*") if p.is_file()}
    kept = bucket / "july" / "model"
    assert {str(p.relative_to(kept)): p.read_bytes() for p in kept.rglob("*") if p.is_file()} == made


def test_a_run_over_a_lake_in_a_store_keeps_its_checkpoints_there(snapshot: Snapshot, tmp_path: Path, s3: Path) -> None:
    manifest = open_snapshot(f"{snapshot()}@first")
    counts = Counts()
    lake = SimpleNamespace(folder=as_path("s3a://bucket/mine/_capsfusion"), local_folder=tmp_path / "work")
    run = SimpleNamespace(lake=lake, stage=lambda _: nullcontext(counts))
    small = {
        name: getattr(TINY, name) for name in ("steps", "global_batch_size", "llm_width", "vision_width", "image_size")
    }
    step = steps.train({"trainer": {"recipe": "micro_cpu", **small}})
    step(run, manifest)  # type: ignore[arg-type]
    assert (counts.rows_in, counts.rows_out) == (24, 24)
    there = s3 / "bucket/mine/_capsfusion/checkpoints/first"
    assert {p.name for p in there.iterdir()} == {"step-000000006", "model"}
    written = (there / "model/capsfusion.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "work")  # as if on another driver
    step(run, manifest)  # type: ignore[arg-type]
    assert (counts.rows_out, counts.note) == (0, "6 steps, made on another machine")
    assert (tmp_path / "work/checkpoints/first/model/capsfusion.json").is_file()
    assert (there / "model/capsfusion.json").stat().st_mtime_ns == written


def test_metrics_that_begin_on_another_machine_are_cut_by_their_steps(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(f'{{"step": {n}}}\n' for n in (5, 6, 7, 8)) + '{"st')
    cut_back(log, 6)
    assert log.read_text() == '{"step": 5}\n{"step": 6}\n'


def test_checkpoints_of_another_run_are_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    manifest = open_snapshot(f"{snapshot()}@first")
    train(TINY, manifest, tmp_path / "one", str(tmp_path / "checkpoints"))
    with pytest.raises(InputError, match="holds checkpoints of a run with other settings or data"):
        train(replace(TINY, seed=1), manifest, tmp_path / "two", str(tmp_path / "checkpoints"))
