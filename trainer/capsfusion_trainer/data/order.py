"""Which rows make up a step: a function of the files, the seed and the step, and of nothing else.

The rows of a split lie in `lanes` virtual lanes of equal length. Each step takes equally many rows of every lane; rank
r of W owns the lanes l with l % W == r. So a global batch is the same for any number of ranks, each row comes once an
epoch, and a run goes on at any step without going through those before it.

Within a lane the files, the row groups of a file and the rows of a row group are permuted by Philox, a counter-based
generator that needs no state: a lane reads one row group at a time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

LANES = 256
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of one row group, in the order in which a lane takes them; `start` is the first one's place in the lane."""

    start: int
    file: int
    group: int
    rows: Ints

    @property
    def stop(self) -> int:
        """Place in the lane behind the last row."""
        return self.start + len(self.rows)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows `first` to `first + count` of a file (of a row group), `number` among those of a lane (of a file)."""

    number: int
    owner: int
    first: int
    count: int


def largest_share(batch: int, lanes: int, world: int) -> int:
    """Rows of a full step for the rank that has most of them."""
    used = math.gcd(lanes, batch)
    return -(-used // world) * (batch // used)


class Order:
    """The order of the rows of a split.

    Args:
        file_rows: rows of each file.
        groups: number of a file -> rows of each of its row groups; asked only for files that are being read.
        batch: rows of a global batch.
        lanes: fewer are used if they do not divide the batch.
    """

    def __init__(
        self,
        file_rows: Sequence[int],
        groups: Callable[[int], Sequence[int]],
        *,
        seed: int,
        batch: int,
        lanes: int = LANES,
    ) -> None:
        self.rows = sum(file_rows)
        self.lanes = math.gcd(lanes, batch)
        self.seed = seed
        self._starts = np.array([0, *accumulate(file_rows)], dtype=np.int64)
        self._groups = groups
        self._each = batch // self.lanes
        self._parts = lru_cache(maxsize=4 * self.lanes)(self._parts_of)
        self.steps_per_epoch = -(-max(map(self.length, range(self.lanes)), default=0) // self._each)

    def length(self, lane: int) -> int:
        """Rows of a lane: they differ by one at most."""
        return self._bound(lane + 1) - self._bound(lane)

    def owned(self, rank: int, world: int) -> list[int]:
        """Lanes of a rank."""
        return list(range(rank, self.lanes, world))

    def span(self, lane: int, step: int) -> tuple[int, int, int]:
        """Epoch of a step, and which places of the lane it takes: from, to. An epoch's last step may take fewer."""
        epoch, within = divmod(step, self.steps_per_epoch)
        start = min(within * self._each, self.length(lane))
        return epoch, start, min(start + self._each, self.length(lane))

    def window(self, lane: int, epoch: int, place: int) -> Window:
        """The window that holds a place of a lane."""
        parts, ends = self._parts(lane, epoch)
        index = int(np.searchsorted(ends, place, side="right"))
        part, before = parts[index], int(ends[index]) - parts[index].count
        groups = self._permuted(self._cut(part), lane, epoch, part.number + 1, 0)
        start = before
        for group in groups:
            if place < start + group.count:
                rows = group.first + self._philox(epoch, lane, part.number + 1, group.number + 1).permutation(
                    group.count
                )
                return Window(start, part.owner, group.owner, rows)
            start += group.count
        raise AssertionError("unreachable: the place lies within the part")

    def _bound(self, lane: int) -> int:
        return lane * self.rows // self.lanes

    def _parts_of(self, lane: int, epoch: int) -> tuple[list[_Part], Ints]:
        """The parts of files that a lane holds, in its order in this epoch, and the place behind each."""
        low, high = self._bound(lane), self._bound(lane + 1)
        first = max(0, int(np.searchsorted(self._starts, low, side="right")) - 1)
        found: list[_Part] = []
        for file in range(first, len(self._starts) - 1):
            start, stop = int(self._starts[file]), int(self._starts[file + 1])
            if start >= high:
                break
            if (count := min(stop, high) - max(start, low)) > 0:
                found.append(_Part(len(found), file, max(start, low) - start, count))
        parts = self._permuted(found, lane, epoch, 0, 0)
        return parts, np.cumsum([part.count for part in parts], dtype=np.int64)

    def _cut(self, part: _Part) -> list[_Part]:
        """A part of a file by row groups; `first` is then a row of the row group."""
        found: list[_Part] = []
        start = 0
        for group, rows in enumerate(self._groups(part.owner)):
            low, high = max(start, part.first), min(start + rows, part.first + part.count)
            if low < high:
                found.append(_Part(len(found), group, low - start, high - low))
            start += rows
        return found

    def _permuted(self, parts: list[_Part], lane: int, epoch: int, file: int, group: int) -> list[_Part]:
        return [parts[i] for i in self._philox(epoch, lane, file, group).permutation(len(parts))]

    def _philox(self, epoch: int, lane: int, file: int, group: int) -> np.random.Generator:
        # The first word of the counter is the generator's own.
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, lane, file, group]))
