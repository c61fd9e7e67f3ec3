"""The two models that the study needs before it begins: the captioner, and a language model that knows only texts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import grammars
import torch
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json
from capsfusion_trainer.compare.tokenizer import shared_tokenizer
from capsfusion_trainer.config import TrainerConfig, of_settings
from capsfusion_trainer.data.snapshot import Split
from capsfusion_trainer.evaluation.captions import described
from capsfusion_trainer.model.decoding import Decoding
from capsfusion_trainer.train import train
from capsfusion_trainer.training.export import load
from material import captioner_scenes, write_pictures
from rows import publish
from sizes import TRAINER, VOCABULARY, Study
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

_BATCH, _RATE = 64, 1e-3


def config_of(folder: Path, **more: object) -> TrainerConfig:
    """Return the settings that all models share; features of pictures are computed once for all of them."""
    return of_settings({"trainer": TRAINER | {"feature_cache": str(folder / "features")} | more})


def captioner(study: Study, folder: Path) -> Path:
    """Train the captioner on clean sentences about scenes of its own; return the folder of its model.

    It sees no name, and none of the kinds in `world.UNSEEN_KINDS`.
    """
    scenes, chance = captioner_scenes(study), Random("clean sentences")
    pictures = write_pictures(scenes, folder / "captioner" / "pictures")
    rows = (
        (sha256(str(number).encode()).hexdigest(), path.read_bytes(), grammars.clean(scene, chance))
        for number, (scene, path) in enumerate(zip(scenes, pictures, strict=True))
    )
    manifest = publish(folder / "captioner" / "lake", "clean", rows)
    tokenizer = shared_tokenizer([manifest], folder / "captioner" / "tokenizer", VOCABULARY)
    own = {"steps": study.captioner_steps, "global_batch_size": 64, "peak_lr": 2e-3, "min_lr": 2e-4}
    config = config_of(folder, tokenizer=str(tokenizer), **own)
    train(config, manifest, folder / "captioner" / "run")
    return folder / "captioner" / "run" / "model"


def synthetic_captions(study: Study, folder: Path, pictures: Sequence[Path]) -> list[str]:
    """Return the captioner's caption of each picture; they are kept in synthetic.json."""
    target = folder / "synthetic.json"
    if not target.is_file():
        loaded = load(captioner(study, folder))
        said = [str(text) for _, text in described(loaded, pictures, Decoding.free(loaded))]
        write_json(target, said)
    found: list[str] = json.loads(target.read_text(encoding="utf-8"))
    return found


def language_model(study: Study, manifests: Sequence[Manifest], folder: Path) -> Path:
    """Train a small language model on the captions of all strategies, without pictures; return its folder."""
    target = folder / "llm"
    if target.is_dir():
        return target
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shared_tokenizer(manifests, folder / "tokenizer", VOCABULARY))
    torch.manual_seed(0)
    config = config_of(folder)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=config.llm_width, num_hidden_layers=config.llm_layers,
        num_attention_heads=config.heads, intermediate_size=2 * config.llm_width, bos_token_id=None,
        max_position_embeddings=config.queries + config.max_tokens + 8, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, study.llm_steps)
    for texts in _batches(manifests, study.llm_steps):
        whole = [f"{tokenizer.eos_token}{text}{tokenizer.eos_token}" for text in texts]  # it learns how texts begin
        rows = tokenizer(whole, padding=True, truncation=True, max_length=config.max_tokens, return_tensors="pt")
        labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
        loss = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    print(f"language model: loss {float(loss.detach()):.3f} after {study.llm_steps} steps", flush=True)
    part = folder / "llm.part"
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(target)
    return target


def _batches(manifests: Sequence[Manifest], steps: int) -> Iterator[list[str]]:
    texts = [sample.caption or "" for manifest in manifests for sample in Split(manifest, "train")]
    chance = Random("texts")
    for _ in range(steps):
        yield chance.choices(texts, k=_BATCH)


def frozen_and_fired(folder: Path, llm: Path) -> dict[str, TrainerConfig]:
    """Return the settings of the models that are compared: the language model frozen, and trained as well."""
    frozen = config_of(folder, llm_model=str(llm), freeze_llm=True)
    return {"frozen": frozen, "fired": replace(frozen, freeze_llm=False)}
