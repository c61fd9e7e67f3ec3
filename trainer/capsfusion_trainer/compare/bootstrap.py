"""Confidence intervals by a paired bootstrap over units (pictures, lines of a text) and seeds.

Each draw takes units and seeds with replacement, the same ones for every strategy and scale, so that differences
between strategies are differences on the same pictures (Efron and Tibshirani 1993; for translations, Koehn 2004).
A plain bootstrap of n seeds has (n-1)/n of their variance; what the draw of seeds changes is widened for it.
Intervals are too wide where single answers differ by chance more than pictures or seeds do (Owen 2007), and too narrow
where seeds differ most: with three seeds they then miss the truth in 17 of 100 cases instead of in 5, with five in 12.
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
            np.vstack([np.ones((1, n), np.float32), _counts(chance, n, draws)]) for n in (seeds, units)
        )
        self._wider = float(np.sqrt(seeds / max(seeds - 1, 1)))

    def means(self, arm: Arm) -> Array:
        """Return the weighted mean of an arm in each draw."""
        sums, weights = (self._units @ values.T.astype(np.float32) for values in (arm.sums, arm.weights))
        all_seeds, drawn = (
            _ratio(*((times * values).sum(axis=1, dtype=np.float64) for values in (sums, weights)))
            for times in (np.float32(1), self._seeds)
        )
        found: Array = all_seeds + self._wider * (drawn - all_seeds)
        return found


def _counts(chance: np.random.Generator, n: int, draws: int) -> NDArray[np.float32]:
    """Return how often each of `n` is taken in each draw, (draws, n)."""
    found = np.empty((draws, n), np.float32)
    for draw in range(draws):
        found[draw] = np.bincount(chance.integers(n, size=n), minlength=n)
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
    """Return the effect size: the weighted mean difference over units by its standard deviation (Cohen's d, paired)."""
    differences, weights = mine.of_units() - other.of_units(), mine.weights.sum(axis=0) + other.weights.sum(axis=0)
    both = np.isfinite(differences)
    differences, weights = differences[both], weights[both]
    if len(differences) < 2:
        return 0.0
    mean = np.average(differences, weights=weights)
    spread = np.sqrt(np.average((differences - mean) ** 2, weights=weights))
    return float(mean / spread) if spread > 1e-9 else 0.0


def _ratio(sums: Array, weights: Array) -> Array:
    found: Array = np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
    return found
