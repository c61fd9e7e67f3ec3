"""Fine-tune with TRL and PEFT: loss on the completion only, resumable; a marker file is written last."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from accelerate.utils import enable_fsdp_ram_efficient_loading
from capsfusion_etl.engines.generation.weights import adapter_folder
from capsfusion_etl.errors import InputError
from capsfusion_etl.prompts import load_template, render
from capsfusion_etl.snapshots.manifest import sha256_of
from capsfusion_etl.storage import remove, write_json
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig, SFTTrainer

from capsfusion_trainer.refine.card import write_card
from capsfusion_trainer.refine.config import RefineConfig
from capsfusion_trainer.refine.selection import METRIC, SelectingTrainer
from capsfusion_trainer.refine.swaps import with_swaps
from capsfusion_trainer.refine.triplets import Triplet, is_held_out, read_triplets, teachable

MARKER = "refined.json"
CLAIM = "claim.json"


def refine(triplets: str, base: str, config: RefineConfig, out: Path) -> dict[str, Any]:
    """Fine-tune `base` (hub name or folder) on triplets and write the model to `out`; return the marker file's content.

    A stopped run resumes from its last checkpoint; a finished run is not repeated.

    Raises:
        InputError: The judge leaves too few triplets, the triplets or the base cannot be loaded, or `out` belongs to
            another base, other triplets or other settings.
    """
    marker, rows = out / MARKER, read_triplets(triplets)
    given = _given(base, rows, config)
    _refuse_another(out, given)
    if marker.is_file():
        return _read_json(marker)
    kept, left = teachable(rows, config.min_recall)
    tokenizer = _load(AutoTokenizer, base) if kept else None
    kept = _short_enough(kept, left, tokenizer, config)
    train = [t for t in kept if not is_held_out(t, config.held_out)][: config.max_rows]
    held_out = [t for t in kept if is_held_out(t, config.held_out)][: config.evaluate_rows]
    if not train or not held_out:
        raise InputError(f"{triplets}: {len(kept)} triplets are fit to learn from, too few; left out: {dict(left)}")
    examples = train
    if config.swaps:
        examples = _short_enough(with_swaps(train, config.seed), Counter(), tokenizer, config)
    trainer = _trainer(base, tokenizer, config, out, examples, held_out)
    if trainer.is_world_process_zero():
        write_json(out / CLAIM, given)  # only now: a run that cannot begin leaves the folder free
    trainer.accelerator.wait_for_everyone()
    trainer.train(resume_from_checkpoint=last_checkpoint(out))
    model = _save(trainer, out)
    result = {
        "base": base,
        "triplets": len(train),
        "held_out": len(held_out),
        "left_out": dict(left),
        "chosen_by": METRIC if config.choose_by == "kept" else "eval_loss",
        "best": trainer.state.best_metric,
        "steps": trainer.state.global_step,
        "config": asdict(config),
        "files": {p.name: sha256_of(p) for p in sorted(model.glob("*.safetensors"))},
    }
    if trainer.is_world_process_zero():
        (out / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in trainer.state.log_history))
        write_card(model, result)
        write_json(marker, result)
    return result


def last_checkpoint(out: Path) -> str | None:
    """Return the last complete checkpoint. One that a kill or a full disk cut short lacks the state, written last."""
    steps = {int(p.name.rpartition("-")[2]): p for p in out.glob("checkpoint-*")}
    for _, folder in sorted(steps.items(), reverse=True):
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def _save(trainer: SFTTrainer, out: Path) -> Path:
    """Write the weights to `out/model` atomically and return that folder: all ranks gather, the first writes."""
    part, model, first = out / "part", out / "model", trainer.is_world_process_zero()
    if first:
        remove(part, within=out)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_fsdp_enabled:
        _save_gathered(trainer, part)
    else:
        trainer.save_model(str(part))
    if first:
        remove(model, within=out)
        part.rename(model)
    trainer.accelerator.wait_for_everyone()
    return model


def _save_gathered(trainer: Any, folder: Path) -> None:
    """Write sharded weights as one model in the precision of the base; training holds them in float32."""
    trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        model, dtype = trainer.accelerator.unwrap_model(trainer.model_wrapped), trainer.model.config.dtype
        model.save_pretrained(folder, state_dict={name: weight.to(dtype) for name, weight in weights.items()})
        trainer.processing_class.save_pretrained(folder)


def _given(base: str, rows: list[Triplet], config: RefineConfig) -> dict[str, Any]:
    """Return what names a run: base, with the hashes of its files; hash of the triplets; settings."""
    texts = hashlib.sha256(json.dumps([astuple(row) for row in rows]).encode()).hexdigest()
    files = sorted(p for p in Path(base).glob("*") if p.suffix in (".safetensors", ".bin", ".gguf", ".json"))
    weights = [base, *(f"{p.name} {sha256_of(p)}" for p in files)]
    given: dict[str, Any] = json.loads(json.dumps({"base": weights, "triplets": texts, "config": asdict(config)}))
    return given


def _refuse_another(out: Path, given: dict[str, Any]) -> None:
    """Refuse the folder of another run.

    Raises:
        InputError: `out` belongs to a run that was given something else.
    """
    claim = out / CLAIM
    if not claim.is_file() and (out / MARKER).is_file():
        raise InputError(f"{out} holds a model, but not what it was made of ({CLAIM}): choose another --out")
    there = _read_json(claim) if claim.is_file() else given
    if isinstance(there.get("base"), str):  # of an earlier version, which kept the name alone
        there["base"] = [there["base"], *given["base"][1:]]
    there["config"] = given["config"] | there.get("config", {})
    if changed := [name for name in given if there.get(name) != given[name]]:
        raise InputError(
            f"{out} belongs to a run with another {' and another '.join(changed)}: choose another --out, or remove it"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is damaged: remove {path.parent}, or choose another --out") from None
    return found


def _load(kind: Any, base: str, **arguments: Any) -> Any:
    """Return what `kind` loads of the base model.

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        return kind.from_pretrained(base, **arguments)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the base model {base}: {str(error).splitlines()[0]}") from None


def _short_enough(triplets: list[Triplet], left: Counter[str], tokenizer: Any, config: RefineConfig) -> list[Triplet]:
    """Return the triplets whose prompt and completion fit into `max_tokens`; count the others as `too_long`."""
    texts = (f"{row['prompt']}{row['completion']}" for row in as_dataset(triplets, config.prompt))
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    kept = [t for t, length in zip(triplets, lengths, strict=True) if length < config.max_tokens]  # and the end token
    if len(kept) < len(triplets):
        left["too_long"] = len(triplets) - len(kept)
    return kept


def _trainer(
    base: str, tokenizer: Any, config: RefineConfig, out: Path, train: list[Triplet], held_out: list[Triplet]
) -> SFTTrainer:
    arguments = _arguments(config, out)  # first: it joins the ranks, of which one of each node loads the weights
    if config.fsdp and not arguments.use_cpu and dist.is_initialized():
        enable_fsdp_ram_efficient_loading()
    model = _load(AutoModelForCausalLM, base, dtype="bfloat16" if config.bf16 else "float32")
    if config.adapter is not None:
        try:
            model = PeftModel.from_pretrained(model, str(adapter_folder(config.adapter)), is_trainable=True)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"adapter {config.adapter} does not fit {base}: {str(error).splitlines()[0]}") from None
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=config.lora_dropout,
        target_modules="all-linear", task_type="CAUSAL_LM",
    ) if config.lora_rank and config.adapter is None else None  # fmt: skip
    return SelectingTrainer(
        triplets=held_out if config.choose_by == "kept" else (),
        prompt=config.prompt,
        max_new_tokens=config.max_tokens // 2,
        model=model,
        args=arguments,
        train_dataset=as_dataset(train, config.prompt),
        eval_dataset=as_dataset(held_out, config.prompt),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[EarlyStoppingCallback(config.patience)],
    )


def as_dataset(triplets: list[Triplet], prompt: str) -> Dataset:
    """Return a dataset of `prompt` and `completion`, as TRL expects; TRL adds the end token to each completion."""
    template = load_template(prompt)
    return Dataset.from_list(
        [
            {
                "prompt": render(template, t.raw_caption, t.synthetic_caption),
                "completion": f" {t.fused_caption.strip()}",
            }
            for t in triplets
        ]
    )


def _arguments(config: RefineConfig, out: Path) -> SFTConfig:
    micro, times = config.divided(int(os.environ.get("WORLD_SIZE", "1")))
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=times,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_share,
        max_length=config.max_tokens,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=config.evaluate_every,
        save_steps=config.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=METRIC if config.choose_by == "kept" else "eval_loss",
        greater_is_better=config.choose_by == "kept",
        logging_steps=10,
        logging_first_step=True,
        report_to="tensorboard",
        seed=config.seed,
        bf16=config.bf16,
        gradient_checkpointing=False,
        fsdp=cast(Any, config.fsdp or None),
        fsdp_config={"cpu_ram_efficient_loading": True, "activation_checkpointing": True} if config.fsdp else None,
        use_cpu=not config.bf16,
        dataloader_pin_memory=False,
    )
