"""Test that towers in every format that people have train, export and load, or are refused by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import micro_cpu
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.train import train
from capsfusion_trainer.training.export import load
from towers import clip, convolutional, resnet, siglip, timm, vit

TINY = replace(micro_cpu(), steps=2, global_batch_size=4, llm_width=32, vision_width=32, image_size=32, bridge_layers=1)


@pytest.mark.parametrize("tower", [vit, clip, timm, siglip, convolutional, resnet])
def test_models_of_others_train_export_and_load(
    tower: Callable[[Path], None], tiny_llama: Path, snapshot: Callable[..., Path], tmp_path: Path
) -> None:
    tower(tmp_path / "tower")
    config = replace(
        TINY, vision_model=str(tmp_path / "tower"), llm_model=str(tiny_llama), image_size=None, freeze_vision=True,
        freeze_llm=True, max_tokens=40, peak_lr=1e-2, warmup_steps=1, steps=3,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    before = CaptionModel(config)
    assert before.image_size == 32
    train(config, open_snapshot(f"{snapshot()}@first"), tmp_path / "out")
    after = load(tmp_path / "out/model")
    changed = {
        name.partition(".")[0]
        for name, w in after.state_dict().items()
        if not torch.equal(w, before.state_dict()[name])
    }
    assert changed == {"bridge", "markers"}
    assert torch.equal(after.mean, before.mean)


def test_a_trained_tower_of_others_learns(tiny_llama: Path, snapshot: Callable[..., Path], tmp_path: Path) -> None:
    vit(tmp_path / "tower")
    config = replace(
        TINY, vision_model=str(tmp_path / "tower"), llm_model=str(tiny_llama), image_size=None, freeze_llm=True,
        vision_lr=1e-3, bridge_width=64, max_tokens=40,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    before = CaptionModel(config)
    train(config, open_snapshot(f"{snapshot()}@first"), tmp_path / "out")
    after = load(tmp_path / "out/model")
    assert after.bridge.queries.shape == (32, 64)
    pairs = zip(before.vision.named_parameters(), after.vision.parameters(), strict=True)
    assert all(not torch.equal(one, other) for (name, one), other in pairs if name.endswith("attention.dense.weight"))


def test_files_of_open_clip_are_refused_with_the_name_to_use(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds open_clip's files only: use the same tower in timm's"):
        CaptionModel(replace(TINY, vision_model=str(tmp_path)))
    wrong = "timm/eva_giant_patch14_clip_224.laion400m_s11b_b41k"
    with pytest.raises(InputError, match=r"did you mean timm/eva_giant_patch14_clip_224\.laion400m\?"):
        CaptionModel(replace(TINY, vision_model=wrong))
