"""Property tests of the order of rows: every row once per epoch, the same global batches for any number of ranks."""

from collections import Counter
from itertools import pairwise

from capsfusion_trainer.data.order import LANES, Order, largest_share
from hypothesis import given, settings
from hypothesis import strategies as st

Ref = tuple[int, int, int]  # file, row group, row in the group


def order(files: list[list[int]], seed: int, batch: int) -> Order:
    """Return the order over `files`, each a list of the row counts of its row groups."""
    return Order([sum(groups) for groups in files], files.__getitem__, seed=seed, batch=batch)


def rows_of(found: Order, step: int, rank: int = 0, world: int = 1) -> list[Ref]:
    """Return the rows that a rank takes in a step."""
    refs = []
    for lane in found.owned(rank, world):
        epoch, place, stop = found.span(lane, step)
        while place < stop:
            window = found.window(lane, epoch, place)
            refs += [
                (window.file, window.group, int(r)) for r in window.rows[place - window.start : stop - window.start]
            ]
            place = min(stop, window.stop)
    return refs


FILES = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=5), min_size=1, max_size=6)


@settings(deadline=None)
@given(files=FILES, seed=st.integers(0, 2**32), batch=st.sampled_from([1, 6, 8, 24, 256, 300]), epoch=st.integers(0, 3))
def test_each_row_comes_once_an_epoch(files: list[list[int]], seed: int, batch: int, epoch: int) -> None:
    found = order(files, seed, batch)
    steps = range(epoch * found.steps_per_epoch, (epoch + 1) * found.steps_per_epoch)
    seen = Counter(ref for step in steps for ref in rows_of(found, step))
    assert seen == Counter(
        (f, g, r) for f, groups in enumerate(files) for g, rows in enumerate(groups) for r in range(rows)
    )
    assert all(len(rows_of(found, step)) <= batch for step in steps)


@settings(deadline=None)
@given(
    files=FILES,
    seed=st.integers(0, 2**32),
    batch=st.sampled_from([8, 24, 256, 512]),
    worlds=st.lists(st.integers(1, 64), min_size=1, max_size=6),
    first=st.integers(0, 10**9),
)
def test_global_batches_are_the_same_for_any_ranks_from_any_step(
    files: list[list[int]], seed: int, batch: int, worlds: list[int], first: int
) -> None:
    """The number of ranks changes at every step, as after kills and resizes, and every rank starts without state."""
    alone = order(files, seed, batch)
    for step, world in enumerate(worlds, start=first):
        together = Counter(ref for r in range(world) for ref in rows_of(order(files, seed, batch), step, r, world))
        assert together == Counter(rows_of(alone, step))


@given(batch=st.integers(1, 600), world=st.integers(1, 64))
def test_no_rank_has_more_rows_than_the_largest_share(batch: int, world: int) -> None:
    found = order([[700]], 0, batch)
    assert largest_share(batch, LANES, world) == max(len(rows_of(found, 0, r, world)) for r in range(world))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    files = [[16] * 4] * 4
    one = order(files, 0, 8)
    epochs = [[rows_of(one, e * one.steps_per_epoch + s) for s in range(one.steps_per_epoch)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert [rows_of(order(files, 1, 8), s) for s in range(one.steps_per_epoch)] != epochs[0]


def test_a_lane_reads_one_row_group_after_the_other() -> None:
    found = order([[32] * 8], 0, 1)
    windows = [(w.file, w.group) for s in range(256) for w in [found.window(0, 0, s)]]
    assert len([1 for a, b in pairwise(windows) if a != b]) == 7


def test_no_footer_is_read_before_its_file_is_needed() -> None:
    asked: list[int] = []

    def groups(file: int) -> list[int]:
        asked.append(file)
        return [256] * 100

    found = Order([25_600] * 4000, groups, seed=0, batch=8192)
    assert found.rows == 102_400_000
    assert found.steps_per_epoch == 12_500
    assert asked == []
    for step in (10, 1_000_000):
        asked.clear()
        assert len(rows_of(found, step)) == 8192
        assert len(asked) <= 2 * 256
