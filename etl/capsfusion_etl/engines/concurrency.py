"""Helpers of the workers: run many coroutines at once, and split an iterable into chunks."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from capsfusion_etl.engines.base import AsyncEngine

ROUND = 256  # questions per round: enough to form batches of similar length, few enough to keep in memory
T = TypeVar("T")
R = TypeVar("R")


def in_flight(
    items: Iterable[T],
    work: Callable[[T], Coroutine[None, None, R | None]],
    engine: AsyncEngine,
) -> Iterator[R]:
    """Run `work` on all items, as many at once as the engine takes, and yield the results in the order of completion.

    A slow request delays no other, because `items` may span many Arrow batches. The first exception cancels the rest
    and is raised.

    Args:
        items: consumed as slots become free.
        work: coroutine function; results of None are left out.
        engine: what `work` asks; it is told of the end, and closed, also after an exception.
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
            await engine.close()

        try:
            for item in items:
                pending.add(loop.create_task(work(item)))
                if len(pending) >= engine.concurrency:
                    yield from runner.run(first_done())
            while pending:
                yield from runner.run(first_done())
            engine.finish()
        finally:
            runner.run(stop())


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items; the last one may be shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
