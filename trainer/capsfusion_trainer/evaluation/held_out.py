"""Evaluate on images that training never saw: loss per token, with right and with wrong images, and some captions."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest
from capsfusion_etl.storage import write_json

from capsfusion_trainer.data.batch import Batch
from capsfusion_trainer.data.snapshot import Split
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.distributed import World, init_distributed
from capsfusion_trainer.training.export import load

SAMPLES = 4
_BATCH = 64


def evaluate(manifest: Manifest, out: Path) -> dict[str, Any]:
    """Score the model in `out` on the `held_out` split; return the result and write it to evaluation.json there.

    Under torchrun, each rank scores a share of the row groups. Images are read batch by batch.

    Returns:
        `pairs` and readable `images`; `loss` per token; `mismatched_loss`, the same with the image of another pair: if
        it is no higher, the model does not look at images; `first_loss`, of the first training step, None if another
        machine made it; `captions` of some images; `snapshot`; `config`.

    Raises:
        InputError: `out` has no finished model, or the model was trained on another snapshot.
    """
    try:
        complete = json.loads((out / "complete.json").read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"there is no finished model in {out}: run `capsfusion train` first") from None
    if complete["manifest_sha256"] != manifest.sha256():
        raise InputError(f"the model in {out} was not trained on the snapshot {manifest.name}")
    split = Split(manifest, "held_out")
    with init_distributed() as world:
        model = load(out / "model", world.device)
        mine = world.together(lambda: _sums(model, split, world))
        tokens, loss, mixed_tokens, mixed, images = world.all_reduce(*mine)
        result = {
            "pairs": split.rows, "images": int(images), "loss": loss / tokens if tokens else None,
            "mismatched_loss": mixed / mixed_tokens if mixed_tokens else None, "first_loss": _first_loss(out),
            "captions": _captions(model, split) if world.first else [], "snapshot": manifest.name,
            "config": asdict(model.config),
        }  # fmt: skip
        if world.first:
            write_json(out / "evaluation.json", result)
    return result


def _batches(split: Split, model: CaptionModel, rank: int, size: int) -> Iterator[Batch]:
    """Yield the rows with readable images of every `size`th row group, in batches of at most 64."""
    groups = [(file, group) for file in range(len(split.files)) for group in range(len(split.groups(file)))]
    for file, group in groups[rank::size]:
        table = split.table(file, group)
        for start in range(0, table.num_rows, _BATCH):
            rows = range(start, min(start + _BATCH, table.num_rows))
            batch = model.encoding.collate([split.sample(table, row) for row in rows])
            good = batch.weights.nonzero().flatten().tolist()
            if good:
                yield batch.rows(good, batch.tokens.shape[1])


@torch.inference_mode()
def _sums(model: CaptionModel, split: Split, world: World) -> tuple[float, float, float, float, int]:
    """Return this rank's tokens and loss with the right images, tokens and loss with wrong ones, and images."""
    tokens = loss = mixed_tokens = mixed = 0.0
    images = 0
    with model.precision():
        for batch in _batches(split, model, world.rank, world.size):
            right = model.prefix(batch.images.to(model.device))
            words, weights = batch.tokens.to(model.device), batch.weights.to(model.device)
            tokens, images = tokens + batch.counted, images + len(batch)
            loss += float(model.losses(right, words, weights).sum())
            if len(batch) > 1:
                mixed_tokens += batch.counted
                mixed += float(model.losses(right.roll(1, dims=0), words, weights).sum())
    return tokens, loss, mixed_tokens, mixed, images


def _captions(model: CaptionModel, split: Split) -> list[dict[str, str]]:
    batch = next(_batches(split, model, 0, 1), None)
    if batch is None:
        return []
    said = model.generate(batch.images[:SAMPLES])
    return [{"pair_id": pair_id, "caption": text} for pair_id, text in zip(batch.pair_ids, said, strict=False)]


def _first_loss(out: Path) -> float | None:
    """Return the loss of the first training step, before any weight was updated."""
    log = out / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines()[:1] if log.is_file() else []
    first = json.loads(lines[0]) if lines else {}
    return first["loss"] if first.get("step") == 1 else None
