"""Tests of the model: the bridge against T5's formulas, third-party towers and language models, export and load."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import TrainerConfig, micro_cpu, of_settings
from capsfusion_trainer.data.batch import PADDING
from capsfusion_trainer.evaluation.held_out import evaluate
from capsfusion_trainer.model.bridge import Bridge
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.model.decoding import Decoding
from capsfusion_trainer.train import train
from capsfusion_trainer.training.export import load
from capsfusion_trainer.training.monitor import operations
from torch import Tensor
from towers import clip

TINY = replace(
    micro_cpu(), steps=2, global_batch_size=4, llm_width=32, vision_width=32, image_size=32, bridge_layers=1
)  # fmt: skip


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float) -> Tensor:
    """Return T5's attention, whose scores are not scaled."""
    return (query @ key.transpose(-1, -2) + bias).softmax(-1) @ value


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def test_a_block_of_the_bridge_is_t5s() -> None:
    """Raffel et al. 2020: RMS pre-norm, no biases, ReLU, relative positions only in self-attention.

    Keys and values of the cross-attention come from the tower's width, as in Emu.
    """
    torch.manual_seed(0)
    heads, count = 4, 8
    bridge = Bridge(vision_width=20, llm_width=48, queries=count, layers=1, heads=heads, width=32).eval()
    features = torch.randn(2, 5, 20)
    w = dict(bridge.decoder.named_parameters())
    at = "block.0.layer.{}.{}.{}.weight"

    def attended(x: Tensor, source: Tensor, layer: int, kind: str, bias: Tensor | float) -> Tensor:
        q, k, v = (
            split(s @ w[at.format(layer, kind, n)].T, heads) for n, s in (("q", x), ("k", source), ("v", source))
        )
        return attention(q, k, v, bias).transpose(1, 2).flatten(2) @ w[at.format(layer, kind, "o")].T

    distances = (torch.arange(count)[:, None] - torch.arange(count)).clamp(min=0)  # below 16 each has a bucket
    bias = w["block.0.layer.0.SelfAttention.relative_attention_bias.weight"][distances].permute(2, 0, 1)[None]
    bias = bias + torch.full((count, count), -math.inf).triu(1)
    x = bridge.queries.expand(2, -1, -1)
    seen = torch.nn.functional.layer_norm(features, (20,), bridge.norm.weight, bridge.norm.bias)
    normed = rms(x, w["block.0.layer.0.layer_norm.weight"])
    x = x + attended(normed, normed, 0, "SelfAttention", bias)
    x = x + attended(rms(x, w["block.0.layer.1.layer_norm.weight"]), seen, 1, "EncDecAttention", 0.0)
    inner = rms(x, w["block.0.layer.2.layer_norm.weight"])
    inner = (inner @ w["block.0.layer.2.DenseReluDense.wi.weight"].T).relu()
    x = x + inner @ w["block.0.layer.2.DenseReluDense.wo.weight"].T
    expected = bridge.out(rms(x, w["final_layer_norm.weight"]))
    assert torch.allclose(bridge(features), expected, atol=1e-5)


def test_the_bridge_is_causal() -> None:
    torch.manual_seed(0)
    bridge = Bridge(vision_width=32, llm_width=48, queries=8, layers=2, heads=4).eval()
    features = torch.randn(1, 5, 32)
    before = bridge(features)
    with torch.no_grad():
        bridge.queries[-1] += 1.0
    after = bridge(features)
    assert torch.allclose(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_an_exported_model_is_the_trained_one(
    snapshot: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[CaptionModel] = []
    from capsfusion_trainer import train as loop

    real = loop.export
    monkeypatch.setattr(loop, "export", lambda spread, model, *rest: (kept.append(model), real(spread, model, *rest)))
    train(TINY, open_snapshot(f"{snapshot()}@first"), tmp_path / "out")
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.tensor([[70, 71, 1], [80, 1, PADDING]])
    ours, theirs = kept[0].eval(), load(tmp_path / "out/model")
    assert torch.allclose(
        ours.logits(ours.prefix(images), tokens), theirs.logits(theirs.prefix(images), tokens), atol=1e-5
    )
    assert ours.generate(images) == theirs.generate(images)


def test_padding_and_unreadable_pictures_count_nothing() -> None:
    torch.manual_seed(0)
    model = CaptionModel(TINY).eval()
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    short = model(images[:1], torch.tensor([[70, 1]]), torch.ones(1))
    both = model(images, torch.tensor([[70, 1, PADDING], [80, 81, 1]]), torch.tensor([1.0, 0.0]))
    assert torch.allclose(both[0], short[0], atol=1e-5)
    assert both[1] == 0


def test_frozen_parts_in_bfloat16_caption_and_evaluate(
    tiny_llama: Path, snapshot: Callable[..., Path], tmp_path: Path
) -> None:
    clip(tmp_path / "tower")
    config = of_settings(
        {
            "trainer": {
                "vision_model": str(tmp_path / "tower"), "llm_model": str(tiny_llama), "bf16": True, "steps": 2,
                "freeze_vision": True, "freeze_llm": True, "global_batch_size": 4, "bridge_layers": 1,
            }
        }
    )  # fmt: skip
    assert config.image_size is None  # the tower's own, not that of micro_cpu
    manifest = open_snapshot(f"{snapshot()}@first")
    train(config, manifest, tmp_path / "out")
    model = load(tmp_path / "out/model")
    assert {model.vision.dtype, model.llm.dtype} == {torch.bfloat16}
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    assert len(model.generate(images, Decoding.free(model, max_new_tokens=4))) == 2
    assert evaluate(manifest, tmp_path / "out")["pairs"] == 2


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"trainer\.llm_model: cannot load"):
        CaptionModel(replace(TINY, llm_model=str(tmp_path / "none")))
    with pytest.raises(InputError, match="there is no model in"):
        load(tmp_path)


def test_operations_follow_the_formula() -> None:
    model = CaptionModel(TINY)
    model.prefix(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    n = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in ("vision", "bridge", "llm")}
    # 2 pairs, 10 tokens: (32 / 16)^2 + 1 patches, 32 queries and 2 markers per image
    n["llm"] -= model.llm.get_input_embeddings().weight.numel()  # looked up, not multiplied
    assert operations(model, 2, 10) == 6 * (n["vision"] * 5 * 2 + n["bridge"] * 64 + n["llm"] * 78)
    model.config = replace(TINY, freeze_vision=True, freeze_llm=True)
    assert operations(model, 2, 10) == 2 * n["vision"] * 10 + 6 * n["bridge"] * 64 + 4 * n["llm"] * 78


def test_recipes_and_settings() -> None:
    assert of_settings({"trainer": {"steps": 7}}) == replace(micro_cpu(), steps=7)
    paper = of_settings({"trainer": {"recipe": "emu_7b_100m"}})
    assert (paper.warmup_steps, paper.global_batch_size, paper.peak_lr, paper.min_lr) == (2000, 8192, 3e-4, 3e-5)
    assert isinstance(paper, TrainerConfig)
    with pytest.raises(InputError, match=r"trainer\.step: unknown key"):
        of_settings({"trainer": {"step": 7}})
    with pytest.raises(InputError, match=r"trainer\.keep: must be 1 or more"):
        of_settings({"trainer": {"keep": 0}})
