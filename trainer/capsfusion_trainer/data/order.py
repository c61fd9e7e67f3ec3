"""Which rows a step takes: a pure function of the files, the seed and the step.

The rows of a split are divided into `lanes` virtual lanes of equal length. Each step takes the same number of rows
from every lane; rank r of W owns the lanes l with l % W == r. So a global batch is the same for any number of ranks,
each row occurs once per epoch, and a run can resume at any step without replaying the steps before.

Within a lane, Philox permutes the files, the row groups of each file and the rows of each row group, so that a lane
reads one row group at a time. Philox is a counter-based generator: it needs no state.
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
    """Rows of one row group in the order in which a lane takes them; `start` is the place of the first in the lane."""

    start: int
    file: int
    group: int
    rows: Ints

    @property
    def stop(self) -> int:
        """Place in the lane after the last row."""
        return self.start + len(self.rows)


@dataclass(frozen=True, slots=True)
class _Part:
    """The slice of a file that lies in a lane, or the slice of a row group that lies in such a file slice.

    Attributes:
        number: Index of the slice within its lane (file slice), before the permutation.
        owner: Index of the file (row group).
        first: First row, counted from the start of the file (row group).
        count: Number of rows.
    """

    number: int
    owner: int
    first: int
    count: int


def largest_share(batch: int, lanes: int, world: int) -> int:
    """Return the number of rows that the rank with the most lanes has in a full step."""
    used = math.gcd(lanes, batch)
    return -(-used // world) * (batch // used)


class Order:
    """The order of the rows of a split.

    Args:
        file_rows: Number of rows of each file.
        groups: Returns the rows of each row group of a file, given its index; called only for files that are read.
        seed: Key of the permutations, together with the epoch.
        batch: Rows of a global batch.
        lanes: If they do not divide the batch, the greatest common divisor is used instead.
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
        """Return the number of rows in a lane; lanes differ by one at most."""
        return self._bound(lane + 1) - self._bound(lane)

    def owned(self, rank: int, world: int) -> list[int]:
        """Return the lanes of a rank."""
        return list(range(rank, self.lanes, world))

    def span(self, lane: int, step: int) -> tuple[int, int, int]:
        """Return the epoch of a step, and start and stop of the places that it takes from a lane.

        The last step of an epoch may take fewer rows than the others.
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        start = min(within * self._each, self.length(lane))
        return epoch, start, min(start + self._each, self.length(lane))

    def window(self, lane: int, epoch: int, place: int) -> Window:
        """Return the window that contains a place of a lane."""
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
        """Return the file slices of a lane in the order of this epoch, and the place after each."""
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
        """Split a file slice by row group."""
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
        # The first word of the counter is the one that the generator increments.
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, lane, file, group]))
