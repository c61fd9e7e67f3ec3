"""The training loop: a pinned snapshot in, a model in safetensors out; stop it anywhere, run it again, it goes on.

State is {step}: the order of rows follows from the seed and the epoch alone, so a resumed run sees the rows that an
uninterrupted one would have seen.
"""

import hashlib
import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from capsfusion_etl.errors import InputError
from capsfusion_etl.manifest import Manifest
from safetensors.torch import save_model
from torch import Tensor

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.model import CaptionModel, encode_picture
from capsfusion_trainer.snapshot import Rows, Sample, write_json


@dataclass(frozen=True, slots=True)
class Batch:
    """One global batch; `weights` is 0 where the picture could not be read: reported, never replaced."""

    pair_ids: list[str]
    pictures: Tensor
    tokens: Tensor
    weights: Tensor


def identity(config: TrainerConfig, manifest: Manifest) -> str:
    """Names a training run: the data by its manifest, and every setting."""
    return hashlib.sha256((json.dumps(asdict(config), sort_keys=True) + manifest.sha256()).encode()).hexdigest()


def train(config: TrainerConfig, manifest: Manifest, out: Path) -> dict[str, Any]:
    """Train on the `train` split of the snapshot, into the folder `out`.

    Returns the last metrics. A run that is complete is not repeated; another run's folder is refused.

    Raises:
        InputError: no picture to train on, or `out` holds another run.
        SystemExit: status 143 after SIGTERM, once a checkpoint is written.
    """
    rows = Rows(manifest, "train")
    if not len(rows):
        raise InputError(f"snapshot {manifest.name} has no pictures to train on")
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, identity(config, manifest))
    if (out / "complete.json").is_file():
        return last_metrics(out)
    torch.manual_seed(config.seed)
    model = CaptionModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.peak_lr, weight_decay=config.weight_decay)
    step = _resume(out, model, optimizer)
    with _Termination() as termination, (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for batch in batches(rows, config, model, step):
            metrics = _step(model, optimizer, batch, config, step)
            step += 1
            print(json.dumps({"step": step, **metrics}), file=log, flush=True)
            if step % config.checkpoint_every == 0 or step == config.steps or termination.asked:
                _checkpoint(out, model, optimizer, step)
            if termination.asked:
                raise SystemExit(143)
    save_model(model, str(out / "model.safetensors"))
    write_json(out / "config.json", asdict(config))
    write_json(out / "complete.json", {"step": step, "snapshot": manifest.name, "manifest_sha256": manifest.sha256()})
    return last_metrics(out)


def batches(rows: Rows, config: TrainerConfig, model: CaptionModel, first_step: int) -> Iterator[Batch]:
    """Global batches from `first_step` to the last; each epoch is a permutation by Philox, keyed by seed and epoch."""
    size = config.global_batch_size
    for step in range(first_step, config.steps):
        picked = []
        for position in range(step * size, (step + 1) * size):
            epoch, offset = divmod(position, len(rows))
            picked.append(rows[int(_order(config.seed, epoch, len(rows))[offset])])
        yield collate(picked, config, model)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def collate(samples: list[Sample], config: TrainerConfig, model: CaptionModel) -> Batch:
    """Decode and tokenize; an end token closes every caption that is not cut at max_tokens."""
    pictures = [encode_picture(s.image, config.image_size) for s in samples]
    blank = torch.zeros(3, config.image_size, config.image_size)
    tokens = model.tokenizer(
        [s.caption for s in samples], return_tensors="pt", padding=True, truncation=True, max_length=config.max_tokens
    )["input_ids"]
    return Batch(
        [s.pair_id for s in samples],
        torch.stack([blank if p is None else p for p in pictures]),
        tokens,
        torch.tensor([0.0 if p is None else 1.0 for p in pictures]),
    )


def learning_rate(config: TrainerConfig, step: int) -> float:
    """Linear warm-up, then cosine from peak_lr to min_lr."""
    if step < config.warmup_steps:
        return config.peak_lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps - 1)
    return config.min_lr + (config.peak_lr - config.min_lr) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _step(
    model: CaptionModel, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainerConfig, step: int
) -> dict[str, Any]:
    started = time.perf_counter()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    loss, tokens = model(batch.pictures, batch.tokens, batch.weights)
    loss = loss / max(tokens, 1)
    if not torch.isfinite(loss):
        raise InputError(f"the loss is {loss.item()} at step {step + 1}; its pairs: {', '.join(batch.pair_ids)}")
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    unreadable = [p for p, w in zip(batch.pair_ids, batch.weights.tolist(), strict=True) if not w]
    return {
        "loss": loss.item(),
        "lr": optimizer.param_groups[0]["lr"],
        "grad_norm": norm.item(),
        "tokens": tokens,
        "pairs_per_second": len(batch.pair_ids) / (time.perf_counter() - started),
        **({"unreadable": unreadable} if unreadable else {}),
    }


def _claim(out: Path, run: str) -> None:
    """A folder belongs to one run."""
    path = out / "run.json"
    if not path.is_file():
        write_json(path, {"run": run})
    elif json.loads(path.read_text(encoding="utf-8"))["run"] != run:
        raise InputError(f"{out} holds a run with other settings or data: give this one another --out, or remove it")


def _checkpoint(out: Path, model: CaptionModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    path = out / "checkpoint.pt"
    part = path.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, part)
    part.replace(path)


def _resume(out: Path, model: CaptionModel, optimizer: torch.optim.Optimizer) -> int:
    """Load the checkpoint, if there is one, and cut the metrics back to its step."""
    path, log = out / "checkpoint.pt", out / "metrics.jsonl"
    step = 0
    if path.is_file():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines()
        log.write_text("".join(f"{line}\n" for line in lines[:step]), encoding="utf-8")
    return step


def last_metrics(out: Path) -> dict[str, Any]:
    """The last line of metrics.jsonl."""
    last: dict[str, Any] = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return last


class _Termination:
    """Turns SIGTERM into a question that the loop asks after each step."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Termination":
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: "int | FrameType | None") -> None:
        self.asked = True
