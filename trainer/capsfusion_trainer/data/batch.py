"""Batches: samples as tensors."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from capsfusion_trainer.data.image import decode
from capsfusion_trainer.data.snapshot import Sample

if TYPE_CHECKING:
    from capsfusion_trainer.data.feature_cache import FeatureCache

PADDING = -100  # fills a row of `tokens` after its caption; the loss ignores it
_LISTS = ("image_ids", "cached", "features")  # of a batch with a feature cache


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step that belong to one rank.

    Attributes:
        images: (B, 3, S, S) uint8; black where the image is unreadable or `cached`.
        tokens: (B, T) int64, padded with PADDING.
        weights: (B,) float; 0 where the image is unreadable. Such a row is reported, never replaced.
        image_ids: sha256 of the image bytes; empty without a feature cache.
        cached: Whether the cache has the features of the image; empty without a feature cache.
        features: Features of the cached images, None for the others; set by `Encoding.recalled`.
    """

    pair_ids: list[str]
    images: Tensor
    tokens: Tensor
    weights: Tensor
    image_ids: list[str] = field(default_factory=list)
    cached: list[bool] = field(default_factory=list)
    features: list[Tensor | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def rows(self, rows: list[int], length: int) -> "Batch":
        """Return some rows, in the order given; their captions are cut or padded to `length` tokens."""
        tokens = self.tokens[rows, :length]
        tokens = torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]), value=PADDING)
        found = Batch([self.pair_ids[row] for row in rows], self.images[rows], tokens, self.weights[rows])
        lists: dict[str, Any] = {n: [getattr(self, n)[row] for row in rows] for n in _LISTS if getattr(self, n)}
        return replace(found, **lists)

    def nothing(self, length: int) -> "Batch":
        """Return a batch of one row, a black image without a caption, that does not count."""
        tokens = torch.full((1, length), PADDING)
        return Batch([""], torch.zeros(1, *self.images.shape[1:], dtype=torch.uint8), tokens, torch.zeros(1))

    @property
    def counted(self) -> int:
        """Number of tokens that count in the loss."""
        return int(((self.tokens != PADDING) & (self.weights[:, None] > 0)).sum())

    @property
    def unreadable(self) -> list[str]:
        """pair_ids of the unreadable images."""
        return [pair_id for pair_id, weight in zip(self.pair_ids, self.weights.tolist(), strict=True) if not weight]


@dataclass(frozen=True, slots=True)
class Encoding:
    """Converts samples to tensors. A caption ends with the tokenizer's end token unless it is cut at `max_tokens`."""

    image_size: int
    max_tokens: int
    tokenizer: Any
    features: "FeatureCache | None" = None

    def collate(self, samples: list[Sample]) -> Batch:
        """Return the batch of some samples, possibly none."""
        images = torch.zeros(len(samples), 3, self.image_size, self.image_size, dtype=torch.uint8)
        weights = torch.zeros(len(samples))
        image_ids = [] if self.features is None else [self.features.id_of(sample.image or b"") for sample in samples]
        cached = [self.features is not None and image_id in self.features for image_id in image_ids]
        for row, sample in enumerate(samples):
            if cached and cached[row]:
                weights[row] = 1.0
            elif (image := decode(sample.image, self.image_size)) is not None:
                images[row], weights[row] = image, 1.0
            if sample.caption is None:  # in a table that others wrote
                weights[row] = 0.0
        captions = self.tokens([sample.caption or "" for sample in samples])
        return Batch([sample.pair_id for sample in samples], images, captions, weights, image_ids, cached)

    def recalled(self, batch: Batch) -> Batch:
        """Return the batch with the features of its cached images, read from the cache."""
        if self.features is None:
            return batch
        rows = [row for row, cached in enumerate(batch.cached) if cached]
        found = dict(zip(rows, self.features.read([batch.image_ids[row] for row in rows]), strict=True))
        return replace(batch, features=[found.get(row) for row in range(len(batch))])

    def tokens(self, captions: list[str]) -> Tensor:
        """Return the token ids of captions, (len(captions), longest), padded with PADDING."""
        found = self.tokenizer(captions, add_special_tokens=False)["input_ids"] if captions else []
        rows = [[*ids, self.tokenizer.eos_token_id][: self.max_tokens] for ids in found]
        longest = max(map(len, rows), default=1)
        padded = [row + [PADDING] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest)

    @staticmethod
    def joined(parts: list[tuple[list[int], Batch]]) -> Batch:
        """Merge (lanes, batch) parts into one batch, ordered by lane; `lanes` has the lane of each row."""
        if len(parts) == 1:
            return parts[0][1]
        lanes = [lane for of_rows, _ in parts for lane in of_rows]
        order = sorted(range(len(lanes)), key=lanes.__getitem__)
        longest = max(batch.tokens.shape[1] for _, batch in parts)
        padded = [torch.nn.functional.pad(b.tokens, (0, longest - b.tokens.shape[1]), value=PADDING) for _, b in parts]
        ids = [pair_id for _, batch in parts for pair_id in batch.pair_ids]
        seen = [pair for _, batch in parts for pair in zip(batch.image_ids, batch.cached, strict=True)]
        images = torch.empty(len(ids), *parts[0][1].images.shape[1:], dtype=torch.uint8)
        places, start = torch.tensor(order).argsort(), 0
        for _, batch in parts:  # in place, so that each image is copied only once
            images[places[start : start + len(batch)]] = batch.images
            start += len(batch)
        weights = torch.cat([batch.weights for _, batch in parts])[order]
        image_ids, cached = map(list, zip(*(seen[i] for i in order), strict=True)) if seen else ([], [])
        return Batch([ids[i] for i in order], images, torch.cat(padded)[order], weights, image_ids, cached)
