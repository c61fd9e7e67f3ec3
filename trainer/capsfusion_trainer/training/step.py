"""One optimizer step on a global batch, of which each rank has a share."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from capsfusion_trainer.config import TrainerConfig
from capsfusion_trainer.data.batch import PADDING, Batch, Encoding
from capsfusion_trainer.data.feature_cache import FeatureCache
from capsfusion_trainer.data.order import largest_share
from capsfusion_trainer.training.distributed import World
from capsfusion_trainer.training.monitor import operations, peak
from capsfusion_trainer.training.optimizer import adamw, learning_rate, set_rate
from capsfusion_trainer.training.placement import place, release, sync_in_last

_COMPILED_LENGTHS = 16  # captions are padded to a multiple of this under compile: each length is compiled anew


class TrainStep:
    """The model, distributed over the ranks, and its optimizer. `total` is the number of steps of the run."""

    def __init__(self, config: TrainerConfig, world: World, total: int) -> None:
        torch.manual_seed(config.seed)
        self.config, self.world, self.total = config, world, total
        self.model, self.distributed = place(config, world)
        cached = config.feature_cache
        self._features = FeatureCache.of(cached, self.model.vision_fingerprint()) if cached is not None else None
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = adamw(self.model, config)
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
        division = self._division(batch)
        positions = sum(max(len(rows), 1) * length for rows, length in division)
        tokens, positions = map(int, self.world.all_reduce(batch.counted, positions))
        self.optimizer.zero_grad()
        # Summed on the device, since each read of a value waits for the device.
        mine = torch.zeros((), dtype=torch.float64, device=self.world.device)
        for number, piece in enumerate(self.pieces(batch)):
            images, words, weights = (t.to(self.world.device) for t in (piece.images, piece.tokens, piece.weights))
            with sync_in_last(self.distributed, last=number == len(division) - 1), self.model.precision():
                seen = images if self._features is None else self._seen(self._features, piece, images)
                loss = self.distributed(seen, words, weights).sum()
                # Gradients are averaged over the ranks: times the world size gives their sum, per token of the batch.
                (loss * self.world.size / max(tokens, 1)).backward()
            mine += loss.detach()
        everyone, pairs, self._unreadable = self.world.all_reduce(float(mine), len(batch), len(batch.unreadable))
        self._done = {
            "loss": everyone / max(tokens, 1), "tokens": tokens, "padding": 1 - tokens / max(positions, 1),
            "pairs": int(pairs), "started": started,
        }  # fmt: skip
        return everyone / max(tokens, 1)

    def update(self, batch: Batch, step: int) -> dict[str, Any]:
        """Apply the gradients and return the metrics of the step."""
        rate = learning_rate(self.config, step, self.total)
        set_rate(self.optimizer, rate, self.config)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.optimizer.step()
        metrics = self._done | {"lr": rate, "grad_norm": float(norm)}
        seconds = time.perf_counter() - metrics.pop("started")
        if self._peak is not None:
            done = operations(self.model, metrics["pairs"], metrics["tokens"])
            metrics["mfu"] = done / seconds / (self._peak * self.world.size)
        if self._unreadable:
            metrics["unreadable"] = [i for ids in self.world.all_gather(batch.unreadable) for i in ids]
        return metrics

    def pieces(self, batch: Batch) -> Iterator[Batch]:
        """Yield micro-batches, the same number on every rank, since sharded ranks communicate in each.

        A rank that has no rows left gets a piece of one row that does not count.
        """
        for rows, longest in self._division(batch):
            yield batch.rows(rows, longest) if rows else batch.nothing(longest)

    def _division(self, batch: Batch) -> list[tuple[list[int], int]]:
        """Return the rows of each micro-batch and its number of tokens.

        Rows of similar length come together, and each micro-batch is as wide as its longest caption.
        """
        lengths = (batch.tokens != PADDING).sum(dim=1)
        order = lengths.argsort(stable=True).tolist()
        found = []
        for start in range(0, self._share, self._micro):
            rows = order[start : start + self._micro]
            longest = int(lengths[rows].max()) if rows else 1
            if self.config.compile:
                rounded = math.ceil(longest / _COMPILED_LENGTHS) * _COMPILED_LENGTHS
                longest = min(rounded, self.config.max_tokens)
            found.append((rows, longest))
        return found

    def _seen(self, cache: FeatureCache, piece: Batch, images: Tensor) -> Tensor:
        """Return the features of a micro-batch; new ones of readable images are written to the cache."""
        known: list[Tensor | None] = [*piece.features] or [None] * len(images)
        new = [row for row, features in enumerate(known) if features is None]
        if new:
            found = self.model.encode_images(images[new])
            for row, features in zip(new, found, strict=True):
                known[row] = features
            sound = [at for at, row in enumerate(new) if piece.weights[row]]
            cache.write([piece.image_ids[new[at]] for at in sound], found[sound])
        return torch.stack([features.to(self.world.device) for features in cast(list[Tensor], known)])
