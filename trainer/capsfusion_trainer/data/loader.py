"""Batches of a split from any step on: row groups read by need, pictures decoded and captions tokenized by workers.

A worker takes care of some of the rank's lanes, so that each row group is read once and memory does not grow with the
data; a batch is put together in the order of lanes, whoever read them.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from capsfusion_etl.errors import InputError
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from capsfusion_trainer.data.batch import Batch, Encoding
from capsfusion_trainer.data.order import Order, Window
from capsfusion_trainer.data.snapshot import Sample, Split

T = TypeVar("T")


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
