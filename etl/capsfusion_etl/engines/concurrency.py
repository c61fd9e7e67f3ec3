"""Many calls in flight, and rows in chunks."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import TypeVar

ROUND = 256  # questions of a round: enough to sort by length, few enough to hold


T = TypeVar("T")


R = TypeVar("R")


def in_flight(
    items: Iterable[T],
    work: Callable[[T], Coroutine[None, None, R | None]],
    limit: int,
    close: Callable[[], Coroutine[None, None, None]],
) -> Iterator[R]:
    """Run `work` over all items with at most `limit` at once, across the borders of Arrow batches.

    Results come as they are done, those of None are left out: one slow answer holds up nobody. The first exception
    stops the rest and is raised.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        pending: set[asyncio.Task[R | None]] = set()

        async def first_done() -> list[R]:
            nonlocal pending
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            errors = [error for task in done if (error := task.exception()) is not None]
            if errors:
                raise errors[0]
            return [result for task in done if (result := task.result()) is not None]

        async def stop() -> None:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await close()

        try:
            for item in items:
                pending.add(loop.create_task(work(item)))
                if len(pending) >= limit:
                    yield from runner.run(first_done())
            while pending:
                yield from runner.run(first_done())
        finally:
            runner.run(stop())


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
