"""Tests of the bootstrap: intervals cover, differences are paired, slopes and effects are what they say."""

import numpy as np
import pytest
from capsfusion_trainer.compare.bootstrap import Arm, Bootstrap, effect, interval, slope

CHANCE = np.random.default_rng(1)


def arm(values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> Arm:
    return Arm(values, np.ones_like(values))


def test_an_interval_of_95_percent_covers_the_truth_as_often() -> None:
    held = 0
    for _ in range(200):
        found = interval(Bootstrap(1, 100, 400).means(arm(CHANCE.normal(0.3, 1.0, (1, 100)))))
        held += found.low <= 0.3 <= found.high
    assert 180 <= held <= 199


@pytest.mark.parametrize(
    ("seeds", "spread", "least", "most"),
    [(3, 0.0, 0.97, 1.0), (3, 0.3, 0.81, 0.93), (3, 1.0, 0.76, 0.9), (5, 0.0, 0.97, 1.0), (5, 0.3, 0.87, 0.97),
     (5, 1.0, 0.83, 0.94)],
)  # fmt: skip
def test_how_often_intervals_cover_when_seeds_differ(seeds: int, spread: float, least: float, most: float) -> None:
    held = 0
    for _ in range(300):
        values = 0.3 + CHANCE.normal(0, spread, (seeds, 1)) + CHANCE.normal(0, 1.0, (seeds, 100))
        found = interval(Bootstrap(seeds, 100, 400).means(arm(values)))
        held += found.low <= 0.3 <= found.high
    assert least <= held / 300 <= most


def test_intervals_of_shares_stay_near_their_range_when_seeds_have_different_weights() -> None:
    """As of entity precision: a seed whose captions state few names counts little."""
    weights = np.array([[1.0] * 50, [5.0] * 50, [0.1] * 50])
    found = interval(Bootstrap(3, 50).means(Arm(weights * [[0.2], [0.9], [0.5]], weights)))
    assert found.value == pytest.approx((0.2 + 4.5 + 0.05) / 6.1)
    assert -0.1 < found.low < found.value < found.high < 1.1


def test_differences_are_paired_by_unit_and_seed() -> None:
    hard = CHANCE.normal(0, 10, (3, 200))
    mine, other = arm(hard + 0.5 + CHANCE.normal(0, 0.1, (3, 200))), arm(hard)
    draws = Bootstrap(3, 200)
    alone, difference = interval(draws.means(mine)), interval(draws.means(mine) - draws.means(other))
    assert alone.high - alone.low > 1
    assert 0.4 < difference.low < 0.5 < difference.high < 0.6
    assert effect(mine, other) > 3
    assert effect(mine, mine) == 0


def test_weights_count_and_units_without_any_do_not() -> None:
    values, weights = np.array([[1.0, 0.0, 7.0]]), np.array([[3.0, 1.0, 0.0]])
    found = interval(Bootstrap(1, 3).means(Arm(values * weights, weights)))
    assert found.value == pytest.approx(0.75)
    nothing = interval(Bootstrap(1, 2).means(Arm(np.zeros((1, 2)), np.zeros((1, 2)))))
    assert np.isnan(nothing.value)


def test_a_slope_is_the_gain_for_each_doubling() -> None:
    lines = [np.full(5, value) for value in (1.0, 3.0, 5.0)]
    assert slope([1000, 4000, 16000], lines).tolist() == pytest.approx([1.0] * 5)
