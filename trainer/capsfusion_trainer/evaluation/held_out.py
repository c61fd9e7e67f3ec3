"""Evaluate on images that training never saw: loss per token, compared with the untrained model, and a few captions."""

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json

from capsfusion_trainer.data.batch import Batch
from capsfusion_trainer.data.snapshot import Split
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.export import load

SAMPLES = 4


def evaluate(manifest: Manifest, out: Path) -> dict[str, Any]:
    """Score the model in `out` on the `held_out` split; return the result and write it to evaluation.json there.

    Raises:
        InputError: `out` has no finished model, or the model was trained on another snapshot.
    """
    try:
        complete = json.loads((out / "complete.json").read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"there is no finished model in {out}: run `capsfusion train` first") from None
    if complete["manifest_sha256"] != manifest.sha256():
        raise InputError(f"the model in {out} was not trained on the snapshot {manifest.name}")
    split, model = Split(manifest, "held_out"), load(out / "model")
    config = model.config
    samples = iter(split)
    batches = [
        model.encoding.collate(part) for part in iter(lambda: list(islice(samples, config.global_batch_size)), [])
    ]
    torch.manual_seed(config.seed)
    untrained = _loss(CaptionModel(config).eval(), batches)
    captions = [
        {"pair_id": pair_id, "caption": text}
        for batch in batches[:1]
        for pair_id, text in zip(batch.pair_ids[:SAMPLES], model.generate(batch.images[:SAMPLES]), strict=True)
    ]
    result = {
        "pairs": split.rows, "loss": _loss(model, batches), "untrained_loss": untrained, "captions": captions,
        "snapshot": manifest.name, "config": asdict(config),
    }  # fmt: skip
    write_json(out / "evaluation.json", result)
    return result


@torch.inference_mode()
def _loss(model: CaptionModel, batches: list[Batch]) -> float | None:
    """Return the mean loss per token over all rows, or None if no token counts."""
    tokens = sum(batch.counted for batch in batches)
    return sum(float(model(b.images, b.tokens, b.weights).sum()) for b in batches) / tokens if tokens else None
