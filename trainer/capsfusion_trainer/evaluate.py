"""Evaluation on pictures that training never saw: loss per byte, beside the untrained model, and captions to read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.manifest import Manifest
from safetensors.torch import load_model

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model import CaptionModel
from capsfusion_trainer.snapshot import Rows, write_json
from capsfusion_trainer.train import Batch, collate

SAMPLES = 4


def evaluate(manifest: Manifest, out: Path) -> dict[str, Any]:
    """Score the model in `out` on the `held_out` split and write evaluation.json there.

    Raises:
        InputError: no finished model in `out`, or it was trained on another snapshot.
    """
    try:
        complete = json.loads((out / "complete.json").read_text(encoding="utf-8"))
        config = TrainerConfig(**json.loads((out / "config.json").read_text(encoding="utf-8")))
    except OSError:
        raise InputError(f"there is no finished model in {out}: `capsfusion train` makes one") from None
    if complete["manifest_sha256"] != manifest.sha256():
        raise InputError(f"the model in {out} was trained on another snapshot than {manifest.name}")
    rows = Rows(manifest, "held_out")
    torch.manual_seed(config.seed)
    model = CaptionModel(config).eval()
    size = config.global_batch_size
    batches = [
        collate([rows[i] for i in range(start, min(start + size, len(rows)))], config, model)
        for start in range(0, len(rows), size)
    ]
    untrained = _loss(model, batches)
    load_model(model, str(out / "model.safetensors"))
    captions = [
        {"pair_id": pair_id, "caption": text}
        for batch in batches[:1]
        for pair_id, text in zip(batch.pair_ids[:SAMPLES], model.describe(batch.pictures[:SAMPLES]), strict=True)
    ]
    result = {
        "pairs": len(rows), "loss": _loss(model, batches), "untrained_loss": untrained, "captions": captions,
        "snapshot": manifest.name, "config": asdict(config),
    }  # fmt: skip
    write_json(out / "evaluation.json", result)
    return result


@torch.inference_mode()
def _loss(model: CaptionModel, batches: list[Batch]) -> float | None:
    """Mean loss per token over all rows; None without rows."""
    sums = [model(b.pictures, b.tokens, b.weights) for b in batches]
    tokens = sum(n for _, n in sums)
    return sum(float(loss) for loss, _ in sums) / tokens if tokens else None
