"""One optimizer step on a global batch, of which each rank has a share."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.batch import PADDING, Batch, Encoding
from capsfusion_trainer.data.feature_cache import FeatureCache
from capsfusion_trainer.data.order import largest_share
from capsfusion_trainer.model.caption_model import CaptionModel
from capsfusion_trainer.training.distributed import World, distribute, release, sync_in_last
from capsfusion_trainer.training.monitor import operations, peak


class TrainStep:
    """The model, distributed over the ranks, and its optimizer. `total` is the number of steps of the run."""

    def __init__(self, config: TrainerConfig, world: World, total: int) -> None:
        torch.manual_seed(config.seed)
        self.config, self.world, self.total = config, world, total
        self.model = CaptionModel(config)
        self.distributed = distribute(self.model, config, world)
        cached = config.feature_cache
        self._features = FeatureCache.of(cached, self.model.vision_fingerprint()) if cached is not None else None
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=config.peak_lr, weight_decay=config.weight_decay)
        self._peak = peak(world.device)
        self._share = largest_share(config.global_batch_size, config.lanes, world.size)
        self._micro = min(config.micro_batch_size or self._share, self._share)
        self._done: dict[str, Any] = {}
        self._unreadable = 0.0  # over all ranks, in the last batch

    @property
    def encoding(self) -> Encoding:
        """Converts samples to the model's tensors; knows the feature cache."""
        return replace(self.model.encoding, features=self._features)

    def close(self) -> None:
        """Release the model; must be called before the process group is destroyed."""
        release(self.distributed)

    def backward(self, batch: Batch) -> float:
        """Compute the gradients of the mean loss per token over the global batch, and return that loss."""
        started = time.perf_counter()
        [tokens] = self.world.all_reduce(batch.counted)
        self.optimizer.zero_grad()
        pieces = list(self._pieces(batch))
        # Summed on the device, since each read of a value waits for the device.
        mine = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for number, (images, words, weights) in enumerate(pieces):
            short = torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.bf16)
            with sync_in_last(self.distributed, last=number == len(pieces) - 1), short:
                seen = images if self._features is None else self._seen(self._features, batch, number, images)
                loss = self.distributed(seen, words, weights).sum()
                # Gradients are averaged over the ranks: times the world size gives their sum, per token of the batch.
                (loss * self.world.size / max(tokens, 1)).backward()
            mine += loss.detach()
        everyone, pairs, self._unreadable = self.world.all_reduce(float(mine), len(batch), len(batch.unreadable))
        self._done = {"loss": everyone / max(tokens, 1), "tokens": int(tokens), "pairs": int(pairs), "started": started}
        return everyone / max(tokens, 1)

    def update(self, batch: Batch, step: int) -> dict[str, Any]:
        """Apply the gradients and return the metrics of the step."""
        rate = learning_rate(self.config, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)
        self.optimizer.step()
        metrics = self._done | {"lr": rate, "grad_norm": float(norm)}
        seconds = time.perf_counter() - metrics.pop("started")
        if self._peak is not None:
            done = operations(self.model, metrics["pairs"], batch.tokens.numel() * self.world.size)
            metrics["mfu"] = done / seconds / (self._peak * self.world.size)
        if self._unreadable:
            metrics["unreadable"] = [i for ids in self.world.all_gather(batch.unreadable) for i in ids]
        return metrics

    def _seen(self, cache: FeatureCache, batch: Batch, number: int, images: Tensor) -> Tensor:
        """Return the features of micro-batch `number`; new ones of readable images are written to the cache."""
        rows = slice(number * self._micro, (number + 1) * self._micro)
        known: list[Tensor | None] = [*batch.features[rows]] or [None] * len(images)
        new = [row for row, features in enumerate(known) if features is None]
        if new:
            found = self.model.encode_images(images[new])
            for row, features in zip(new, found, strict=True):
                known[row] = features
            sound = [at for at, row in enumerate(new) if batch.weights[rows][row : row + 1].any()]
            cache.write([batch.image_ids[rows][new[at]] for at in sound], found[sound])
        return torch.stack([features.to(self.world.device) for features in cast(list[Tensor], known)])

    def _pieces(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield micro-batches, the same number on every rank, since sharded ranks communicate in each.

        A rank that has no rows left gets a micro-batch of one row that does not count.
        """
        for start in range(0, self._share, self._micro):
            rows = slice(start, start + self._micro)
            images, tokens, weights = batch.images[rows], batch.tokens[rows], batch.weights[rows]
            if not len(weights):
                images = torch.zeros(1, *batch.images.shape[1:], dtype=torch.uint8)
                tokens, weights = torch.full((1, 1), PADDING), torch.zeros(1)
            yield images.to(self.world.device), tokens.to(self.world.device), weights.to(self.world.device)


def learning_rate(config: TrainerConfig, step: int, total: int) -> float:
    """Return the learning rate of a step: linear warm-up to peak_lr, then cosine decay to min_lr."""
    if step < config.warmup_steps:
        return config.peak_lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps - 1)
    return config.min_lr + (config.peak_lr - config.min_lr) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
