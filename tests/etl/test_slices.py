"""How slices grow: a kill must cost little, and what each slice costs by itself must not add up."""

import pytest
from capsfusion_etl.slices import FIRST_ROWS, Pace


def run(total: int, fixed: float, each: float) -> list[float]:
    """Seconds of the slices, of an engine that takes `each` second a row."""
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
