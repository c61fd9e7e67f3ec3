"""Confidence intervals by a paired bootstrap over units (pictures, lines of a text) and seeds.

Each draw takes units and seeds with replacement, the same ones for every strategy and scale, so that differences
between strategies are differences on the same pictures (Efron and Tibshirani 1993; for captions, as Koehn 2004 does).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 2_000
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Arm:
    """Scores of one strategy at one scale, (seeds, units): sums of value times weight, and of weights."""

    sums: Array
    weights: Array

    def of_units(self) -> Array:
        """Return the mean of each unit over the seeds; NaN where it has no weight."""
        return _ratio(self.sums.sum(axis=0), self.weights.sum(axis=0))


class Bootstrap:
    """The draws for a number of seeds and units; the first is the data as they are."""

    def __init__(self, seeds: int, units: int, draws: int = DRAWS) -> None:
        chance = np.random.default_rng(0)
        self._seeds, self._units = (
            np.vstack([np.ones(n), chance.multinomial(n, np.full(n, 1 / n), size=draws)]).astype(np.float32)
            for n in (seeds, units)
        )

    def means(self, arm: Arm) -> Array:
        """Return the weighted mean of an arm in each draw."""
        return _ratio(self._sum(arm.sums), self._sum(arm.weights))

    def _sum(self, values: Array) -> Array:
        found: Array = (self._seeds * (self._units @ values.T.astype(np.float32))).sum(axis=1, dtype=np.float64)
        return found


def interval(draws: Array) -> Interval:
    """Return the interval of a figure, given its value in each draw; the first is that of the data as they are."""
    tail = (1 - _LEVEL) / 2
    drawn = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
    return Interval(float(draws[0]), float(low), float(high))


def slope(scales: Sequence[int], draws: Sequence[Array]) -> Array:
    """Return in each draw the gain for each doubling of the pairs: the least-squares slope over log2 of the scale."""
    x = np.log2(np.array(scales, dtype=np.float64))
    x -= x.mean()
    found: Array = x @ np.stack(draws) / (x @ x)
    return found


def effect(mine: Arm, other: Arm) -> float:
    """Return the effect size: the mean difference over units, divided by its standard deviation (Cohen's d, paired)."""
    differences = mine.of_units() - other.of_units()
    differences = differences[np.isfinite(differences)]
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    return float(differences.mean() / spread) if spread > 0 else 0.0


def _ratio(sums: Array, weights: Array) -> Array:
    found: Array = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
    return found
