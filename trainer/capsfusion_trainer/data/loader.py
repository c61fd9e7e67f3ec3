"""Load the batches of a split from any step on. Worker processes read row groups, decode images and tokenize captions.

Each worker serves some of the rank's lanes, so that a lane's row groups are read once and memory does not grow with the
data. A batch is merged in the order of its lanes: the number of workers does not change it.
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
    """Dataset of a worker process: for each step, the rows of the worker's lanes as a batch, and the lane of each."""

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
    """Reads the samples of lanes; keeps the current row group of each lane in memory."""

    def __init__(self, split: Split, order: Order) -> None:
        self._split, self._order = split, order
        self._held: dict[int, tuple[int, Window, pa.Table]] = {}  # lane -> epoch, window, row group

    def take(self, lane: int, step: int) -> Iterator[Sample]:
        """Yield the samples that a step takes from a lane."""
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
            del self._held[lane]  # frees it before the next one is read
        window = self._order.window(lane, epoch, place)
        table = self._split.table(window.file, window.group)
        self._held[lane] = epoch, window, table
        return window, table


def order_of(split: Split, *, seed: int, batch: int, lanes: int) -> Order:
    """Return the order of a split's rows."""
    return Order(split.file_rows, split.groups, seed=seed, batch=batch, lanes=lanes)


@dataclass(frozen=True, slots=True)
class Loading:
    """Which rows of each step a rank loads, and how.

    Attributes:
        seed: With `batch` and `lanes` it determines the order.
        batch: Rows of a global batch.
        lanes: See `data.order`.
        rank: Rank of this process.
        world: Number of ranks.
        workers: Number of processes that read and decode; 0 uses a thread of this process.
        start_method: How worker processes start: spawn, fork or forkserver.
        prefetch: Number of batches that are read ahead.
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
    """Yield the batches of a rank for `steps`.

    Raises:
        InputError: A file of the snapshot is missing or changed.
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
    except InputError as error:  # a worker's error carries its whole traceback: keep the message only
        raise InputError(str(error).strip().splitlines()[-1].rpartition("InputError: ")[2]) from None


def _ahead(source: Iterator[T], count: int) -> Iterator[T]:
    """Yield from `source`, read `count` ahead in a thread, so that decoding and copying overlap with the model."""
    with ThreadPoolExecutor(1) as reader:
        pending = deque(reader.submit(next, source, None) for _ in range(count))
        while (found := pending.popleft().result()) is not None:
            pending.append(reader.submit(next, source, None))
            yield found
