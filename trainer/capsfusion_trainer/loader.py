"""Batches of a split from any step on: row groups read by need, pictures decoded and captions tokenized by workers.

A worker takes care of some of the rank's lanes, so that each row group is read once and memory does not grow with the
data; a batch is put together in the order of lanes, whoever read them.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import torch
from capsfusion_etl.errors import InputError
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from capsfusion_trainer.order import Order, Window
from capsfusion_trainer.picture import decode
from capsfusion_trainer.snapshot import Sample, Split

if TYPE_CHECKING:
    from capsfusion_trainer.features import FeatureCache

PADDING = -100  # behind the last token of a caption; what the loss skips

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a step that fall to a rank. `weights` is 0 where the picture could not be read: it is reported, never
    replaced.

    `pictures`: (B, 3, S, S) bytes. `tokens`: (B, T), padded with PADDING. `weights`: (B,). With a cache of features,
    `image_ids` are the hashes of the pictures; those that are `cached` are left black, and have `features` instead.
    """

    pair_ids: list[str]
    pictures: Tensor
    tokens: Tensor
    weights: Tensor
    image_ids: list[str] = field(default_factory=list)
    cached: list[bool] = field(default_factory=list)
    features: list[Tensor | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pair_ids)

    @property
    def counted(self) -> int:
        """Tokens that the loss is about."""
        return int(((self.tokens != PADDING) & (self.weights[:, None] > 0)).sum())

    @property
    def unreadable(self) -> list[str]:
        """pair_ids of pictures that could not be read."""
        return [pair_id for pair_id, weight in zip(self.pair_ids, self.weights.tolist(), strict=True) if not weight]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples become tensors. A caption is closed by the tokenizer's end token unless it is cut at `max_tokens`."""

    image_size: int
    max_tokens: int
    tokenizer: Any
    features: "FeatureCache | None" = None

    def collate(self, samples: list[Sample]) -> Batch:
        """A batch of samples; none at all make a batch without rows."""
        pictures = torch.zeros(len(samples), 3, self.image_size, self.image_size, dtype=torch.uint8)
        weights = torch.zeros(len(samples))
        image_ids = [] if self.features is None else [sha256(sample.image or b"").hexdigest() for sample in samples]
        cached = [self.features is not None and image_id in self.features for image_id in image_ids]
        for row, sample in enumerate(samples):
            if cached and cached[row]:
                weights[row] = 1.0
            elif (picture := decode(sample.image, self.image_size)) is not None:
                pictures[row], weights[row] = picture, 1.0
        captions = self.tokens([sample.caption for sample in samples])
        return Batch([sample.pair_id for sample in samples], pictures, captions, weights, image_ids, cached)

    def recalled(self, batch: Batch) -> Batch:
        """The batch with the features of its cached pictures."""
        if self.features is None:
            return batch
        rows = [row for row, cached in enumerate(batch.cached) if cached]
        found = dict(zip(rows, self.features.read([batch.image_ids[row] for row in rows]), strict=True))
        return replace(batch, features=[found.get(row) for row in range(len(batch))])

    def tokens(self, captions: list[str]) -> Tensor:
        """(len(captions), longest)."""
        found = self.tokenizer(captions, add_special_tokens=False)["input_ids"] if captions else []
        rows = [[*ids, self.tokenizer.eos_token_id][: self.max_tokens] for ids in found]
        longest = max(map(len, rows), default=1)
        padded = [row + [PADDING] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).view(len(rows), longest)

    @staticmethod
    def joined(parts: list[tuple[list[int], Batch]]) -> Batch:
        """One batch of parts, in the order of the lanes that they name row by row."""
        if len(parts) == 1:
            return parts[0][1]
        lanes = [lane for of_rows, _ in parts for lane in of_rows]
        order = sorted(range(len(lanes)), key=lanes.__getitem__)
        longest = max(batch.tokens.shape[1] for _, batch in parts)
        padded = [torch.nn.functional.pad(b.tokens, (0, longest - b.tokens.shape[1]), value=PADDING) for _, b in parts]
        ids = [pair_id for _, batch in parts for pair_id in batch.pair_ids]
        seen = [pair for _, batch in parts for pair in zip(batch.image_ids, batch.cached, strict=True)]
        pictures = torch.empty(len(ids), *parts[0][1].pictures.shape[1:], dtype=torch.uint8)
        places, start = torch.tensor(order).argsort(), 0
        for _, batch in parts:  # each picture is copied once
            pictures[places[start : start + len(batch)]] = batch.pictures
            start += len(batch)
        weights = torch.cat([batch.weights for _, batch in parts])[order]
        image_ids, cached = map(list, zip(*(seen[i] for i in order), strict=True)) if seen else ([], [])
        return Batch([ids[i] for i in order], pictures, torch.cat(padded)[order], weights, image_ids, cached)


class Parts(IterableDataset[tuple[list[int], Batch]]):
    """Of each step, the rows of this worker's lanes, and the lane of each row."""

    def __init__(self, split: Split, order: dict[str, Any], encoding: Encoding, lanes: list[int], steps: range) -> None:
        self._split, self._order, self._encoding = split, order, encoding
        self._lanes, self._steps = lanes, steps

    def __iter__(self) -> Iterator[tuple[list[int], Batch]]:
        worker = get_worker_info()
        lanes = self._lanes[worker.id :: worker.num_workers] if worker else self._lanes
        reader = Reader(self._split, order_of(self._split, **self._order))
        for step in self._steps:
            picked = [(lane, sample) for lane in lanes for sample in reader.take(lane, step)]
            yield [lane for lane, _ in picked], self._encoding.collate([sample for _, sample in picked])


class Reader:
    """Samples of lanes; each lane holds the row group that it is in."""

    def __init__(self, split: Split, order: Order) -> None:
        self._split, self._order = split, order
        self._held: dict[int, tuple[int, Window, pa.Table]] = {}  # lane -> epoch, window, row group

    def take(self, lane: int, step: int) -> Iterator[Sample]:
        """What a step takes of a lane."""
        epoch, place, stop = self._order.span(lane, step)
        while place < stop:
            window, table = self._window(lane, epoch, place)
            for row in window.rows[place - window.start : stop - window.start]:
                yield self._split.sample(table, int(row))
            place = min(stop, window.stop)

    def _window(self, lane: int, epoch: int, place: int) -> tuple[Window, pa.Table]:
        if lane in self._held:
            held, window, table = self._held[lane]
            if held == epoch and window.start <= place < window.stop:
                return window, table
            del self._held[lane]  # before the next one is read
        window = self._order.window(lane, epoch, place)
        table = self._split.table(window.file, window.group)
        self._held[lane] = epoch, window, table
        return window, table


def order_of(split: Split, *, seed: int, batch: int, lanes: int) -> Order:
    """The order of a split's rows."""
    return Order([file.rows for file in split.files], split.groups, seed=seed, batch=batch, lanes=lanes)


@dataclass(frozen=True, slots=True)
class Loading:
    """Which rows of each step a rank loads, and how.

    `seed`, `batch` (rows of a global batch) and `lanes` fix the order. `workers`: processes that read and decode; 0
    does it in a thread of this one. `prefetch`: batches that are read ahead.
    """

    seed: int
    batch: int
    lanes: int
    rank: int = 0
    world: int = 1
    workers: int = 0
    start_method: str = "spawn"
    prefetch: int = 2


def batches(split: Split, encoding: Encoding, steps: range, loading: Loading) -> Iterator[Batch]:
    """The batches of a rank for `steps`.

    Raises:
        InputError: a file of the snapshot is gone or changed.
    """
    order = {"seed": loading.seed, "batch": loading.batch, "lanes": loading.lanes}
    mine = order_of(split, **order).owned(loading.rank, loading.world)
    parts = Parts(split, order, encoding, mine, steps)
    workers = min(loading.workers, len(mine))
    how: dict[str, Any] = {}
    if workers:
        how = {"multiprocessing_context": loading.start_method, "prefetch_factor": loading.prefetch}
    loaded: Iterator[tuple[list[int], Batch]] = iter(DataLoader(parts, batch_size=None, num_workers=workers, **how))
    joined = (encoding.joined([next(loaded) for _ in range(max(1, workers))]) for _ in steps)
    try:
        yield from _ahead(map(encoding.recalled, joined), loading.prefetch)
    except InputError as error:  # one of a worker brings that process's whole trace
        raise InputError(str(error).strip().splitlines()[-1].rpartition("InputError: ")[2]) from None


def _ahead(source: Iterator[T], count: int) -> Iterator[T]:
    """The same, read `count` ahead by a thread: neither decoding nor copying holds a lock while the model computes."""
    with ThreadPoolExecutor(1) as reader:
        pending = deque(reader.submit(next, source, None) for _ in range(count))
        while (found := pending.popleft().result()) is not None:
            pending.append(reader.submit(next, source, None))
            yield found
