"""Who is asked next: many hosts at once, each no more than a few times at a time, and not before it wants to be.

A host has as many slots as it may be asked at once. A free slot waits in a heap until the time at which its host may be
asked again; a worker takes the earliest. So nobody waits behind a slow host but its own addresses.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job")


@dataclass(slots=True)
class Retry(Generic[Job]):
    """What became of a job that is to be done again: not before `after_s`, its host not before `host_after_s`."""

    job: Job
    after_s: float
    host_after_s: float = 0.0


@dataclass(slots=True)
class _Host(Generic[Job]):
    todo: deque[Job] = field(default_factory=deque)
    idle: int = 0  # slots that found nothing to do
    free_at: float = 0.0


class Schedule(Generic[Job]):
    """Runs jobs, each of a host.

    Args:
        jobs: of (host, job).
        at_once: of all hosts.
        per_host: of one host.
        delay_s: between two beginnings at one host.
    """

    def __init__(self, jobs: Iterable[tuple[str, Job]], *, at_once: int, per_host: int, delay_s: float) -> None:
        self._hosts: dict[str, _Host[Job]] = {}
        for host, job in jobs:
            self._hosts.setdefault(host, _Host()).todo.append(job)
        self._left = sum(len(host.todo) for host in self._hosts.values())
        self._at_once, self._delay_s = min(at_once, self._left), delay_s
        self._count = itertools.count()  # those who wait longer come first
        self._slots: list[tuple[float, int, _Host[Job]]] = [
            (0.0, next(self._count), host)
            for turn in range(per_host)
            for host in self._hosts.values()
            if turn < len(host.todo)
        ]

    async def run(self, work: Callable[[Job], Awaitable[Retry[Job] | None]]) -> None:
        """Do every job: `work` says None when it is done, or when to do it again."""
        self._loop, self._news, self._running = asyncio.get_running_loop(), asyncio.Event(), 0
        async with asyncio.TaskGroup() as jobs:
            while self._left:
                while self._running < self._at_once and (host := self._due()):
                    self._running += 1
                    host.free_at = max(host.free_at, self._loop.time() + self._delay_s)
                    jobs.create_task(self._do(host, host.todo.popleft(), work))
                await self._something_new()

    def _due(self) -> _Host[Job] | None:
        """A host that may be asked now and has something to ask."""
        now = self._loop.time()
        while self._slots and self._slots[0][0] <= now:
            host = heapq.heappop(self._slots)[2]
            if not host.todo:
                host.idle += 1
            elif host.free_at > now:
                self._put(host)
            else:
                return host
        return None

    async def _do(self, host: _Host[Job], job: Job, work: Callable[[Job], Awaitable[Retry[Job] | None]]) -> None:
        retry = await work(job)
        self._running -= 1
        if retry is None:
            self._left -= 1
        else:
            host.free_at = max(host.free_at, self._loop.time() + retry.host_after_s)
            self._loop.call_later(retry.after_s, self._again, host, retry.job)
        self._put(host)
        self._news.set()

    def _again(self, host: _Host[Job], job: Job) -> None:
        host.todo.append(job)
        if host.idle:
            host.idle -= 1
            self._put(host)
        self._news.set()

    def _put(self, host: _Host[Job]) -> None:
        heapq.heappush(self._slots, (host.free_at, next(self._count), host))

    async def _something_new(self) -> None:
        full = self._running >= self._at_once or not self._slots
        wait_s = None if full else max(0.0, self._slots[0][0] - self._loop.time())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), wait_s)
        self._news.clear()
