"""Fair scheduling of jobs over many hosts, with limits for each host.

Each host has `per_host` slots. A free slot waits in a heap until the time at which its host may be contacted again; the
scheduler takes the earliest slot. So a slow host delays only its own jobs.
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
    """A job to run again after `after_s` seconds; no job of its host starts within `host_after_s` seconds."""

    job: Job
    after_s: float
    host_after_s: float = 0.0


@dataclass(slots=True)
class _Host(Generic[Job]):
    todo: deque[Job] = field(default_factory=deque)
    idle: int = 0  # slots outside the heap: they found no job
    free_at: float = 0.0


class Schedule(Generic[Job]):
    """Runs jobs, each of which belongs to a host.

    Args:
        jobs: tuples (host, job).
        at_once: jobs that run at once, over all hosts.
        per_host: jobs of one host that run at once.
        delay_s: least seconds between the starts of two jobs of one host.
    """

    def __init__(self, jobs: Iterable[tuple[str, Job]], *, at_once: int, per_host: int, delay_s: float) -> None:
        self._hosts: dict[str, _Host[Job]] = {}
        for host, job in jobs:
            self._hosts.setdefault(host, _Host()).todo.append(job)
        self._left = sum(len(host.todo) for host in self._hosts.values())
        self._at_once, self._delay_s = min(at_once, self._left), delay_s
        self._count = itertools.count()  # breaks ties in the heap: the slot that waits longer comes first
        self._slots: list[tuple[float, int, _Host[Job]]] = [
            (0.0, next(self._count), host)
            for turn in range(per_host)
            for host in self._hosts.values()
            if turn < len(host.todo)
        ]

    async def run(self, work: Callable[[Job], Awaitable[Retry[Job] | None]]) -> None:
        """Run every job; `work` returns None if the job is done, or when to run it again."""
        self._loop, self._news, self._running = asyncio.get_running_loop(), asyncio.Event(), 0
        async with asyncio.TaskGroup() as jobs:
            while self._left:
                while self._running < self._at_once and (host := self._due()):
                    self._running += 1
                    host.free_at = max(host.free_at, self._loop.time() + self._delay_s)
                    jobs.create_task(self._do(host, host.todo.popleft(), work))
                await self._something_new()

    def _due(self) -> _Host[Job] | None:
        """Return a host that may be contacted now and has a job, or None."""
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
