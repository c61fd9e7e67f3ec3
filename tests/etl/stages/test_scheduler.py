"""Test the scheduler of the fetch and its limits for each host."""

import asyncio
import time
from itertools import pairwise

from capsfusion_etl.stages.fetch.scheduler import Retry, Schedule


def test_a_host_is_asked_a_few_times_at_once_and_not_too_often() -> None:
    running: dict[str, int] = {}
    seen: dict[str, list[tuple[float, int]]] = {}

    async def work(job: tuple[str, int]) -> Retry[tuple[str, int]] | None:
        host, number = job
        running[host] = running.get(host, 0) + 1
        seen.setdefault(host, []).append((time.monotonic(), running[host]))
        await asyncio.sleep(0.02)
        running[host] -= 1
        first = sum(1 for _ in seen[host]) <= 3
        return Retry(job, after_s=0.05) if host == "a" and number == 0 and first else None

    jobs = [("a", ("a", i)) for i in range(12)] + [("b", ("b", i)) for i in range(12)]
    asyncio.run(Schedule(jobs, at_once=100, per_host=3, delay_s=0.01).run(work))
    assert len(seen["b"]) == 12
    assert 12 < len(seen["a"]) <= 15
    assert all(at_once <= 3 for host in seen.values() for _, at_once in host)
    assert min(retry - earlier for (earlier, _), (retry, _) in pairwise(seen["b"])) > 0.005
    assert seen["b"][0][0] < seen["a"][-1][0]  # host b does not wait for host a
