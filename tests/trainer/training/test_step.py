"""Tests of a step: micro-batches by length, weight decay, rates, recomputation, sharding with copies."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import micro_cpu, of_settings
from capsfusion_trainer.data.batch import PADDING, Batch
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.train import train
from capsfusion_trainer.training.distributed import init_distributed
from capsfusion_trainer.training.export import load
from capsfusion_trainer.training.optimizer import adamw, set_rate
from capsfusion_trainer.training.step import TrainStep
from torchrun import alone, command, losses

TINY = replace(micro_cpu(), steps=3, global_batch_size=8, llm_width=32, vision_width=32, image_size=32)
Snapshot = Callable[..., Path]


def batch(lengths: list[int]) -> Batch:
    torch.manual_seed(1)
    tokens = torch.full((len(lengths), max(lengths)), PADDING)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(3, 250, (length,))
    images = torch.randint(0, 255, (len(lengths), 3, 32, 32), dtype=torch.uint8)
    return Batch([str(i) for i in range(len(lengths))], images, tokens, torch.ones(len(lengths)))


@pytest.mark.parametrize("compiled", [False, True])
def test_micro_batches_are_as_long_as_their_captions(compiled: bool) -> None:
    mixed = batch([3, 40, 5, 33, 4, 37, 6, 35])
    with init_distributed(60) as world:
        whole = TrainStep(TINY, world, 3)
        step = TrainStep(replace(TINY, micro_batch_size=4), world, 3)
        step.config = replace(step.config, compile=compiled)
        pieces = list(step.pieces(mixed))
        assert [piece.pair_ids for piece in pieces] == [["0", "4", "2", "6"], ["3", "7", "5", "1"]]
        assert [piece.tokens.shape[1] for piece in pieces] == ([16, 48] if compiled else [6, 40])
        assert step.backward(mixed) == pytest.approx(whole.backward(mixed), abs=1e-6)
        for ours, theirs in zip(step.trained, whole.trained, strict=True):
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)
        assert step.update(mixed, 0)["padding"] == pytest.approx(1 - 163 / (4 * sum(p.tokens.shape[1] for p in pieces)))


def test_matrices_decay_and_the_tower_has_a_rate_of_its_own() -> None:
    config = replace(TINY, vision_lr=1e-4, peak_lr=1e-3)
    model = CaptionModel(config)
    optimizer = adamw(model, config)
    set_rate(optimizer, 5e-4, config)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {names[id(w)]: group for group in optimizer.param_groups for w in group["params"]}
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, decay, rate in [
        ("vision.embeddings.cls_token", None, 5e-5), ("vision.layernorm.weight", 0.0, 5e-5),
        ("llm.lm_head.weight", 0.05, 5e-4), ("llm.model.norm.weight", 0.0, 5e-4), ("bridge.out.bias", 0.0, 5e-4),
        ("bridge.queries", 0.0, 5e-4), ("markers", 0.0, 5e-4), ("bridge.out.weight", 0.05, 5e-4),
    ]:  # fmt: skip
        assert decay in (None, found[name]["weight_decay"]), name
        assert found[name]["lr"] == pytest.approx(rate), name
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)


@pytest.mark.parametrize("how", ["selective", "all"])
def test_what_is_recomputed_changes_nothing(snapshot: Snapshot, tmp_path: Path, how: str) -> None:
    manifest = open_snapshot(f"{snapshot()}@first")
    train(TINY, manifest, tmp_path / "plain")
    train(replace(TINY, recompute=how), manifest, tmp_path / "out")
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "plain"), abs=1e-6)
    ours, theirs = (load(tmp_path / name / "model").state_dict() for name in ("out", "plain"))
    assert ours.keys() == theirs.keys()


def test_a_run_goes_on_sharded(snapshot: Snapshot, tmp_path: Path) -> None:
    """Sharding is no part of the result: another number of GPUs may need it."""
    lake = snapshot(21)
    one = alone(lake, tmp_path / "one")
    alone(lake, tmp_path / "out", steps=6)
    (tmp_path / "out/complete.json").unlink()
    newest = max((tmp_path / "out/checkpoints").glob("step-*"))
    (newest / "complete.json").unlink()
    done = subprocess.run(command(lake, tmp_path / "out", 2, shard=True), check=False, timeout=300)
    assert done.returncode == 0
    assert losses(tmp_path / "out") == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recompute": "some"}, "must be none, selective or all"),
        ({"vision_lr": 1e-4, "freeze_vision": True}, "vision_lr: needs freeze_vision=false"),
        ({"shard_size": 2}, "shard_size: needs shard=true"),
        ({"bridge_width": 100, "bridge_heads": 3}, "100 is no multiple of bridge_heads=3"),
        ({"llm_width": 30}, "llm_width: 30 is no multiple of heads=4"),
        ({"image_size": 8}, "8 pixels are less than a patch of 16"),
        ({"micro_batch_size": -1}, "micro_batch_size: must be 1 or more, got -1"),
        ({"steps": 0}, "steps: must be 1 or more"),
        ({"peak_lr": float("inf")}, "peak_lr: must be 0 or more, got inf"),
        ({"peak_lr": float("nan")}, "peak_lr"),
        ({"clip_norm": -1.0}, "clip_norm: must be more than 0"),
        ({"epochs": 0.0}, "epochs: must be more than 0"),
        ({"workers": -1}, "workers: must be 0 or more"),
        ({"heads": 0}, "heads: must be 1 or more"),
        ({"beta2": 1.0}, "must be below 1"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        of_settings({"trainer": settings})


def test_a_step_writes_its_padding(snapshot: Snapshot, tmp_path: Path) -> None:
    train(TINY, open_snapshot(f"{snapshot()}@first"), tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["padding"] < 1 for line in lines)
