"""Parts that do not fit each other are refused, and captions that are cut are told of, before the first step."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.address import open_snapshot
from capsfusion_trainer.config import RECIPES, micro_cpu
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.train import train
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

TINY = replace(micro_cpu(), steps=1, global_batch_size=4, llm_width=32, vision_width=32, image_size=32, bridge_layers=1)


def test_tokenizers_that_do_not_fit_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_llama / "tokenizer_config.json").read_text())
    for name in ("mute", "large"):
        shutil.copytree(tiny_llama, tmp_path / name)
    mute = {key: value for key, value in config.items() if key != "eos_token"}
    (tmp_path / "mute/tokenizer_config.json").write_text(json.dumps(mute))
    (tmp_path / "mute/special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"has no end token \(eos_token\)"):
        CaptionModel(replace(TINY, llm_model=str(tmp_path / "mute")))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "large")
    tokenizer.add_tokens(["<a>", "<b>"])
    tokenizer.save_pretrained(tmp_path / "large")
    with pytest.raises(InputError, match=r"has \d+ tokens, the model embeds \d+: resize its embeddings"):
        CaptionModel(replace(TINY, llm_model=str(tmp_path / "large")))


def test_a_model_with_too_few_positions_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    shape = GPT2Config(vocab_size=258, n_positions=48, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(shape).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"has 48 positions, image and caption need 194: lower trainer\.max_tokens"):
        CaptionModel(replace(TINY, llm_model=str(tmp_path)))
    CaptionModel(replace(TINY, llm_model=str(tmp_path), max_tokens=14))


def test_captions_that_are_cut_are_told_of(
    snapshot: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = open_snapshot(f"{snapshot()}@first")
    train(replace(TINY, max_tokens=10, steps=1), manifest, tmp_path / "cut")
    assert "captions have more than trainer.max_tokens=10 tokens: they are cut" in capsys.readouterr().out
    train(replace(TINY, steps=1), manifest, tmp_path / "whole")
    assert "are cut" not in capsys.readouterr().out


def test_the_towers_of_the_recipes_are_timms() -> None:
    """The hub's names of open_clip's files differ, and transformers cannot load those."""
    for make in RECIPES.values():
        recipe = make()
        if recipe.vision_model is not None:
            found = timm.get_pretrained_cfg(recipe.vision_model.removeprefix("timm/"))
            assert found.hf_hub_id == recipe.vision_model
            assert found.input_size == (3, recipe.image_size, recipe.image_size)
            assert recipe.freeze_vision == (recipe.vision_lr is None)
