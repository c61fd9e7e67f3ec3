"""What is trained: strategies, numbers of pairs and seeds; and whether a comparison of them is fair."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from capsfusion_etl.errors import InputError
from capsfusion_etl.snapshots.manifest import Manifest

from capsfusion_trainer.data.snapshot import Split
from capsfusion_trainer.train import exported_at


@dataclass(frozen=True, slots=True)
class Cell:
    """One model that is scored: `pairs` is the number that it has seen in training."""

    strategy: str
    pairs: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{self.strategy}-{self.pairs}-{self.seed}"


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One training run, and the cells that are scored along it; the last one is its end."""

    cells: tuple[Cell, ...]

    @property
    def last(self) -> Cell:
        """The cell at the end of the run."""
        return self.cells[-1]

    @property
    def name(self) -> str:
        """Name of the run's folder: one with other cells along its way is another run."""
        return "-".join([self.last.name, *(f"along-{cell.pairs}" for cell in self.cells[:-1])])

    def along(self, batch: int) -> list[int]:
        """Return the steps after which a model is scored, but for the last one."""
        return [steps(cell.pairs, batch) for cell in self.cells[:-1]]

    def model(self, folder: Path, cell: Cell, batch: int) -> Path:
        """Return the folder of a cell's model, given that of the run."""
        return folder / "model" if cell == self.last else exported_at(folder, steps(cell.pairs, batch))


@dataclass(frozen=True, slots=True)
class Grid:
    """The combinations to compare.

    Attributes:
        strategies: Names of published strategies.
        scales: Numbers of pairs seen in training.
        seeds: One training run for each.
        along: Score one run of the largest scale along its way (the paper's figure 7), instead of a run of each scale
            with a learning rate that falls to its end there (figure 1).
        repeat: A scale may be larger than the snapshots; pairs are then seen again.
    """

    strategies: list[str]
    scales: list[int]
    seeds: list[int]
    along: bool = False
    repeat: bool = False

    def __post_init__(self) -> None:
        for name, values in (("strategies", self.strategies), ("scales", self.scales), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise InputError(f"--{name}: the same value is there twice")
        if min(self.scales) < 1 or min(self.seeds) < 0:
            raise InputError("--scales must be above 0, and --seeds at least 0")

    def runs(self) -> Iterator[TrainingRun]:
        """Yield the training runs."""
        for strategy in self.strategies:
            for seed in self.seeds:
                cells = [Cell(strategy, pairs, seed) for pairs in sorted(self.scales)]
                yield from [TrainingRun(tuple(cells))] if self.along else [TrainingRun((cell,)) for cell in cells]


def steps(pairs: int, batch: int) -> int:
    """Return the number of steps in which `pairs` pairs are seen; only a whole epoch may end in a smaller step."""
    return math.ceil(pairs / batch)


def check(grid: Grid, manifests: Mapping[str, Manifest], batch: int) -> None:
    """Check that all strategies train on the same pairs, and that each scale is the number of pairs that is seen.

    Raises:
        InputError: They do not, or it is not; the message has the numbers.
    """
    pairs = {name: _pair_ids(manifest) for name, manifest in manifests.items()}
    first, *others = pairs
    for other in others:
        if pairs[first] != pairs[other]:
            both = len(pairs[first] & pairs[other])
            raise InputError(
                f"the snapshots hold different pairs, which would be compared as well: {first} {len(pairs[first]):,}, "
                f"{other} {len(pairs[other]):,}, both {both:,}; publish all of them from the same pairs, such as with "
                "a fuser.fallback that drops none"
            )
    rows = len(pairs[first])
    for scale in grid.scales:
        if scale > rows and not grid.repeat:
            raise InputError(
                f"--scales {scale}: the snapshots have {rows:,} pairs to train on; --repeat shows them again"
            )
        if scale % batch and scale != rows:
            near = max(batch, round(scale / batch) * batch)
            raise InputError(f"--scales {scale}: a step takes {batch:,} pairs; the nearest number of pairs is {near}")


def _pair_ids(manifest: Manifest) -> set[str]:
    split = Split(manifest, "train")
    found = {pair_id for (pair_id,) in split.columns("pair_id")}
    if len(found) < split.rows:
        raise InputError(f"snapshot {manifest.name} has {split.rows - len(found):,} pairs twice")
    return found
