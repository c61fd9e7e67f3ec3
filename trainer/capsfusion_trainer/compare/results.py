"""Results: for each metric of each benchmark, the strategies at the scales, with intervals, differences and slopes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from capsfusion_trainer.compare.bootstrap import Arm, Array, Bootstrap, Interval, effect, interval, slope
from capsfusion_trainer.compare.grid import Cell, Grid
from capsfusion_trainer.compare.score import TEXT_LOSS, Score

LOWER_IS_BETTER = (TEXT_LOSS,)


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of a strategy to another one, and its effect size (see `bootstrap.effect`)."""

    interval: Interval
    effect: float


@dataclass(frozen=True, slots=True)
class Section:
    """One metric of one benchmark.

    Attributes:
        lines: Strategy -> its score at each scale.
        differences: Strategy -> its difference to `against` at each scale.
        slopes: Strategy -> its gain for each doubling of the pairs; empty with one scale.
        slope_differences: Strategy -> the difference of that gain to the one of `against`.
    """

    benchmark: str
    metric: str
    scales: list[int]
    against: str
    lines: dict[str, list[Interval]]
    differences: dict[str, list[Difference]]
    slopes: dict[str, Interval]
    slope_differences: dict[str, Interval]

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is a loss."""
        return self.metric in LOWER_IS_BETTER

    @property
    def title(self) -> str:
        """Name of the benchmark and the metric, and which direction is better."""
        return f"{self.benchmark}: {self.metric}{' (lower is better)' if self.lower_is_better else ''}"


def sections(grid: Grid, scores: Mapping[Cell, Sequence[Score]], against: str) -> list[Section]:
    """Return a section for each metric of each benchmark, in the order of the scores."""
    by_kind: dict[tuple[str, str], dict[Cell, list[Score]]] = {}
    for cell, found in scores.items():
        for kind, some in groupby(sorted(found, key=_kind), key=_kind):
            by_kind.setdefault(kind, {})[cell] = list(some)
    order = {_kind(s): n for found in scores.values() for n, s in reversed(list(enumerate(found)))}
    return [_section(kind, by_kind[kind], grid, against) for kind in sorted(by_kind, key=order.__getitem__)]


def _kind(score: Score) -> tuple[str, str]:
    return score.benchmark, score.metric


def _section(kind: tuple[str, str], scores: Mapping[Cell, Sequence[Score]], grid: Grid, against: str) -> Section:
    units = {unit: n for n, unit in enumerate(sorted({s.unit for found in scores.values() for s in found}))}
    draws = Bootstrap(len(grid.seeds), len(units))
    scales, others = sorted(grid.scales), [name for name in grid.strategies if name != against]
    arms = {
        name: [arm_of([scores.get(Cell(name, pairs, seed), []) for seed in grid.seeds], units) for pairs in scales]
        for name in grid.strategies
    }
    means = {name: [draws.means(arm) for arm in mine] for name, mine in arms.items()}
    differences = {
        name: [
            Difference(interval(mine - base), effect(arm, other))
            for mine, base, arm, other in zip(means[name], means[against], arms[name], arms[against], strict=True)
        ]
        for name in others
    }
    gains: dict[str, Array] = {name: slope(scales, mine) for name, mine in means.items()} if len(scales) > 1 else {}
    return Section(
        *kind,
        scales=scales,
        against=against,
        lines={name: [interval(found) for found in mine] for name, mine in means.items()},
        differences=differences,
        slopes={name: interval(gain) for name, gain in gains.items()},
        slope_differences={name: interval(gains[name] - gains[against]) for name in others if gains},
    )


def arm_of(of_seeds: Sequence[Sequence[Score]], units: Mapping[str, int]) -> Arm:
    """Return the scores of one metric, a sequence for each seed, as arrays with a column for each unit."""
    sums, weights = np.zeros((len(of_seeds), len(units))), np.zeros((len(of_seeds), len(units)))
    for row, found in enumerate(of_seeds):
        for score in found:
            sums[row, units[score.unit]] += score.value * score.weight
            weights[row, units[score.unit]] += score.weight
    return Arm(sums, weights)
