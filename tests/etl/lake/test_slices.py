"""Test how slices grow: a kill must cost little, and the fixed cost of each slice must not add up."""

from types import SimpleNamespace
from typing import Any

import pytest
from capsfusion_etl.budget.budget import Budget, BudgetConfig
from capsfusion_etl.budget.spend import Account
from capsfusion_etl.lake.slices import FIRST_ROWS, FROM_THE_START, Pace


def run(total: int, fixed: float, each: float) -> list[float]:
    """Return the seconds of each slice, for `fixed` seconds a slice and `each` seconds a row."""
    pace, wanted, taken = Pace(), float(FIRST_ROWS), []
    while total > 0:
        rows = min(int(wanted), total)
        taken.append(fixed + rows * each)
        total, wanted = total - rows, pace.next_rows(rows, taken[-1])
    return taken


@pytest.mark.parametrize("each", [0.5, 0.05, 0.002])
def test_slices_of_a_slow_engine_last_half_a_minute(each: float) -> None:
    taken = run(int(600 / each), 2.0, each)
    assert max(taken) < 45
    assert sum(taken) < 1.2 * 600 + 30


def test_a_fast_engine_needs_few() -> None:
    assert len(run(200_000, 1.5, 1e-5)) <= 3


def test_slices_that_cost_much_by_themselves_are_long() -> None:
    taken = run(2_000_000, 60.0, 0.002)
    assert sum(taken) < 1.3 * 2_000_000 * 0.002
    assert len(taken) < 15


def test_a_slice_that_other_work_slowed_down_makes_none_of_hours() -> None:
    pace = Pace()
    for rows, seconds in ((32, 10), (128, 49), (67, 60)):  # as measured once; the engine needs .38 s a row
        wanted = pace.next_rows(rows, seconds)
    assert wanted * 0.38 < 600


def test_rows_of_leftovers_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def made(*_: object, low: str) -> tuple[int, int, int]:
        rows = sum(key >= low for key in keys)
        return rows, rows, rows

    monkeypatch.setattr("capsfusion_etl.budget.budget.made", made)
    monkeypatch.setattr("capsfusion_etl.budget.budget.record", lambda *_: None)
    run: Any = SimpleNamespace(run_id="r", lake=SimpleNamespace(folder="lake"))
    budget = Budget(run, Account("fuse", "fused_captions", "m"), BudgetConfig(), paid=False)
    settled = []
    for low, new in ((FROM_THE_START, ["1a", "8a"]), ("10", ["1b"]), ("40", ["4a", "4b"]), ("40", ["4c"])):
        keys += new
        settled.append(budget.settle("slice", low=low))
    assert settled == [2, 1, 2, 1]
