import io
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.manifest import GateResult, Manifest, describe_files
from capsfusion_trainer import train as loop
from capsfusion_trainer.config import micro_cpu, of_settings
from capsfusion_trainer.evaluate import evaluate
from capsfusion_trainer.model import CaptionModel
from capsfusion_trainer.snapshot import Rows, open_snapshot
from capsfusion_trainer.train import learning_rate, train
from deltalake import DeltaTable, write_deltalake
from PIL import Image

TINY = replace(
    micro_cpu(), steps=6, global_batch_size=4, checkpoint_every=2, llm_width=32, vision_width=32, image_size=32
)


def picture(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (value, 255 - value, 128)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A snapshot of eleven pairs, one of them with a broken picture, two of them held out."""
    rows = [
        {
            "pair_id": f"{i:064x}",
            "image_id": str(i),
            "image": b"broken" if i == 3 else picture(20 * i),
            "caption": f"Picture {i} of the Oslo Book Fair.",
            "caption_from": "fused",
            "strategy": "fused",
            "split": "held_out" if i > 8 else "train",
        }
        for i in range(11)
    ]
    table = tmp_path / "lake" / "training_pairs"
    write_deltalake(table, pa.Table.from_pylist(rows))
    delta = DeltaTable(table)
    files = describe_files(str(table), pa.table(delta.get_add_actions(flatten=True)).column("path").to_pylist())
    gate = GateResult(True, 1, (), "report")
    manifest = Manifest("first", str(table), str(delta.metadata().id), 0, 11, tuple(rows[0]), files, gate)
    path = tmp_path / "lake" / "_capsfusion" / "snapshots" / "first.json"
    path.parent.mkdir(parents=True)
    path.write_text(manifest.text())
    return tmp_path / "lake"


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_training_learns_reports_and_evaluates(lake: Path, tmp_path: Path) -> None:
    manifest, out = open_snapshot(f"{lake}@first"), tmp_path / "out"
    last = train(replace(TINY, steps=30), manifest, out)
    assert last["step"] == 30
    assert losses(out)[-1] < losses(out)[0] - 2.0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {p for line in lines for p in line.get("unreadable", [])} == {f"{3:064x}"}
    result = evaluate(manifest, out)
    assert result["pairs"] == 2
    assert result["loss"] < result["untrained_loss"]
    assert len(result["captions"]) == 2


def test_a_resumed_run_is_the_uninterrupted_one(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = open_snapshot(f"{lake}@first")
    train(TINY, manifest, tmp_path / "whole")
    real = loop._step

    def stop_at_five(*arguments: object) -> dict[str, object]:
        if arguments[-1] == 5:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_step", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, manifest, tmp_path / "parts")
    monkeypatch.setattr(loop, "_step", real)
    train(TINY, manifest, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


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
    step = torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)["step"]
    assert step == len(losses(tmp_path / "out")) >= 3


def test_a_snapshot_with_changed_files_is_refused(lake: Path) -> None:
    file = next(lake.glob("training_pairs/*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"snapshot first is broken: .*parquet has \d+ bytes"):
        open_snapshot(f"{lake}@first")
    file.unlink()
    with pytest.raises(InputError, match="is gone: was the table vacuumed"):
        open_snapshot(f"{lake}@first")


def test_a_missing_snapshot_names_those_that_there_are(lake: Path) -> None:
    with pytest.raises(InputError, match="there are: first"):
        open_snapshot(f"{lake}@second")


def test_rows_of_a_split_are_in_the_order_of_their_id(lake: Path) -> None:
    rows = Rows(open_snapshot(f"{lake}@first"), "train")
    assert [int(rows[i].pair_id, 16) for i in range(len(rows))] == list(range(9))


def test_an_epoch_visits_every_row_once() -> None:
    assert sorted(loop._order(0, 3, 50)) == list(range(50))
    assert list(loop._order(0, 3, 50)) != list(loop._order(0, 4, 50))


def test_the_bridge_is_causal() -> None:
    torch.manual_seed(0)
    bridge = CaptionModel(TINY).bridge.eval()
    features = torch.randn(1, 5, TINY.vision_width)
    before = bridge(features)
    with torch.no_grad():
        bridge.queries[-1] += 1.0
    after = bridge(features)
    assert torch.allclose(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_learning_rate_warms_up_and_decays() -> None:
    config = replace(TINY, steps=100, warmup_steps=10, peak_lr=1.0, min_lr=0.1)
    rates = [learning_rate(config, s) for s in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert abs(rates[99] - 0.1) < 1e-9
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_recipes_and_settings() -> None:
    assert of_settings({"trainer": {"steps": 7}}) == replace(micro_cpu(), steps=7)
    with pytest.raises(InputError, match=r"trainer\.step: unknown key"):
        of_settings({"trainer": {"step": 7}})
