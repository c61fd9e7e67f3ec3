"""Test the profile of a snapshot and its drift from the previous one."""

from typing import Any

import pytest
from capsfusion_quality.profile import drift, spread, two_sample


def shape(**changes: Any) -> dict[str, Any]:
    base = {
        "rows": 1000, "entities": 2.0, "recall": 0.9, "words": {"10": 500, "20": 500}, "domains": {"a.example": 900},
        "languages": {"en": 1000},
    }  # fmt: skip
    return base | changes


def test_the_same_shape_does_not_drift() -> None:
    assert {fact.value for fact in drift(shape(), shape()).values()} == {0.0}


def test_the_first_snapshot_and_few_rows_have_nothing_to_compare_with() -> None:
    assert {fact.seen for fact in drift(shape(), None).values()} == {"no snapshot to compare with"}
    assert {fact.value for fact in drift(shape(rows=5, words={"3": 5}), shape()).values()} == {0.0}


@pytest.mark.parametrize(
    ("rule", "changes", "value"),
    [
        ("lengths", {"words": {"10": 200, "20": 800}}, 0.3),
        ("entities", {"entities": 1.0}, 0.5),
        ("recall", {"recall": 0.8}, 0.1),
        ("domains", {"domains": {"b.example": 900}}, 0.9),
        ("languages", {"languages": {"en": 900, "de": 100}}, 0.1),
    ],
)
def test_each_kind_of_drift_is_seen(rule: str, changes: dict[str, Any], value: float) -> None:
    facts = drift(shape(**changes), shape())
    assert facts[rule].value == pytest.approx(value)
    assert all(fact.value == pytest.approx(0) for name, fact in facts.items() if name != rule)


def test_a_difference_that_chance_makes_is_none() -> None:
    few = {"rows": 40, "words": {"10": 24, "20": 16}}
    assert drift(shape(**few), shape())["lengths"].value == 0.0


def test_the_distance_is_that_of_scipy() -> None:
    from scipy.stats import ks_2samp

    first, second = [3, 9, 4, 0, 7], [5, 2, 6, 6, 1]
    values = [[i for i, n in enumerate(h) for _ in range(n)] for h in (first, second)]
    exact = ks_2samp(*values, method="asymp")
    distance, chance = two_sample(first, second)
    assert distance == pytest.approx(exact.statistic)
    assert chance == pytest.approx(exact.pvalue, abs=0.1)


def test_lengths_and_the_commonest_language() -> None:
    words = {"2": 4, "3": 2, "10": 88, "40": 5, "70": 1}
    found = spread(shape(rows=100, words=words, languages={"en": 90, "de": 10}))
    assert {name: fact.value for name, fact in found.items()} == {
        "short_twentieth": 3.0, "long_twentieth": 40.0, "main_language": 0.9,
    }  # fmt: skip
    assert {fact.value for fact in spread(shape(rows=0, words={}, languages={})).values()} == {None}
